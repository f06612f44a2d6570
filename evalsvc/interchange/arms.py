"""Imported scores as arms: the checkpoint that they belong to, its plan, its aggregated results.

An arm may be imported suite by suite: it is known by its name and step. Imported arms have their own numerics
("imported"), so they are compared with each other and never with arms that evalsvc scored. Items are identified by
task, id and prompt, never by their row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evalsvc.errors import UsageError
from evalsvc.records.arms import Arm, Checkpoint, Numerics
from evalsvc.records.digests import canonical, digest, join_digests
from evalsvc.records.plans import Metric, Plan, PlannedTask, Rendering, Sample
from evalsvc.records.scores import Graded, Result, Score
from evalsvc.records.vocabulary import Role
from evalsvc.settings import check_choice
from evalsvc.stats.estimates import SMOOTH, WEIGHTED, estimate
from evalsvc.store.arms import StoredArm
from evalsvc.store.runs import driver_name
from evalsvc.store.scores import StoredResult
from evalsvc.store.store import Store

NUMERICS = Numerics(device="imported", dtype="", torch="", transformers="")
_ANOTHER_NAME = "another name (--name of import lm-eval, or in the column of import items)"


@dataclass(frozen=True, slots=True)
class Target:
    """Where imported scores are stored, and which of a file's are imported.

    Attributes:
        suite: The suite that they are stored under.
        tasks: Shell patterns of the tasks or groups to import.
        metric: The primary metric, as NAME or NAME,FILTER; None for the task's first.
        higher, lower: Metrics that the user declares to be better when higher, or when lower.
    """

    suite: str
    role: Role
    tasks: tuple[str, ...] = ("*",)
    metric: str | None = None
    higher: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the role, and that no metric is declared both ways.

        Raises:
            UsageError: There is no such role, or a metric is.
        """
        check_choice("role", self.role, Role)
        if both := set(self.higher) & set(self.lower):
            raise UsageError(f"metric {min(both)}: is declared better when higher and when lower; declare one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """What the user says of an imported arm.

    Attributes:
        name: None for the file's.
        method: None for the stored arm's, else "base" without a parent and "unknown" with one.
        parent: The base that it was adapted from; None for the stored arm's.
        seed: Seed of the training run; None for the stored arm's.
    """

    name: str | None = None
    method: str | None = None
    parent: Checkpoint | None = None
    step: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """One arm with its scores on one plan.

    Attributes:
        tasks: What the plan and the scores were made of.
        groups: Results of groups of tasks.
        notes: What was left out, and why.
    """

    arm: Arm
    plan: Plan
    graded: Graded
    tasks: tuple[ImportedTask, ...]
    groups: tuple[Result, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTask:
    """One task of a file: its metrics, the primary one first, and its items' scores."""

    name: str
    metrics: tuple[Metric, ...]
    samples: tuple[Sample, ...]
    scores: tuple[Score, ...]
    results: tuple[Result, ...]
    chance: float | None = None


def make_checkpoint(adaptation: Adaptation, content: str, source: Path, stored: Sequence[StoredArm] = ()) -> Checkpoint:
    """Return the checkpoint that imported scores belong to: the stored one of this name and step, else a new one.

    Args:
        content: What the digest of a new checkpoint is made of, with its name.
        stored: The store's arms.

    Raises:
        UsageError: The stored arm of this name has another method, base or seed.
    """
    name, step = adaptation.name or source.name, adaptation.step
    parent = adaptation.parent.digest if adaptation.parent else None
    for arm in stored:
        known = arm.checkpoint
        if arm.numerics == NUMERICS.key() and (known.name, known.step) == (name, step):
            if (adaptation.method or known.method, parent or known.parent) != (known.method, known.parent):
                raise UsageError(
                    f"arm {known.label!r}: is in the store with method {known.method!r} and "
                    f"{'another base' if known.parent else 'no base'}; give these results {_ANOTHER_NAME}, or "
                    "leave --method and --base out"
                )
            if adaptation.seed not in (None, known.seed) and known.seed is not None:
                raise UsageError(
                    f"arm {known.label!r}: is in the store with seed {known.seed}, and now has {adaptation.seed}; give "
                    f"these results {_ANOTHER_NAME}"
                )
            return known if adaptation.seed is None else replace(known, seed=adaptation.seed)
    return Checkpoint(
        digest=join_digests(["imported", name, content], [content, name]),
        name=name,
        path=str(source.resolve()),
        method=adaptation.method or ("unknown" if parent else "base"),
        tokenizer="",
        parent=parent,
        step=step,
        seed=adaptation.seed,
        trajectory=name if step is not None else None,
    )


def assemble(
    checkpoint: Checkpoint,
    target: Target,
    source: Path,
    tasks: Sequence[ImportedTask],
    groups: Sequence[Result] = (),
    notes: Sequence[str] = (),
) -> Imported:
    """Return an arm with its tasks; equal items in equal clusters give equal plans."""
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
    content = [
        (task.name, canonical([(m.name, m.filter, m.higher_is_better) for m in task.metrics[:1]])) for task in planned
    ]
    identity = digest(
        *("imported plan", target.suite, target.role, canonical(content)),
        *(sample.digest for task in planned for sample in task.samples),
        *(sample.cluster for task in planned for sample in task.samples if sample.cluster is not None),
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
    results = (*(result for task in tasks for result in task.results), *groups)
    graded = Graded(results, {task.name: task.scores for task in tasks})
    return Imported(Arm(checkpoint, NUMERICS), plan, graded, tuple(tasks), tuple(groups), tuple(notes))


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
    """Write imported arms and their scores to a store.

    Raises:
        UsageError: An arm has other results on the same suite; nothing was stored.
    """
    stored = store.results() if store.path.is_file() else []
    for entry in imported:
        _check_stored(entry, [r for r in stored if (r.arm.digest, r.suite) == (entry.arm.key, entry.plan.suite)])
    for entry in imported:
        store.register([entry.arm], [entry.plan], driver_name())
        store.finish(entry.arm, entry.plan, entry.graded)


def _check_stored(entry: Imported, stored: Sequence[StoredResult]) -> None:
    """Raise UsageError if an arm's stored results on a suite are not among the imported ones."""
    values = {(r.task, r.metric, r.filter): r.value for r in entry.graded.results}
    tasks = {task for task, _, _ in values}
    for result in stored:
        value = values.get((result.task, result.metric, result.filter), result.value)
        if math.isclose(value, result.value, rel_tol=1e-9) and result.task in tasks:
            continue
        reason = (
            f"{result.task} {result.metric} {result.value:g}, and now {value:g}"
            if result.task in tasks
            else f"{result.task}, which is not in this import"
        )
        raise UsageError(
            f"{entry.arm.label}: has results on suite {result.suite} already ({reason}); import all of a suite's tasks "
            "in one command, or give another --suite"
        )
