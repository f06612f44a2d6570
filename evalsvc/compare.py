"""Paired scores in, Comparisons out. Pure: no I/O, no database.

Samples are paired by identity, never by row. What the difference of a metric is, and which interval it has:

* items that are 0 or 1: Tango's score interval of (gained - lost) / n;
* other means, and the perplexities: Student's t on the paired influence values (for a mean: the paired differences);
* metrics that only an aggregation of their own can compute (F1, BLEU, ...): a difference without an interval.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from evalsvc.errors import EvidenceError
from evalsvc.records import Comparison, Floats, RoleTotal, TaskScores
from evalsvc.stats.estimates import SMOOTH, estimate, standard_error
from evalsvc.stats.paired import t_interval, tango_interval, transitions

UNIT_INTERVAL = "score"
"""Unit of metrics whose values lie in [0, 1], which may be averaged with each other."""


def compare(base: Sequence[TaskScores], adapted: Sequence[TaskScores]) -> list[Comparison]:
    """Compare an adapted arm with its base on every task that the base has.

    Raises:
        EvidenceError: A task is missing from the adapted arm, or has no sample in common with the base.
    """
    theirs = {(scores.suite, scores.task): scores for scores in adapted}
    missing = [f"{scores.suite}/{scores.task}" for scores in base if (scores.suite, scores.task) not in theirs]
    if missing:
        raise EvidenceError(f"{len(missing)} tasks have no scores to compare ({', '.join(missing[:3])}); submit again")
    return [compare_task(scores, theirs[scores.suite, scores.task]) for scores in base]


def compare_task(base: TaskScores, adapted: TaskScores) -> Comparison:
    """Compare two arms on one task.

    Raises:
        EvidenceError: They have no sample in common.
    """
    common, ours, theirs = np.intersect1d(base.samples, adapted.samples, assume_unique=True, return_indices=True)
    if not len(common):
        raise EvidenceError(f"{base.suite}/{base.task}: the two arms have no sample in common; their prompts differ")
    b, a = base.values[ours], adapted.values[theirs]
    weights = None if base.weights is None else base.weights[ours]
    lost = gained = None
    low = high = stderr = None
    test = "none"
    if base.aggregation in SMOOTH:
        of_base = estimate(b, weights, base.aggregation)
        of_adapted = estimate(a, weights, base.aggregation)
        level, other = of_base.value, of_adapted.value
        stderr = standard_error(of_adapted.influence - of_base.influence)
        if base.aggregation == "mean" and is_binary(b) and is_binary(a):
            lost, gained, _ = transitions(b, a)
            low, high = tango_interval(lost, gained, len(common))
            test = "Tango score"
        elif len(common) > 1:
            low, high = t_interval(other - level, stderr, len(common) - 1)
            test = "paired t"
    else:
        level, other = float(np.mean(b)), float(np.mean(a))
    return Comparison(
        suite=base.suite,
        role=base.role,
        task=base.task,
        metric=base.metric,
        filter=base.filter,
        n=len(common),
        base=level,
        adapted=other,
        difference=other - level,
        low=low,
        high=high,
        lost=lost,
        gained=gained,
        test=test,
        unit=unit_of(base),
        higher_is_better=base.higher_is_better,
        weight=base.weight,
        stderr=stderr if stderr is not None and math.isfinite(stderr) else None,
        coverage=len(common) / len(base.samples),
    )


def is_binary(values: Floats) -> bool:
    """Whether all values are 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def unit_of(scores: TaskScores) -> str:
    """Return the unit in which a task's difference may be averaged with other tasks'."""
    bounded = scores.aggregation == "mean" and bool(((scores.values >= 0) & (scores.values <= 1)).all())
    return UNIT_INTERVAL if bounded else scores.metric


def totals(comparisons: Iterable[Comparison]) -> list[RoleTotal]:
    """Return the mean difference of every role and unit, better counted positive, with its worst task.

    The mean is unweighted over suites; within a suite tasks count by their weight. Tasks without a standard error leave
    the total without an interval.
    """
    groups: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        groups[comparison.role, comparison.unit].append(comparison)
    return [_total(group) for group in groups.values()]


def _total(group: list[Comparison]) -> RoleTotal:
    shares = task_shares([(c.suite, c.weight) for c in group])
    difference = float(sum(share * c.gain for share, c in zip(shares, group, strict=True)))
    errors = [c.stderr for c in group]
    low = high = None
    if all(error is not None for error in errors):
        spread = math.sqrt(sum((share * (error or 0.0)) ** 2 for share, error in zip(shares, errors, strict=True)))
        low, high = t_interval(difference, spread, math.inf)
        if group[0].unit == UNIT_INTERVAL:  # the normal approximation knows nothing of the ends of the scale
            low, high = max(-1.0, low), min(1.0, high)
    worst = min(group, key=lambda c: c.gain)
    return RoleTotal(
        role=group[0].role,
        unit=group[0].unit,
        suites=len({c.suite for c in group}),
        tasks=len(group),
        difference=difference,
        low=low,
        high=high,
        worst_task=worst.task,
        worst_difference=worst.gain,
    )


def task_shares(tasks: Sequence[tuple[str, float]]) -> list[float]:
    """Return each task's share in the mean over suites, given (suite, weight); shares add up to 1."""
    total: dict[str, float] = defaultdict(float)
    for suite, weight in tasks:
        total[suite] += weight
    return [weight / total[suite] / len(total) for suite, weight in tasks]
