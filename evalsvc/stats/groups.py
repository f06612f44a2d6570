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
        ValueError: A group has fewer than two runs.
    """
    sizes = len(first), len(second)
    if min(sizes) < 2:
        raise ValueError(f"groups of {sizes[0]} and {sizes[1]} runs, must have at least 2 each for a variance")
    parts = [float(group.var(ddof=1)) / len(group) for group in (first, second)]
    variance = sum(parts)
    value = float(first.mean() - second.mean())
    spread = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    df = variance**2 / spread if spread > 0 else float(sum(sizes) - 2)
    low, high = t_interval(value, variance**0.5, df, level)
    return GroupDifference(value=value, low=low, high=high, p_value=t_test(value, variance**0.5, df), df=df)
