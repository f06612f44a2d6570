"""Gains of arms over their base on each suite, with bootstrap resamples: the input of a frontier.

Pure: no I/O, no database. Positive is better, whatever the metric. Units (documents, or clusters of them) are
resampled, the same ones for all arms, which keeps the pairing between arms, and for all tasks that share units; other
tasks have draws of their own, so that any selection of suites can be combined. Arms without items, of which only levels
are published, have resamples from normal distributions, if both levels have a standard error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evalsvc.analysis.compare import bound_totals, compute_task_shares, find_unit, pair_values
from evalsvc.analysis.levels import Levels, compare_levels, find_level_unit
from evalsvc.analysis.units import group_units, list_items
from evalsvc.records.arms import Checkpoint
from evalsvc.records.direction import orient
from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Floats, Ints, Role
from evalsvc.stats.bootstrap import resampled_means
from evalsvc.stats.estimates import SMOOTH, estimate
from evalsvc.stats.pareto import Bools, Indices
from evalsvc.store.scores import StoredResult

REPLICATES = 2000
SEED = 1234
_ROLES = ("domain", "general")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An arm with its scores, and the levels of its tasks."""

    label: str
    checkpoint: Checkpoint
    scores: Sequence[TaskScores]
    levels: Levels = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SuiteGain:
    """Gains of arms over their base on a suite's tasks of one unit: the weighted mean over the tasks.

    Attributes:
        tasks: Names as SUITE/TASK.
        level: The base's level.
        has: [arms], whether an arm has scores on all of these tasks; gains of other arms are nan.
        is_exact: [arms], whether an arm's gain is that of published levels without standard errors, so that nothing is
            known of its uncertainty and its resamples are all equal.
        gain: [arms].
        resampled: [replicates, arms].
    """

    suite: str
    role: Role
    unit: str
    tasks: tuple[str, ...]
    level: float
    has: Bools
    is_exact: Bools
    gain: Floats
    resampled: Floats


@dataclass(frozen=True, slots=True, eq=False)
class TaskUnits:
    """The unit of each of a task's items, among those of the tasks that share units with it.

    Attributes:
        first: The first of these tasks, as SUITE/TASK.
        count: Number of units of all of these tasks.
        units: int [n], from 0 to count - 1.
    """

    first: str
    count: int
    units: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Gains:
    """A base and its arms, base first, with their gains on every suite.

    Attributes:
        units: The base's tasks with items that share units, by SUITE/TASK.
        left_out: Tasks of these suites, as SUITE/TASK, whose metric has no mean over items.
    """

    arms: tuple[Candidate, ...]
    suites: tuple[SuiteGain, ...]
    units: Mapping[str, TaskUnits]
    left_out: tuple[str, ...] = ()


Task = TaskScores | StoredResult
"""A task of the base: with items, or only its level."""


def measure_gains(base: Candidate, arms: Sequence[Candidate]) -> Gains:
    """Compute the gains of arms on the domain and general suites that their base has scores on."""
    everyone = (base, *arms)
    groups: dict[tuple[str, Role, str], list[Task]] = {}
    tables = [{(s.suite, s.task): s for s in arm.scores} for arm in everyone]
    left_out = []
    for scores in base.scores:
        if scores.role in _ROLES and scores.aggregation in SMOOTH:
            name = scores.suite, scores.task
            unit = find_unit(scores, *(table[name] for table in tables[1:] if name in table))
            groups.setdefault((scores.suite, scores.role, unit), []).append(scores)
        elif scores.role in _ROLES:
            left_out.append(f"{scores.suite}/{scores.task}")
    with_items = {(scores.suite, scores.task) for scores in base.scores}
    for key, level in base.levels.items():
        if level.primary and level.role in _ROLES and (level.suite, level.task) not in with_items:
            levels = [arm.levels[key] for arm in everyone if key in arm.levels]
            groups.setdefault((level.suite, level.role, find_level_unit(levels)), []).append(level)
    units = _share_units([task for tasks in groups.values() for task in tasks if isinstance(task, TaskScores)])
    gains = (_suite_gain(*group, tasks, everyone, tables, units) for group, tasks in groups.items())
    return Gains(everyone, tuple(gains), units, tuple(left_out))


