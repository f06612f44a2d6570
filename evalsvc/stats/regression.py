"""Least-squares line through checkpoints, to test whether an early measure predicts forgetting.

Formulas and sources: docs/pages/statistics.md, section "Claims".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalsvc.stats.paired import LEVEL, t_interval, t_test

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """y = intercept + slope x by least squares.

    Attributes:
        slope_low, slope_high: Interval of the slope, Student's t with n - 2.
        p_value: Two-sided, of H0: slope 0.
        r2: Share of the variance of y that the line explains.
        r2_low, r2_high: From Fisher's z interval of the correlation; r2_low is 0 where that contains 0.
    """

    n: int
    slope: float
    intercept: float
    slope_low: float
    slope_high: float
    p_value: float
    r2: float
    r2_low: float
    r2_high: float


def line(x: Floats, y: Floats, level: float = LEVEL) -> Line:
    """Fit y on x, one point per checkpoint.

    Raises:
        ValueError: There are fewer than four points, or all x or all y are equal.
    """
    n = len(x)
    if n < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(f"{n} points, must have at least 4, with different values on both axes")
    dx, dy = x - x.mean(), y - y.mean()
    sxx, sxy, syy = float(dx @ dx), float(dx @ dy), float(dy @ dy)
    slope = sxy / sxx
    r = max(-1.0, min(1.0, sxy / math.sqrt(sxx * syy)))
    stderr = math.sqrt(max(0.0, syy - slope * sxy) / (n - 2) / sxx)
    low, high = t_interval(slope, stderr, n - 2, level)
    half = t_interval(0.0, 1 / math.sqrt(n - 3), math.inf, level).high
    center = math.atanh(max(-1 + 1e-15, min(1 - 1e-15, r)))
    ends = math.tanh(center - half), math.tanh(center + half)
    squares = sorted(end * end for end in ends)
    return Line(
        n=n,
        slope=slope,
        intercept=float(y.mean()) - slope * float(x.mean()),
        slope_low=low,
        slope_high=high,
        p_value=t_test(slope, stderr, n - 2),
        r2=r * r,
        r2_low=0.0 if ends[0] < 0 < ends[1] else squares[0],
        r2_high=squares[1],
    )
