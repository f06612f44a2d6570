"""Differences between two groups of independent training runs, for claims about methods.

Formulas and sources: docs/pages/statistics.md, section "Claims".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalsvc.stats.paired import LEVEL, t_interval, t_test

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDifference:
    """Mean of the first group minus mean of the second; p-value two-sided."""

    value: float
    low: float
    high: float
    p_value: float
    df: float


def welch(first: Floats, second: Floats, level: float = LEVEL) -> GroupDifference:
    """Compare two groups by Welch's t, for unequal variances (Welch 1947, Biometrika 34:28-35).

    Raises:
        ValueError: A group has fewer than two runs, or the values of a group are all equal: nothing is then known about
            the variance between its runs.
    """
    sizes = len(first), len(second)
    if min(sizes) < 2:
        raise ValueError(f"groups of {sizes[0]} and {sizes[1]} runs, must have at least 2 each for a variance")
    for group in (first, second):
        if np.ptp(group) <= 1e-12 * max(1.0, float(np.abs(group).max())):
            raise ValueError(
                f"all {len(group)} runs of a group have the value {group[0]:.3g}, must differ for a variance"
            )
    parts = [float(group.var(ddof=1)) / len(group) for group in (first, second)]
    variance = sum(parts)
    value = float(first.mean() - second.mean())
    spread = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    df = variance**2 / spread
    low, high = t_interval(value, variance**0.5, df, level)
    return GroupDifference(value=value, low=low, high=high, p_value=t_test(value, variance**0.5, df), df=df)
