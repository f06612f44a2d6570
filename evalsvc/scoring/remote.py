"""Runs an evalsvc command on a cluster's head node through Ray's Jobs API."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import TextIO

from evalsvc.errors import EvalsvcError
from evalsvc.scoring.executors import explain
from evalsvc.scoring.ray_executor import import_ray


def run_remotely(address: str, arguments: Sequence[str], *, answer: TextIO, log: TextIO) -> int:
    """Run an evalsvc command on a cluster's head node through Ray's Jobs API, and return its exit code.

    A job has one stream for output and log. With `--json` among the arguments, the line with the JSON object goes to
    `answer` and all other lines to `log`; without it all lines go to `answer`.

    Raises:
        EvalsvcError: The cluster does not answer, or refuses the token.
    """
    import_ray()
    from ray.job_submission import JobStatus, JobSubmissionClient

    def is_answer(line: str) -> bool:
        return "--json" not in arguments or line.startswith('{"schema"')

    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(entrypoint=shlex.join(["evalsvc", *arguments]))
        shown = 0
        while True:
            status = client.get_job_status(job)  # before the log, so that nothing is missed at the end
            text = client.get_job_logs(job)
            whole = len(text) if status.is_terminal() else text.rfind("\n") + 1
            for line in text[shown:whole].splitlines():
                print(line, file=answer if is_answer(line) else log, flush=True)
            shown = max(shown, whole)
            if status.is_terminal():
                break
            time.sleep(0.5)
        code = client.get_job_info(job).driver_exit_code
    except Exception as error:  # RuntimeError, ConnectionError, AuthenticationError, ... from four libraries
        raise EvalsvcError(f"cluster {address}: {explain(error)}") from error
    return int(code) if code is not None else int(status != JobStatus.SUCCEEDED)
