"""Scores of many arms of one base in, the learning-versus-forgetting frontier out. Pure: no I/O, no database.

Learning is the mean gain over domain suites, forgetting the mean loss over general suites: positive forgetting is
always worse. Intervals and the probability of being on the frontier come from one bootstrap of items that all arms
share, so that the pairing between arms survives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalsvc.compare import task_shares, unit_of
from evalsvc.errors import EvidenceError
from evalsvc.records import Checkpoint, Floats, Frontier, Point, Role, TaskScores
from evalsvc.stats.bootstrap import resampled_means
from evalsvc.stats.estimates import SMOOTH, estimate
from evalsvc.stats.paired import LEVEL
from evalsvc.stats.pareto import hypervolume, non_dominated

REPLICATES = 2000
SEED = 1234


@dataclass(frozen=True, slots=True)
class Candidate:
    """An arm with its scores, ready to be placed."""

    label: str
    checkpoint: Checkpoint
    scores: Sequence[TaskScores]


@dataclass(frozen=True, slots=True)
class _Axis:
    """Gains over the base along one axis; better is positive.

    Attributes:
        gain: [arms].
        resampled: [replicates, arms].
        level: The base's mean level, in the axis' unit.
    """

    unit: str
    level: float
    gain: Floats
    resampled: Floats
    left_out: tuple[str, ...]


def frontier(base: Candidate, arms: Sequence[Candidate]) -> Frontier:
    """Place the base and its arms on the plane of learning and forgetting.

    Arms without scores on all of the base's tasks on the two axes are named as incomplete and not placed.

    Raises:
        EvidenceError: The base has no scores on a domain suite or on a general suite.
    """
    axes = {role: _axis_tasks(base, role) for role in ("domain", "general")}
    needed = {(scores.suite, scores.task) for _, tasks, _ in axes.values() for scores in tasks}
    complete = [arm for arm in arms if needed <= {(scores.suite, scores.task) for scores in arm.scores}]
    placed = [base, *complete]
    rng = np.random.default_rng(SEED)
    domain, general = (_axis(axes[role], placed, rng) for role in ("domain", "general"))
    # Rounded, so that two arms with the same counts tie whatever order their items were added up in.
    points = np.stack([domain.gain, general.gain], axis=-1).round(12)
    on_frontier = non_dominated(points)
    often = non_dominated(np.stack([domain.resampled, general.resampled], axis=-1).round(12)).mean(axis=0)
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    learning, forgetting = (np.quantile(a, ends, axis=0) for a in (domain.resampled, 0.0 - general.resampled))
    # The corner: nothing learned, everything forgotten. For metrics without a floor, the base's level lost once over.
    reference = (0.0, -abs(general.level))
    return Frontier(
        base=base.label,
        points=tuple(
            Point(
                arm=arm.label,
                digest=arm.checkpoint.digest,
                method=arm.checkpoint.method,
                step=arm.checkpoint.step,
                trajectory=arm.checkpoint.trajectory,
                learning=float(domain.gain[i]),
                learning_low=float(learning[0, i]),
                learning_high=float(learning[1, i]),
                forgetting=0.0 - float(general.gain[i]),
                forgetting_low=float(forgetting[0, i]),
                forgetting_high=float(forgetting[1, i]),
                on_frontier=bool(on_frontier[i]),
                p_on_frontier=float(often[i]),
                cost=arm.checkpoint.cost,
            )
            for i, arm in enumerate(placed)
        ),
        learning_unit=domain.unit,
        forgetting_unit=general.unit,
        hypervolume=hypervolume(points, reference),
        reference=(reference[0], 0.0 - reference[1]),
        left_out=domain.left_out + general.left_out,
        incomplete=tuple(arm.label for arm in arms if arm not in complete),
    )


def _axis_tasks(base: Candidate, role: Role) -> tuple[str, list[TaskScores], tuple[str, ...]]:
    """Return an axis' unit, the base's tasks in it, and the names of the role's tasks in other units."""
    tasks = [scores for scores in base.scores if scores.role == role and scores.aggregation in SMOOTH]
    if not tasks:
        raise EvidenceError(f"{base.label} has no scores on any {role} suite; submit it with one (see `suites list`)")
    units = Counter(unit_of(scores) for scores in tasks)
    unit = max(units, key=lambda name: (units[name], name == "score"))
    chosen = [scores for scores in tasks if unit_of(scores) == unit]
    return unit, chosen, tuple(f"{s.suite}/{s.task}" for s in tasks if s not in chosen)


def _axis(
    axis: tuple[str, list[TaskScores], tuple[str, ...]], arms: Sequence[Candidate], rng: np.random.Generator
) -> _Axis:
    unit, tasks, left_out = axis
    tables: list[Mapping[tuple[str, str], TaskScores]] = [{(s.suite, s.task): s for s in arm.scores} for arm in arms]
    gain = np.zeros(len(arms))
    resampled = np.zeros((REPLICATES, len(arms)))
    level = 0.0
    for share, task in zip(task_shares([(t.suite, t.weight) for t in tasks]), tasks, strict=True):
        sign = share if task.higher_is_better else -share
        found = [_aligned(task, table[task.suite, task.task], arm) for table, arm in zip(tables, arms, strict=True)]
        estimates = [estimate(values, task.weights, task.aggregation) for values in found]
        level += share * estimates[0].value
        differences = np.stack([e.influence - estimates[0].influence for e in estimates])
        task_gain = np.array([e.value - estimates[0].value for e in estimates])
        gain += sign * task_gain
        resampled += sign * (task_gain + resampled_means(differences, REPLICATES, rng))
    return _Axis(unit, level, gain, resampled, left_out)


def _aligned(base: TaskScores, scores: TaskScores, arm: Candidate) -> Floats:
    if not np.array_equal(base.samples, scores.samples):
        raise EvidenceError(f"{arm.label}: its samples of {base.suite}/{base.task} are not the base's; submit it again")
    return scores.values