def _share_units(tasks: Sequence[TaskScores]) -> dict[str, TaskUnits]:
    names = [f"{task.suite}/{task.task}" for task in tasks]
    return {
        names[i]: TaskUnits(names[group.tasks[0]], group.count, units)
        for group in group_units(tuple(list_items(task) for task in tasks))
        for i, units in zip(group.tasks, group.units, strict=True)
    }


def bound_mean_gains(gains: Gains, suites: Sequence[SuiteGain], arms: Indices, z: float) -> Floats:
    """Return the bounds [2, arms] of the arms' mean gains over suites at a normal quantile; 0 for the base itself.

    They are those of a comparison's total and of a gate's rule on the same tasks.
    """
    names = [name for suite in suites for name in suite.tasks]
    base = {f"{task.suite}/{task.task}": task for task in gains.arms[0].scores}
    tables = [{f"{task.suite}/{task.task}": task for task in gains.arms[i].scores} for i in arms]
    weights = [base[name].weight if name in base else 1.0 for name in names]
    shares = compute_task_shares(list(zip((name.split("/")[0] for name in names), weights, strict=True)))
    levels = {f"{suite}/{task}": key for key in gains.arms[0].levels for suite, task in [key[:2]]}
    compared = [
        [
            pair_values(base[name], table[name])
            if name in base and name in table
            else compare_levels(gains.arms[0].levels[levels[name]], gains.arms[arm].levels[levels[name]])
            for name in names
        ]
        for arm, table in zip(arms, tables, strict=True)
        if arm
    ]
    totals = iter(bound_totals(compared, shares, z))
    ends = [((next(totals) or (np.nan, np.nan))[:2] if arm else (0.0, 0.0)) for arm in arms]
    return np.array(ends).T


def _suite_gain(
    suite: str,
    role: Role,
    unit: str,
    tasks: Sequence[Task],
    arms: Sequence[Candidate],
    tables: Sequence[Mapping[tuple[str, str], TaskScores]],
    units: Mapping[str, TaskUnits],
) -> SuiteGain:
    counterparts_of = [[_find_counterpart(task, *arm) for arm in zip(arms, tables, strict=True)] for task in tasks]
    has = np.array([None not in of_arm for of_arm in zip(*counterparts_of, strict=True)])
    complete = np.flatnonzero(has)
    gain, resampled, level = np.zeros(len(complete)), np.zeros((REPLICATES, len(complete))), 0.0
    is_exact = np.zeros(len(complete), dtype=bool)
    weights = [task.weight if isinstance(task, TaskScores) else 1.0 for task in tasks]
    shares = compute_task_shares([(suite, weight) for weight in weights])
    for share, task, of_task in zip(shares, tasks, counterparts_of, strict=True):
        complete_arms = [arm for arm, has_all in zip(of_task, has, strict=True) if has_all and arm is not None]
        task_gain = _measure_task(task, complete_arms, arms[0].levels, units.get(f"{suite}/{task.task}"))
        sign = orient(share, task.higher_is_better)
        level += share * task_gain.level
        gain += sign * task_gain.gain
        resampled += sign * task_gain.deviations
        is_exact |= task_gain.is_exact
    resampled += gain
    if not has.all():
        gain, resampled = (_fill_missing(values, has) for values in (gain, resampled))
        is_exact = np.isin(np.arange(len(has)), complete[is_exact])
    return SuiteGain(
        suite=suite,
        role=role,
        unit=unit,
        tasks=tuple(f"{suite}/{task.task}" for task in tasks),
        level=level,
        has=has,
        is_exact=is_exact,
        gain=gain,
        resampled=resampled,
    )


