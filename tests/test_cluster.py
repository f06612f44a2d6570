"""The cluster file, and commands that are sent to a cluster."""

from __future__ import annotations

import io
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from evalsvc.cluster import _ray, run_remotely
from evalsvc.errors import EvalsvcError
from tests.conftest import ROOT


def test_rays_own_validator_accepts_the_cluster_file() -> None:
    _ray()
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="unexpected"):
        validate_config(prepare_config({**config, "unexpected": 1}))


class Head(NamedTuple):
    address: str
    folder: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A real head with its Jobs API, behind a token."""
    folder = tmp_path_factory.mktemp("head")
    port = free_port()
    token = secrets.token_hex(32)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "EVALSVC_DB": str(folder / "head.duckdb"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["ray", "start", "--head", "--block", "--num-cpus=1", f"--port={free_port()}"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    previous = os.environ.get("RAY_AUTH_TOKEN")
    os.environ["RAY_AUTH_TOKEN"] = token
    try:
        yield Head(f"http://127.0.0.1:{port}", folder)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        if previous is None:
            os.environ.pop("RAY_AUTH_TOKEN")
        else:
            os.environ["RAY_AUTH_TOKEN"] = previous


def remotely(head: Head, *arguments: str) -> tuple[int, str, str]:
    answer, log = io.StringIO(), io.StringIO()
    deadline = time.monotonic() + 60
    while True:
        try:
            return run_remotely(head.address, arguments, answer=answer, log=log), answer.getvalue(), log.getvalue()
        except EvalsvcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)  # the head is still starting


def test_a_command_runs_on_the_head_and_its_answer_and_exit_code_come_back(head: Head) -> None:
    code, answer, _ = remotely(head, "suites", "list", "--json")
    assert code == 0
    assert answer.startswith('{"schema": 1, "suites": [')
    assert len(answer.splitlines()) == 1
    code, answer, log = remotely(head, "status", "--json")
    assert (code, answer) == (2, "")
    assert "head.duckdb: no such file; submit a checkpoint first" in log


def test_a_wrong_token_is_refused_in_one_line(head: Head) -> None:
    code = (
        "import sys\nfrom evalsvc.cluster import run_remotely\nfrom evalsvc.errors import EvalsvcError\n"
        f"try: run_remotely({head.address!r}, ['status'], answer=sys.stdout, log=sys.stderr)\n"
        "except EvalsvcError as error: sys.exit(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RAY_AUTH_TOKEN": "x" * 64},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert head.address in done.stderr.strip().splitlines()[-1]
