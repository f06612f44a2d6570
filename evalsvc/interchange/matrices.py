"""Files with score matrices of continual learning, one row per stage of training -> Matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evalsvc.errors import UsageError
from evalsvc.files.json_files import read_object
from evalsvc.records.matrices import FIGURES, Matrix
from evalsvc.records.vocabulary import Floats


def read_matrix(path: Path) -> Matrix:
    """Read a JSON file.

    It contains `tasks` and `scores` (one row per stage), or `task_sequence` and `accuracy_matrix` (task -> after_TASK
    -> score); and optionally `name`, `method`, `seed`, `untrained`, `joint`. Summary figures in the file are ignored.

    Raises:
        UsageError: The file contains no matrix, or one that is not square or has gaps.
    """
    data = read_object(path, UsageError, f"matrix {path}")
    try:
        tasks, scores = _scores(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        stated = [name for name in FIGURES if name in data]
        reason = (
            f"has {', '.join(stated)} without the matrix, so the divisor (T or T - 1) is unknown"
            if stated
            else f"has no readable matrix ({type(error).__name__}: {error})"
        )
        raise UsageError(f"matrix {path}: {reason}; give `tasks` and `scores`, one row per stage") from error
    matrix = Matrix(
        name=str(data.get("name") or data.get("experiment_id") or path.stem),
        method=str(data.get("method") or "unknown"),
        seed=data["seed"] if isinstance(data.get("seed"), int) else None,
        source=str(path.resolve()),
        tasks=tasks,
        scores=scores,
        untrained=_row(data.get("untrained"), tasks, path),
        joint=_row(data.get("joint"), tasks, path),
    )
    try:
        _ = matrix.summary
    except ValueError as error:
        raise UsageError(f"matrix {path}: {error}") from error
    return matrix


def _scores(data: dict[str, Any]) -> tuple[tuple[str, ...], Floats]:
    if "accuracy_matrix" in data:
        tasks = tuple(str(task) for task in data["task_sequence"])
        table = data["accuracy_matrix"]
        rows = [[table[task].get(f"after_{stage}", np.nan) for task in tasks] for stage in tasks]
    else:
        tasks = tuple(str(task) for task in data["tasks"])
        rows = [[np.nan if value is None else value for value in row] for row in data["scores"]]
    scores = np.array(rows, dtype=np.float64)
    if scores.shape != (len(tasks), len(tasks)):
        raise ValueError(f"{len(tasks)} tasks and scores of shape {scores.shape}")
    return tasks, scores


def _row(values: Sequence[float] | None, tasks: Sequence[str], path: Path) -> Floats | None:
    if values is None:
        return None
    if len(values) != len(tasks):
        raise UsageError(f"matrix {path}: {len(values)} reference scores for {len(tasks)} tasks, must be one per task")
    return np.array(values, dtype=np.float64)
