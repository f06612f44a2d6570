"""Published levels without items: there is no pairing, and the variances of both arms are added.

Pure: no I/O, no database.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from evalsvc.analysis.compare import UNIT_INTERVAL, name_scale
from evalsvc.records.comparisons import Comparison
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
    """Compare two levels of one task; without a standard error of both there is no interval."""
    difference = adapted.value - base.value
    stderr = low = high = p_value = None
    if base.stderr is not None and adapted.stderr is not None:
        stderr = math.hypot(base.stderr, adapted.stderr)
        low, high = t_interval(difference, stderr, math.inf)
        p_value = t_test(difference, stderr, math.inf)
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
        test=LEVELS_ONLY if stderr is None else UNPAIRED,
        unit=find_level_unit((base, adapted)),
        higher_is_better=base.higher_is_better,
        weight=1.0,
        stderr=stderr,
        p_value=p_value,
    )
