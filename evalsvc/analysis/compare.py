"""Compares the paired scores of two arms. Pure: no I/O, no database.

Samples are paired by identity, never by row. The interval depends on the metric:

* items that are 0 or 1: Tango's score interval of (gained - lost) / n, with McNemar's exact test;
* other means, and perplexities: Student's t on the paired influence values (for a mean: the paired differences);
* clustered samples, for any metric: Student's t with a cluster-robust standard error, G - 1 degrees of freedom;
* metrics with an aggregation of their own (F1, BLEU, a median): the difference of the aggregated levels, with an
  interval only if both have a standard error.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalsvc.errors import EvidenceError
from evalsvc.records.comparisons import Comparison, FullComparison, RoleTotal
from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Floats
from evalsvc.stats.calibration import calibration_drift
from evalsvc.stats.estimates import SMOOTH, clustered_error, estimate, standard_error
from evalsvc.stats.multiplicity import benjamini_hochberg, holm
from evalsvc.stats.paired import (
    LEVEL,
    Transitions,
    mcnemar,
    t_interval,
    t_test,
    tango_interval,
    transition_error,
    transitions,
)
from evalsvc.stats.transitions import above_floor, blind_spots, chance_bracket

UNIT_INTERVAL = "score"
"""Unit of metrics with values in [0, 1], which can be averaged with each other."""

Places = NDArray[np.intp] | slice
"""Positions of samples among an arm's samples: indices, or a slice of all."""

ALPHA = 0.05
FEW_CLUSTERS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """Levels of both arms, with standard error, interval and p-value of the difference; see `Comparison`."""

    base: float
    adapted: float
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    test: str = "none"
    clusters: int | None = None


def compare_tasks(
    base: Sequence[TaskScores],
    adapted: Sequence[TaskScores],
    rerun: Sequence[TaskScores] = (),
    levels: Sequence[Comparison] = (),
) -> list[FullComparison]:
    """Compare an adapted arm with its base on every task that both have.

    Args:
        rerun: The base's scores in a second run, for the A/A floor of lost and gained.
        levels: Comparisons without items: of tasks that one arm has no items of, and of tasks whose metric is one of
            all items together (F1, BLEU, a median), instead of the mean of their items.

    Raises:
        EvidenceError: Scores of a task cannot be paired.
    """
    adapted_tasks, rerun_tasks = ({(scores.suite, scores.task): scores for scores in arm} for arm in (adapted, rerun))
    without_items = {(level.suite, level.task): level for level in levels}
    comparisons, formats = [], []
    for scores in base:
        key = scores.suite, scores.task
        if (counterpart := adapted_tasks.get(key)) is not None:
            comparison = compare_task(scores, counterpart, rerun_tasks.get(key))
            comparisons.append(_take_level(comparison, without_items.pop(key, None)))
            formats.append((scores.suite, scores.format_of or scores.task))
    comparisons += [FullComparison.of(level) for level in without_items.values()]
    formats += list(without_items)
    return _mark_format_loss(_adjust_p_values(comparisons), formats)


def _take_level(comparison: FullComparison, level: Comparison | None) -> FullComparison:
    """Return a comparison of items with the levels, and their interval, of the metric as it is aggregated."""
    if level is None:
        return comparison
    names = ("base", "adapted", "difference", "stderr", "low", "high", "p_value", "test", "unit")
    return replace(comparison, **{name: getattr(level, name) for name in names})


def compare_task(base: TaskScores, adapted: TaskScores, rerun: TaskScores | None = None) -> FullComparison:
    """Compare two arms on one task, with all further figures.

    Raises:
        EvidenceError: They have no sample in common, or were scored by different metrics.
    """
    comparison = compare_values(base, adapted)
    in_base, in_adapted = _find_common(base, adapted)
    full = _compare_answers(FullComparison.of(comparison), base, adapted, in_base, in_adapted)
    return full if full.lost is None else _describe_transitions(full, base, adapted, rerun, in_base, in_adapted)


