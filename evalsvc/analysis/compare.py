"""Compares the paired scores of two arms. Pure: no I/O, no database.

Samples are paired by identity, never by row. Intervals are those of `stats.margins`, on the units of `units`:

* documents with one item that is 0 or 1: Tango's score interval of (gained - lost) / n, with McNemar's exact test;
* other scores in [0, 1], and documents or clusters of several items: its form for any score (`stats.unit_means`);
* bits per byte and perplexities: Student's t on the influence values, summed by unit;
* metrics with an aggregation of their own (F1, BLEU, a median): the difference of the aggregated levels, with the
  interval of a paired bootstrap, if both arms have the same resamples; see `levels`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalsvc.analysis.units import list_items, measure_differences
from evalsvc.errors import EvidenceError
from evalsvc.records.comparisons import Comparison, FullComparison, ItemGains, RoleTotal
from evalsvc.records.direction import orient
from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Floats, Ints
from evalsvc.stats.calibration import calibration_drift
from evalsvc.stats.estimates import SMOOTH, estimate
from evalsvc.stats.margins import bound_sum, bounds, combine_bounds, is_testable, margin_test, z_of
from evalsvc.stats.multiplicity import benjamini_hochberg, holm
from evalsvc.stats.paired import LEVEL, mcnemar, t_test, transitions
from evalsvc.stats.transitions import above_floor, blind_spots, chance_bracket

UNIT_INTERVAL = "score"
"""Unit of metrics with values in [0, 1], which can be averaged with each other."""

Places = NDArray[np.intp] | slice
"""Positions of samples among an arm's samples: indices, or a slice of all."""

ALPHA = 0.05
Z = z_of((1 - LEVEL) / 2)
"""Normal quantile of the intervals' ends, which are the one-sided 5 % bounds of the gate."""
FEW_CLUSTERS = 30


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
    levels = ("base", "adapted", "difference")
    interval = ("stderr", "low", "high", "p_value", "test", "units", "clusters", "items", "resampled")
    return replace(comparison, **{name: getattr(level, name) for name in (*levels, *interval)})


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
    """Compare two arms on one task: the difference with its interval, lost and gained, which is all that rules use.

    Raises:
        EvidenceError: They have no sample in common, or were scored by different metrics.
    """
    comparison = pair_values(base, adapted)
    return comparison if comparison.items is None else _add_interval(comparison)


def pair_values(base: TaskScores, adapted: TaskScores) -> Comparison:
    """Return the comparison of two arms on one task without its interval; raises as `compare_values`."""
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
    unit = find_unit(base, adapted)
    levels, items = _measure_items(base, b, a, in_base, is_bounded=unit == UNIT_INTERVAL)
    if unit != UNIT_INTERVAL and base.aggregation == "mean" and np.ptp(a - b) == 0:
        items = None  # without limits and without variance nothing is known of what was not seen
    return Comparison(
        suite=base.suite,
        role=base.role,
        task=base.task,
        metric=base.metric,
        filter=base.filter,
        n=len(b),
        difference=levels[1] - levels[0],
        unit=unit,
        higher_is_better=base.higher_is_better,
        weight=base.weight,
        coverage=len(b) / len(base.samples),
        lost=None if counts is None else counts.lost,
        gained=None if counts is None else counts.gained,
        base=levels[0],
        adapted=levels[1],
        stderr=None,
        low=None,
        high=None,
        test="none",
        items=items,
    )


def _measure_items(
    scores: TaskScores, base: Floats, adapted: Floats, in_base: Places, *, is_bounded: bool
) -> tuple[tuple[float, float], ItemGains | None]:
    """Return both arms' levels, and the gains of the items if the aggregation has any.

    Args:
        in_base: Positions of these samples among the base's.
    """
    if scores.aggregation not in SMOOTH:
        return (float(np.mean(base)), float(np.mean(adapted))), None
    weights = None if scores.weights is None else scores.weights[in_base]
    before, after = (estimate(values, weights, scores.aggregation) for values in (base, adapted))
    is_mean = scores.aggregation == "mean"
    differences = adapted - base if is_mean else after.value - before.value + (after.influence - before.influence)
    of_task = list_items(scores)
    items = ItemGains(
        gains=orient(differences, scores.higher_is_better),
        documents=_take(of_task.documents, in_base),
        clusters=None if of_task.clusters is None else _take(of_task.clusters, in_base),
        is_bounded=is_bounded,
    )
    return (before.value, after.value), items


def _take(numbers: Ints, places: Places) -> Ints:
    """Return the chosen numbers; the same array if all are, so that what is computed from it can be kept."""
    return numbers if isinstance(places, slice) else numbers[places]


