"""Differences of levels: of metrics of all items together, and of published levels without items.

Metrics that are no mean over items (F1, BLEU, a median) have a paired bootstrap, where both arms were graded with the
same resamples. Other levels are not paired, and the variances of both arms are added. Pure: no I/O, no database.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from evalsvc.analysis.compare import UNIT_INTERVAL, name_scale
from evalsvc.records.comparisons import Comparison, ResampledGains
from evalsvc.records.direction import orient
from evalsvc.stats.paired import t_interval, t_test
from evalsvc.store.scores import StoredResult

UNPAIRED, LEVELS_ONLY = "unpaired z", "levels only"
"""Names of the tests of published levels: with a standard error of both, and without."""

Key = tuple[str, str, str, str]
"""Suite, task, metric, filter."""
Levels = Mapping[Key, StoredResult]


def index_levels(results: Iterable[StoredResult]) -> dict[int, dict[Key, StoredResult]]:
    """Return the results of tasks by arm number and key."""
    levels: dict[int, dict[Key, StoredResult]] = {}
    for result in results:
        if not result.is_group:
            key = result.suite, result.task, result.metric, result.filter
            levels.setdefault(result.arm.number, {})[key] = result
    return levels


def find_level_unit(levels: Iterable[StoredResult]) -> str:
    """Return the unit in which the differences of a task's levels can be averaged with those of other tasks."""
    levels = list(levels)
    is_score = all(0 <= level.value <= 1 and level.higher_is_better for level in levels)
    return UNIT_INTERVAL if is_score else name_scale(levels[0].metric)


def compare_levels(base: StoredResult, adapted: StoredResult) -> Comparison:
    """Compare two levels of one task: by their resamples, if these are paired, else by both standard errors.

    With neither there is a difference and no interval.
    """
    difference = adapted.value - base.value
    low = high = p_value = None
    stderr, df, test, units, has_clusters = None, math.inf, LEVELS_ONLY, None, False
    resampled = _pair_resamples(base, adapted)
    error = None if resampled is None else resampled.find_error()
    if resampled is not None and error is not None:
        (stderr, df), units, has_clusters = error, resampled.units, resampled.has_clusters
        test = f"paired bootstrap over {'clusters' if has_clusters else 'documents'}"
    elif base.stderr is not None and adapted.stderr is not None:
        stderr, test = math.hypot(base.stderr, adapted.stderr), UNPAIRED
    if stderr is not None:
        low, high = t_interval(difference, stderr, df)
        p_value = t_test(difference, stderr, df)
    return Comparison(
        suite=base.suite,
        role=base.role,
        task=base.task,
        metric=base.metric,
        filter=base.filter,
        n=min(base.n, adapted.n),
        base=base.value,
        adapted=adapted.value,
        difference=difference,
        low=low,
        high=high,
        lost=None,
        gained=None,
        test=test,
        unit=find_level_unit((base, adapted)),
        higher_is_better=base.higher_is_better,
        weight=1.0,
        stderr=stderr,
        p_value=p_value,
        units=units,
        clusters=units if has_clusters else None,
        resampled=None if error is None else resampled,
    )


def _pair_resamples(base: StoredResult, adapted: StoredResult) -> ResampledGains | None:
    """Return the gains on the resamples that both levels have, of the same units; None if there are none."""
    ours, others = base.resamples, adapted.resamples
    if ours is None or others is None or ours.draws != others.draws:
        return None
    count = min(len(ours.levels), len(others.levels))
    differences = np.array(others.levels[:count]) - np.array(ours.levels[:count])
    return ResampledGains(
        gains=orient(differences, base.higher_is_better),
        draws=ours.draws,
        units=ours.units,
        effective=ours.effective,
        has_clusters=ours.has_clusters,
    )