def compare_values(base: TaskScores, adapted: TaskScores) -> Comparison:
    """Compare two arms on one task: the difference, lost and gained, which is all that gate rules use.

    Raises:
        EvidenceError: They have no sample in common, or were scored by different metrics.
    """
    where = f"{base.suite}/{base.task}"
    if (base.metric, base.filter) != (adapted.metric, adapted.filter):
        raise EvidenceError(
            f"{where}: scored by {base.metric} ({base.filter}) and {adapted.metric} ({adapted.filter}); "
            "submit both with the same suite, or import both again (--metric names the metric)"
        )
    in_base, in_adapted = _find_common(base, adapted)
    b, a = base.values[in_base], adapted.values[in_adapted]
    if not len(b):
        raise EvidenceError(
            f"{where}: the two arms have no sample in common, because their prompts differ; submit both again"
        )
    binary = base.aggregation == "mean" and is_binary(b) and is_binary(a)
    counts = transitions(b, a) if binary else None
    difference = _compute_difference(base, b, a, in_base, counts)
    return Comparison(
        suite=base.suite,
        role=base.role,
        task=base.task,
        metric=base.metric,
        filter=base.filter,
        n=len(b),
        difference=difference.adapted - difference.base,
        unit=find_unit(base),
        higher_is_better=base.higher_is_better,
        weight=base.weight,
        coverage=len(b) / len(base.samples),
        lost=None if counts is None else counts.lost,
        gained=None if counts is None else counts.gained,
        base=difference.base,
        adapted=difference.adapted,
        stderr=difference.stderr,
        low=difference.low,
        high=difference.high,
        p_value=difference.p_value,
        test=difference.test,
        clusters=difference.clusters,
    )


def compute_coverage(base: TaskScores, adapted: TaskScores) -> float:
    """Return the share of the base's samples that both arms have."""
    return len(base.samples[_find_common(base, adapted)[0]]) / max(len(base.samples), 1)


def _find_common(base: TaskScores, adapted: TaskScores) -> tuple[Places, Places]:
    """Return the positions of the common samples in each arm."""
    if base.is_aligned(adapted):
        return slice(None), slice(None)
    _, in_base, in_adapted = np.intersect1d(base.samples, adapted.samples, assume_unique=True, return_indices=True)
    return in_base, in_adapted


def _compute_difference(
    scores: TaskScores, base: Floats, adapted: Floats, in_base: Places, counts: Transitions | None
) -> _Difference:
    """Return the difference of two arms' values on the same samples.

    Args:
        in_base: Positions of these samples among the base's.
        counts: Transitions, if the values are binary.
    """
    if scores.aggregation not in SMOOTH:
        return _Difference(base=float(np.mean(base)), adapted=float(np.mean(adapted)))
    if counts is not None and scores.clusters is None:
        stderr = transition_error(*counts)
        error = stderr if math.isfinite(stderr) else None
        low, high = tango_interval(*counts)
        p_value = mcnemar(counts.lost, counts.gained).exact
        return _Difference(
            base=float(base.mean()),
            adapted=float(adapted.mean()),
            stderr=error,
            low=low,
            high=high,
            p_value=p_value,
            test="Tango score",
        )
    weights = None if scores.weights is None else scores.weights[in_base]
    levels = [estimate(values, weights, scores.aggregation) for values in (base, adapted)]
    gap, influence = levels[1].value - levels[0].value, levels[1].influence - levels[0].influence
    if scores.clusters is not None:
        stderr, groups = clustered_error(influence, scores.clusters[in_base])
        test, df = "cluster-robust t", groups - 1
    else:
        stderr, groups, test, df = standard_error(influence), None, "paired t", len(base) - 1
    if not math.isfinite(stderr):
        return _Difference(base=levels[0].value, adapted=levels[1].value, clusters=groups)
    low, high = t_interval(gap, stderr, df)
    return _Difference(
        base=levels[0].value,
        adapted=levels[1].value,
        stderr=stderr,
        low=low,
        high=high,
        p_value=t_test(gap, stderr, df),
        test=test,
        clusters=groups,
    )


def _compare_answers(
    comparison: FullComparison, base: TaskScores, adapted: TaskScores, in_base: Places, in_adapted: Places
) -> FullComparison:
    """Add the agreement of both arms and the number of unparsed answers, if known.

    Two answers that are both right are the same answer, however they are written.
    """
    if base.answers is None or adapted.answers is None:
        return comparison
    same = base.answers[in_base] == adapted.answers[in_adapted]
    if comparison.lost is not None:
        same |= (base.values[in_base] == 1) & (adapted.values[in_adapted] == 1)
    return replace(
        comparison,
        agreement=float(same.mean()),
        invalid_base=None if base.invalid is None else int(base.invalid[in_base].sum()),
        invalid_adapted=None if adapted.invalid is None else int(adapted.invalid[in_adapted].sum()),
    )


