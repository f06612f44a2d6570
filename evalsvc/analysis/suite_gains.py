"""Gains of arms over their base on each suite, with bootstrap resamples: the input of a frontier.

Pure: no I/O, no database. Positive is better, whatever the metric. Items (or clusters, if declared) are resampled, the
same ones for all arms, which keeps the pairing between arms. Every task has its own draws, independent of other tasks,
so that any selection of suites can be combined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalsvc.analysis.compare import compute_task_shares, find_unit
from evalsvc.errors import EvidenceError
from evalsvc.records.arms import Checkpoint
from evalsvc.records.direction import orient
from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Floats, Role
from evalsvc.stats.bootstrap import resampled_means
from evalsvc.stats.estimates import SMOOTH, estimate
from evalsvc.stats.pareto import Bools

REPLICATES = 2000
SEED = 1234


@dataclass(frozen=True, slots=True)
class Candidate:
    """An arm with its scores."""

    label: str
    checkpoint: Checkpoint
    scores: Sequence[TaskScores]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SuiteGain:
    """Gains of arms over their base on a suite's tasks of one unit: the weighted mean over the tasks.

    Attributes:
        tasks: Names as SUITE/TASK.
        level: The base's level.
        has: [arms], whether an arm has scores on all of these tasks; gains of other arms are nan.
        gain: [arms].
        resampled: [replicates, arms].
    """

    suite: str
    role: Role
    unit: str
    tasks: tuple[str, ...]
    level: float
    has: Bools
    gain: Floats
    resampled: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Gains:
    """A base and its arms, base first, with their gains on every suite."""

    arms: tuple[Candidate, ...]
    suites: tuple[SuiteGain, ...]


def measure_gains(base: Candidate, arms: Sequence[Candidate]) -> Gains:
    """Compute the gains of arms on the domain and general suites that their base has scores on.

    Raises:
        EvidenceError: An arm's samples differ from the base's.
    """
    everyone = (base, *arms)
    groups: dict[tuple[str, Role, str], list[TaskScores]] = {}
    for scores in base.scores:
        if scores.role in {"domain", "general"} and scores.aggregation in SMOOTH:
            groups.setdefault((scores.suite, scores.role, find_unit(scores)), []).append(scores)
    tables = [{(s.suite, s.task): s for s in arm.scores} for arm in everyone]
    return Gains(everyone, tuple(_suite_gain(*group, tasks, everyone, tables) for group, tasks in groups.items()))


def _suite_gain(
    suite: str,
    role: Role,
    unit: str,
    tasks: Sequence[TaskScores],
    arms: Sequence[Candidate],
    tables: Sequence[Mapping[tuple[str, str], TaskScores]],
) -> SuiteGain:
    has = np.array([all((suite, task.task) in table for task in tasks) for table in tables])
    complete = [i for i, has_all in enumerate(has) if has_all]
    gain, resampled, level = np.zeros(len(complete)), np.zeros((REPLICATES, len(complete))), 0.0
    for share, task in zip(compute_task_shares([(suite, task.weight) for task in tasks]), tasks, strict=True):
        sign = orient(share, task.higher_is_better)
        values_of_arms = [_check_aligned(task, tables[i][suite, task.task], arms[i]) for i in complete]
        estimates = [estimate(values, task.weights, task.aggregation) for values in values_of_arms]
        level += share * estimates[0].value
        gain += sign * np.array([e.value - estimates[0].value for e in estimates])
        differences = np.stack([e.influence - estimates[0].influence for e in estimates])
        rng = np.random.default_rng([SEED, *f"{suite}/{task.task}".encode()])
        resampled += resampled_means(_by_cluster(sign * differences, task), REPLICATES, rng)
    resampled += gain
    if not has.all():
        gain, resampled = (_fill_missing(values, has) for values in (gain, resampled))
    return SuiteGain(
        suite=suite,
        role=role,
        unit=unit,
        tasks=tuple(f"{suite}/{task.task}" for task in tasks),
        level=level,
        has=has,
        gain=gain,
        resampled=resampled,
    )


def _fill_missing(values: Floats, has: Bools) -> Floats:
    """Return values [..., arms with scores] as [..., arms], with nan for the other arms."""
    filled = np.full((*values.shape[:-1], len(has)), np.nan)
    filled[..., has] = values
    return filled


def _check_aligned(base: TaskScores, scores: TaskScores, arm: Candidate) -> Floats:
    if not base.is_aligned(scores):
        raise EvidenceError(
            f"{arm.label}: its samples of {base.suite}/{base.task} differ from the base's; submit it again"
        )
    return scores.values


def _by_cluster(influence: Floats, task: TaskScores) -> Floats:
    """Return influence values [arms, n] summed by cluster, as [arms, G] with the same mean; items if unclustered."""
    if task.clusters is None:
        return influence
    _, member = np.unique(task.clusters, return_inverse=True)
    groups = int(member.max()) + 1
    sums = np.stack([np.bincount(member, weights=row, minlength=groups) for row in influence])
    return np.asarray(sums * groups / influence.shape[1])
