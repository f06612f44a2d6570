"""Plans of tasks in a folder, and what stock lm-eval makes of the same tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evalsvc.harness.plan import Planned
from evalsvc.records.arms import Checkpoint
from evalsvc.records.plans import Request, Response


def stock(
    folder: Path, checkpoint: Checkpoint, tasks: tuple[str, ...], model: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Return what stock lm-eval says of tasks in a folder.

    Args:
        model: Further arguments of HFLM.
        options: Arguments of `simple_evaluate`.
    """
    # As a folder of data files is addressed by lm-eval: from the current directory.
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    settings = {"device": "cpu", "dtype": "float32", "batch_size": 4, **(model or {})}
    lm = HFLM(pretrained=checkpoint.path, **settings)
    with mock.patch("lm_eval.evaluator.add_env_info"):  # lists all installed packages, with pip
        return lm_eval.simple_evaluate(
            lm, tasks=list(tasks), task_manager=manager, log_samples=True, **{"bootstrap_iters": 10, **options}
        )


def requests_by_sample(planned: Planned, task: str) -> list[list[Request]]:
    """Return the requests of each sample of a planned task."""
    known = {request.digest: request for request in planned.plan.requests}
    chosen = next(t for t in planned.plan.tasks if t.name == task)
    return [[known[key] for key in sample.requests] for sample in chosen.samples]


def fake_responses(planned: Planned) -> dict[str, Response]:
    """Answer every request with a likelihood that its digest decides."""
    responses = {}
    for request in planned.plan.requests:
        if request.kind == "generate_until":
            responses[request.digest] = Response(request=request.digest, text="the red house")
        else:
            greedy = None if request.kind == "loglikelihood_rolling" else False
            responses[request.digest] = Response(
                request=request.digest, loglikelihood=-int(request.digest[:4], 16) / 1000, greedy=greedy
            )
    return responses