def _describe_transitions(
    comparison: FullComparison,
    base: TaskScores,
    adapted: TaskScores,
    rerun: TaskScores | None,
    in_base: Places,
    in_adapted: Places,
) -> FullComparison:
    """Add the figures of binary items: chance adjustment, A/A floor, calibration, blind spots."""
    lost, gained, n = comparison.lost, comparison.gained, comparison.n
    assert lost is not None
    assert gained is not None
    b, a = base.values[in_base], adapted.values[in_adapted]
    right = int(b.sum())
    choices = 1 / base.chance if base.chance and base.chance < 1 else None
    floor = calibration = None
    if rerun is not None and np.isin(base.samples[in_base], rerun.samples).all():
        floor = above_floor(b, rerun.values[np.searchsorted(rerun.samples, base.samples[in_base])], a)
    if base.confidence is not None and adapted.confidence is not None:
        calibration = calibration_drift((base.confidence[in_base], b), (adapted.confidence[in_adapted], a))
    spots = blind_spots(right, n, base.chance)
    if comparison.clusters is not None and comparison.clusters < FEW_CLUSTERS:
        spots = (*spots, f"only {comparison.clusters} clusters")
    return replace(
        comparison,
        chance=None if choices is None else chance_bracket(lost, gained, right, n, choices),
        floor=floor,
        calibration=calibration,
        blind_spots=spots,
    )


def _adjust_p_values(comparisons: list[FullComparison]) -> list[FullComparison]:
    """Adjust the p-values for the number of tasks, and set which tasks moved."""
    tested = [(i, c.p_value) for i, c in enumerate(comparisons) if c.p_value is not None]
    p = [p_value for _, p_value in tested]
    for (i, _), p_holm, q_value in zip(tested, holm(p), benjamini_hochberg(p), strict=True):
        moved: Literal["worse", "better"] | None = None
        if p_holm <= ALPHA:
            moved = "better" if comparisons[i].gain > 0 else "worse"
        comparisons[i] = replace(comparisons[i], p_holm=float(p_holm), q_value=float(q_value), moved=moved)
    return comparisons


def _mark_format_loss(comparisons: list[FullComparison], formats: Sequence[tuple[str, str]]) -> list[FullComparison]:
    """Label losses on items with several prompt formats by whether all formats have the loss.

    A significant loss in one format is a format loss, not a loss of knowledge, if another format has an interval that
    contains 0 and lies above that of the first.
    """
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, name in enumerate(formats):
        families[name].append(i)
    for members in families.values():
        ends = {i: comparisons[i].gain_interval for i in members}
        known = {i: (low, high) for i, (low, high) in ends.items() if low is not None and high is not None}
        if len(members) < 2 or len(known) < len(members):
            continue
        for i in (i for i in members if known[i][1] < 0):
            kept = [
                comparisons[j].task for j in members if known[j][0] <= 0 <= known[j][1] and known[j][0] > known[i][1]
            ]
            if kept:
                label = f"format loss: no loss in {', '.join(kept)}"
            elif all(end[1] < 0 for end in known.values()):
                label = "lost in every format"
            else:
                label = "undecided: no other format has a significantly smaller loss"
            comparisons[i] = replace(comparisons[i], format_loss=label)
    return comparisons


def is_binary(values: Floats) -> bool:
    """Whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())


def find_unit(scores: TaskScores) -> str:
    """Return the unit in which a task's difference can be averaged with that of other tasks."""
    return UNIT_INTERVAL if scores.aggregation == "mean" and scores.is_bounded else scores.metric


def compute_totals(comparisons: Iterable[Comparison], level: float = LEVEL) -> list[RoleTotal]:
    """Return the mean difference of every role and unit (positive is better), with its worst task.

    The mean is unweighted over suites; within a suite tasks have their weights. A total has no interval if one of its
    tasks has no standard error.
    """
    groups: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        groups[comparison.role, comparison.unit].append(comparison)
    return [_compute_total(group, level) for group in groups.values()]


def _compute_total(group: list[Comparison], level: float) -> RoleTotal:
    shares = compute_task_shares([(c.suite, c.weight) for c in group])
    difference = float(sum(share * c.gain for share, c in zip(shares, group, strict=True)))
    errors = [c.stderr for c in group]
    low = high = spread = None
    if all(error is not None for error in errors):
        spread = math.sqrt(sum((share * (error or 0.0)) ** 2 for share, error in zip(shares, errors, strict=True)))
        low, high = t_interval(difference, spread, math.inf, level)
        if group[0].unit == UNIT_INTERVAL:  # the normal approximation can exceed the scale
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
        stderr=spread,
    )


def compute_task_shares(tasks: Sequence[tuple[str, float]]) -> list[float]:
    """Return each task's share in the mean over suites, given (suite, weight); shares sum to 1."""
    total: dict[str, float] = defaultdict(float)
    for suite, weight in tasks:
        total[suite] += weight
    return [weight / total[suite] / len(total) for suite, weight in tasks]
