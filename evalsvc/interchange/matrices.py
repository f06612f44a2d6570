"""Files with matrices of tasks that were learned one after the other -> Matrix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evalsvc.errors import UsageError
from evalsvc.records.matrices import FIGURES, Matrix
from evalsvc.records.vocabulary import Floats


def read_matrix(path: Path) -> Matrix:
    """Read a JSON file.

    It holds `tasks` and `scores` (one row per stage), or `task_sequence` and `accuracy_matrix` (task -> after_TASK ->
    score); and, if known, `name`, `method`, `seed`, `untrained`, `joint`. Figures that it states are not read.

    Raises:
        UsageError: It holds no matrix, or one that is not square or has gaps.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"matrix {path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"matrix {path}: is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise UsageError(f"matrix {path}: holds a {type(found).__name__}, must be an object with tasks and scores")
    try:
        tasks, scores = _scores(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        stated = [name for name in FIGURES if name in found]
        reason = (
            f"states {', '.join(stated)} without the matrix: what the sum was divided by (T or T - 1) cannot be told"
            if stated
            else f"has no matrix that can be read ({type(error).__name__}: {error})"
        )
        raise UsageError(f"matrix {path}: {reason}; give `tasks` and `scores`, one row per stage") from error
    made = Matrix(
        name=str(found.get("name") or found.get("experiment_id") or path.stem),
        method=str(found.get("method") or "unknown"),
        seed=found["seed"] if isinstance(found.get("seed"), int) else None,
        source=str(path.resolve()),
        tasks=tasks,
        scores=scores,
        untrained=_row(found.get("untrained"), tasks, path),
        joint=_row(found.get("joint"), tasks, path),
    )
    try:
        _ = made.summary
    except ValueError as error:
        raise UsageError(f"matrix {path}: {error}") from error
    return made


def _scores(found: dict[str, Any]) -> tuple[tuple[str, ...], Floats]:
    if "accuracy_matrix" in found:
        tasks = tuple(str(task) for task in found["task_sequence"])
        table = found["accuracy_matrix"]
        rows = [[table[task].get(f"after_{stage}", np.nan) for task in tasks] for stage in tasks]
    else:
        tasks = tuple(str(task) for task in found["tasks"])
        rows = [[np.nan if value is None else value for value in row] for row in found["scores"]]
    scores = np.array(rows, dtype=np.float64)
    if scores.shape != (len(tasks), len(tasks)):
        raise ValueError(f"{len(tasks)} tasks and scores of shape {scores.shape}")
    return tasks, scores


def _row(values: Sequence[float] | None, tasks: Sequence[str], path: Path) -> Floats | None:
    if values is None:
        return None
    if len(values) != len(tasks):
        raise UsageError(f"matrix {path}: {len(values)} reference scores for {len(tasks)} tasks, must be one for each")
    return np.array(values, dtype=np.float64)