def _find_counterpart(task: Task, arm: Candidate, table: Mapping[tuple[str, str], TaskScores]) -> Task | None:
    """Return an arm's scores on the same items of a task; its level, if it has no items, or the base none."""
    scores = table.get((task.suite, task.task))
    if isinstance(task, TaskScores) and scores is not None:
        is_same = (scores.metric, scores.filter) == (task.metric, task.filter) and task.is_aligned(scores)
        return scores if is_same else None
    return arm.levels.get((task.suite, task.task, task.metric, task.filter))


@dataclass(frozen=True, slots=True, eq=False)
class _TaskGain:
    """Gains of arms on one task, in its unit, and the deviations of the resamples from them [replicates, arms]."""

    level: float
    gain: Floats
    deviations: Floats
    is_exact: Bools


def _measure_task(task: Task, arms: Sequence[Task], base_levels: Levels, of_task: TaskUnits | None) -> _TaskGain:
    """Measure the gains of arms, the base first, of which some may have only levels."""
    with_items = [i for i, arm in enumerate(arms) if isinstance(arm, TaskScores)]
    level_only = [i for i, arm in enumerate(arms) if isinstance(arm, StoredResult)]
    gain, deviations = np.zeros(len(arms)), np.zeros((REPLICATES, len(arms)))
    is_exact = np.zeros(len(arms), dtype=bool)
    seed = [SEED, *f"{task.suite}/{task.task}".encode()]
    level = 0.0
    if isinstance(task, TaskScores):
        columns = [arm.values for arm in arms if isinstance(arm, TaskScores)]
        estimates = [estimate(values, task.weights, task.aggregation) for values in columns]
        level = estimates[0].value
        gain[with_items] = [e.value - level for e in estimates]
        differences = np.stack([e.influence - estimates[0].influence for e in estimates])
        assert of_task is not None
        # The same draws for all tasks that share units.
        rng = np.random.default_rng([SEED, *of_task.first.encode()])
        deviations[:, with_items] = resampled_means(_sum_units(differences, of_task), REPLICATES, rng)
    if level_only:
        of_base = (
            task if isinstance(task, StoredResult) else base_levels[task.suite, task.task, task.metric, task.filter]
        )
        level = of_base.value
        results = [arm for arm in arms if isinstance(arm, StoredResult)]
        gain[level_only] = [result.value - level for result in results]
        errors = [result.stderr if of_base.stderr is not None else None for result in results]
        is_exact[level_only] = [error is None for error in errors]
        rng = np.random.default_rng([*seed, 1])
        # The base's error is the same for all arms, and its gain over itself is 0 for certain.
        common = rng.standard_normal((REPLICATES, 1)) * (of_base.stderr or 0.0)
        own = rng.standard_normal((REPLICATES, len(results))) * np.array([error or 0.0 for error in errors])
        deviations[:, level_only] = (own - common) * ~is_exact[level_only]
        if isinstance(task, StoredResult):
            deviations[:, 0], is_exact[0] = 0.0, False
    return _TaskGain(level, gain, deviations, is_exact)


def _fill_missing(values: Floats, has: Bools) -> Floats:
    """Return values [..., arms with scores] as [..., arms], with nan for the other arms."""
    filled = np.full((*values.shape[:-1], len(has)), np.nan)
    filled[..., has] = values
    return filled


def _sum_units(influence: Floats, task: TaskUnits) -> Floats:
    """Return influence values [arms, n] summed by unit, as [arms, units] with the same mean."""
    if len(task.units) == task.count and np.bincount(task.units).max() == 1:
        placed = np.empty_like(influence)
        placed[:, task.units] = influence
        return placed
    sums = np.stack([np.bincount(task.units, weights=row, minlength=task.count) for row in influence])
    return np.asarray(sums * task.count / influence.shape[1])
