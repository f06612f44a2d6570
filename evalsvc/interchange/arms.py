"""Imported scores as arms: the checkpoint that they belong to, its plan, its aggregated results.

Imported arms have their own numerics ("imported"), so they are compared with each other and never with arms that
evalsvc scored. Items are identified by task, id and prompt, never by their row.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalsvc.errors import UsageError
from evalsvc.records.arms import Arm, Checkpoint, Numerics
from evalsvc.records.digests import canonical, digest, join_digests
from evalsvc.records.plans import Metric, Plan, PlannedTask, Rendering, Sample
from evalsvc.records.scores import Graded, Result, Score
from evalsvc.records.vocabulary import Role
from evalsvc.stats.estimates import SMOOTH, WEIGHTED, estimate
from evalsvc.store.runs import driver_name
from evalsvc.store.store import Store

NUMERICS = Numerics(device="imported", dtype="", torch="", transformers="")


@dataclass(frozen=True, slots=True)
class Target:
    """The suite that imported scores are stored under, its role, and the file's tasks to import (shell patterns)."""

    suite: str
    role: Role
    tasks: tuple[str, ...] = ("*",)
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """One arm with its scores on one plan."""

    arm: Arm
    plan: Plan
    graded: Graded


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTask:
    """One task of a file: its metrics, the primary one first, and its items' scores."""

    name: str
    metrics: tuple[Metric, ...]
    samples: tuple[Sample, ...]
    scores: tuple[Score, ...]
    results: tuple[Result, ...]
    chance: float | None = None


def read_json(path: Path) -> Any:
    """Read JSON, gzipped or not.

    Raises:
        UsageError: The file cannot be read, or is not JSON.
    """
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not valid JSON ({error})") from error


def make_checkpoint(
    name: str, content: str, method: str, source: Path, parent: Checkpoint | None = None, step: int | None = None
) -> Checkpoint:
    """Return the checkpoint that imported scores belong to; its digest is that of the imported content."""
    trajectory = name if step is not None else None
    return Checkpoint(
        digest=join_digests(["imported", name, content], [content, name]),
        name=name,
        path=str(source.resolve()),
        method=method,
        tokenizer="",
        parent=parent.digest if parent else None,
        step=step,
        trajectory=trajectory,
    )


def assemble(checkpoint: Checkpoint, target: Target, source: Path, tasks: Sequence[ImportedTask]) -> Imported:
    """Return an arm with its tasks; equal items give equal plans."""
    planned = tuple(
        PlannedTask(
            name=task.name,
            group=None,
            version="imported",
            output_type="imported",
            shots=0,
            metrics=task.metrics,
            weight=1.0,
            chance=task.chance,
            samples=task.samples,
        )
        for task in tasks
    )
    content = [(task.name, canonical([m.name for m in task.metrics[:1]])) for task in planned]
    identity = digest(
        *("imported plan", target.suite, target.role, canonical(content)),
        *(sample.digest for task in planned for sample in task.samples),
    )
    plan = Plan(
        digest=identity,
        suite=target.suite,
        role=target.role,
        description="imported",
        suite_digest=identity,
        suite_path=str(source.resolve()),
        rendering=Rendering(),
        tasks=planned,
        requests=(),
    )
    results = tuple(result for task in tasks for result in task.results)
    return Imported(Arm(checkpoint, NUMERICS), plan, Graded(results, {task.name: task.scores for task in tasks}))


def aggregate(task: str, metric: Metric, scores: Sequence[Score], primary: bool) -> Result:
    """Return the result of a task in one metric, aggregated from its scores."""
    counted = [s for s in scores if (s.metric, s.filter) == (metric.name, metric.filter) and s.value is not None]
    values = np.array([s.value for s in counted], dtype=np.float64)
    weights = np.array([s.weight for s in counted], dtype=np.float64) if metric.aggregation in WEIGHTED else None
    mean = estimate(values, weights, metric.aggregation if metric.aggregation in SMOOTH else "mean")
    stderr = mean.stderr if math.isfinite(mean.stderr) else None
    return Result(
        task=task,
        metric=metric.name,
        filter=metric.filter,
        n=len(counted),
        value=mean.value,
        stderr=stderr,
        higher_is_better=metric.higher_is_better,
        primary=primary,
    )


def store_imported(store: Store, imported: Sequence[Imported]) -> None:
    """Write imported arms and their scores to a store."""
    for entry in imported:
        store.register([entry.arm], [entry.plan], driver_name())
        store.finish(entry.arm, entry.plan, entry.graded)