def _add_interval(comparison: Comparison) -> Comparison:
    """Return a comparison of items with standard error, interval and p-value."""
    assert comparison.items is not None
    ((part,), _) = measure_differences([comparison], [1.0])
    has_clusters = comparison.items.clusters is not None
    comparison = replace(comparison, units=part.n, clusters=part.n if has_clusters else None)
    if not is_testable(part) or (part.units is None and part.df <= 0):
        return comparison
    low, high = bound_sum([part], [1.0], Z)
    if not comparison.higher_is_better:
        low, high = 0.0 - high, 0.0 - low
    if part.counts is not None:
        p_value, test = mcnemar(*part.counts).exact, "Tango score"
    elif part.units is not None:
        tested = margin_test([part], [1.0], 0.0, Z)
        p_value = min(1.0, 2 * min(tested.p_above, tested.p_below))
        test = "score over clusters" if has_clusters else "score over documents"
    else:
        p_value = t_test(part.difference, part.stderr, part.df)
        test = "cluster-robust t" if part.n < comparison.n else "paired t"
    stderr = part.stderr if math.isfinite(part.stderr) else None
    return replace(comparison, stderr=stderr, low=low, high=high, p_value=p_value, test=test)


def compute_coverage(base: TaskScores, adapted: TaskScores) -> float:
    """Return the share of the base's samples that both arms have."""
    return len(base.samples[_find_common(base, adapted)[0]]) / max(len(base.samples), 1)


def _find_common(base: TaskScores, adapted: TaskScores) -> tuple[Places, Places]:
    """Return the positions of the common samples in each arm."""
    if base.is_aligned(adapted):
        return slice(None), slice(None)
    _, in_base, in_adapted = np.intersect1d(base.samples, adapted.samples, assume_unique=True, return_indices=True)
    return in_base, in_adapted


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


def find_unit(*arms: TaskScores) -> str:
    """Return the unit in which a task's difference can be averaged with that of other tasks, given its arms' scores."""
    is_score = arms[0].aggregation == "mean" and all(scores.is_bounded for scores in arms)
    return UNIT_INTERVAL if is_score else name_scale(arms[0].metric)


def name_scale(metric: str) -> str:
    """Return the unit of a metric whose values are not in [0, 1], which is never that of those that are."""
    return f"raw {metric}" if metric == UNIT_INTERVAL else metric


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
    (ends,) = bound_totals([group], shares, z_of((1 - level) / 2))
    low, high, spread = (None, None, None) if ends is None else ends
    worst = min(group, key=lambda c: c.gain)
    return RoleTotal(
        role=group[0].role,
        unit=group[0].unit,
        suites=len({c.suite for c in group}),
        tasks=len(group),
        difference=difference,
        low=low,
        high=high,
        worst_suite=worst.suite,
        worst_task=worst.task,
        worst_difference=worst.gain,
        stderr=spread,
    )


def bound_totals(
    groups: Sequence[Sequence[Comparison]], shares: Sequence[float], z: float
) -> list[tuple[float, float, float] | None]:
    """Return bounds, at a normal quantile, and standard errors of means of gains, all with the same shares.

    Returns:
        For each group of comparisons its lower and upper bound and standard error; None if a task has none.
    """
    measured = [measure_differences(group, shares) if all(map(_has_error, group)) else ([], []) for group in groups]
    low, high = bounds([part for parts, _ in measured for part in parts], [z])
    ends = np.cumsum([len(parts) for parts, _ in measured])
    totals: list[tuple[float, float, float] | None] = []
    for (parts, weights), end in zip(measured, ends, strict=True):
        if not parts or not all(map(is_testable, parts)):
            totals.append(None)
            continue
        of_group = slice(end - len(parts), end)
        lower, upper = combine_bounds(weights, [part.difference for part in parts], low[0, of_group], high[0, of_group])
        spread = math.sqrt(sum((w * part.stderr) ** 2 for w, part in zip(weights, parts, strict=True)))
        totals.append((float(lower), float(upper), spread))
    return totals


def _has_error(comparison: Comparison) -> bool:
    return comparison.items is not None or comparison.stderr is not None


def compute_task_shares(tasks: Sequence[tuple[str, float]]) -> list[float]:
    """Return each task's share in the mean over suites, given (suite, weight); shares sum to 1."""
    total: dict[str, float] = defaultdict(float)
    for suite, weight in tasks:
        total[suite] += weight
    return [weight / total[suite] / len(total) for suite, weight in tasks]
