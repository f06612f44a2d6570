"""Differences between two arms on the same items.

Binary items: Tango's score interval (Tango 1998, Statistics in Medicine 17:891-908), which has nominal coverage down to
n = 100, where the Wald interval does not, and McNemar's exact test. Graded items: Student's t on paired differences.

Formulas and sources: docs/pages/statistics.md, section "One task".
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, chdtrc, stdtr, stdtrit

Floats = NDArray[np.float64]

LEVEL = 0.90


class Interval(NamedTuple):
    """Ends of a two-sided interval."""

    low: float
    high: float


class Transitions(NamedTuple):
    """Counts over n binary items: lost = 1 -> 0, gained = 0 -> 1."""

    lost: int
    gained: int
    n: int


def transitions(base: Floats, adapted: Floats) -> Transitions:
    """Count the items that changed; both arrays contain 0 and 1, in the same order of items."""
    return Transitions(int((base > adapted).sum()), int((adapted > base).sum()), len(base))


def transition_error(lost: int, gained: int, n: int) -> float:
    """Return the standard error of (gained - lost) / n: that of n differences -1, 0 and 1; nan if n < 2."""
    if n < 2:
        return math.nan
    return math.sqrt((lost + gained - (gained - lost) ** 2 / n) / (n - 1) / n)


def tango_z(difference: ArrayLike, lost: ArrayLike, gained: ArrayLike, n: ArrayLike) -> Floats:
    """Return the score statistic of H0: (gained - lost) / n == `difference`.

    Broadcasts; strictly decreasing in `difference`, which must lie in (-1, 1).
    """
    d, n10, n01, m = (np.asarray(x, dtype=np.float64) for x in (difference, lost, gained, n))
    variance, _ = _variance(d, n10, n01, m)
    known = variance > 0
    # Without a discordant pair the variance under H0: difference 0 is zero, and so is the numerator.
    return np.where(known, (n01 - n10 - m * d) / np.sqrt(np.where(known, variance, 1.0)), 0.0)


def _variance(d: Floats, n10: Floats, n01: Floats, m: Floats) -> tuple[Floats, Floats]:
    """Return the variance of (gained - lost) under H0: difference == d, and its derivative (nan or inf at its zeros).

    Tango's n (2q + d (1 - d)), with q the larger root of 2n q^2 + b q + c. Its discriminant b^2 - 8n c is written as a
    sum of squares, which avoids cancellation.
    """
    slope, side = 2 * m + n10 - n01, 2 * m - n10 - n01
    b, p = slope * d - n10 - n01, side * d + n10 - n01
    root = np.sqrt(p * p + 4 * n10 * n01 * (1 - d * d))
    with np.errstate(invalid="ignore", divide="ignore"):
        turn = (side * p - 4 * n10 * n01 * d) / root
    return (root - b) / 2 + m * d * (1 - d), (turn - slope) / 2 + m * (1 - 2 * d)


def tango_bounds(lost: ArrayLike, gained: ArrayLike, n: ArrayLike, z: ArrayLike) -> tuple[Floats, Floats]:
    """Return the differences at which the score statistic is `z` and -`z`, to 1e-12; broadcasts.

    Uses Newton's method, with bisection where a step leaves the bracket.
    """
    n10, n01, m, z = (np.asarray(x, dtype=np.float64) for x in (lost, gained, n, z))
    z = np.broadcast_to(z, np.broadcast_shapes(n10.shape, n01.shape, m.shape, z.shape))
    target = np.stack([z, -z])
    low, high = np.full(target.shape, -1.0), np.full(target.shape, 1.0)
    d = np.where(target > 0, -0.25, 0.25)
    for _ in range(100):  # about ten, except for bounds at the ends of the scale, which are bisected
        variance, turn = _variance(d, n10, n01, m)
        error = np.sqrt(np.maximum(variance, 0))
        gap = n01 - n10 - m * d - target * error
        below = gap > 0
        low, high = np.where(below, d, low), np.where(below, high, d)
        with np.errstate(invalid="ignore", divide="ignore"):
            step = gap / (m + target * turn / (2 * error))
        step = np.where(gap == 0, 0.0, np.where(error > 0, step, np.nan))
        inside = (np.abs(step) < 1e-13) | ((d + step >= low) & (d + step <= high))
        before, d = d, np.where(inside, d + step, (low + high) / 2)
        if np.abs(d - before).max(initial=0.0) < 1e-13:
            break
    return d[0], d[1]


@lru_cache(maxsize=2**16)
def tango_interval(lost: int, gained: int, n: int, level: float = LEVEL) -> Interval:
    """Return the interval of (gained - lost) / n; cached, as many tasks of many arms have the same counts."""
    low, high = tango_bounds(lost, gained, n, NormalDist().inv_cdf((1 + level) / 2))
    return Interval(float(low), float(high))


def t_interval(center: float, stderr: float, df: float, level: float = LEVEL) -> Interval:
    """Return center -+ t * stderr with Student's t of `df` degrees of freedom (inf gives the normal)."""
    probability = (1 + level) / 2
    quantile = NormalDist().inv_cdf(probability) if math.isinf(df) else float(stdtrit(df, probability))
    return Interval(center - quantile * stderr, center + quantile * stderr)


def t_test(center: float, stderr: float, df: float) -> float:
    """Return the two-sided p-value of H0: 0 for an estimate with Student's t of `df` degrees of freedom.

    With a standard error of 0: 1 for an estimate of 0, 0 for any other.
    """
    if stderr == 0:
        return 1.0 if center == 0 else 0.0
    return float(2 * stdtr(min(df, 1e12), -abs(center) / stderr))


class McNemar(NamedTuple):
    """P-values of H0: lost and gained are equally likely. `exact` is used; the others are for comparison."""

    exact: float
    mid_p: float
    asymptotic: float
    continuity: float


@lru_cache(maxsize=2**16)
def mcnemar(lost: int, gained: int) -> McNemar:
    """Test, two-sided, whether items are lost as often as gained (McNemar 1947; Fagerland et al. 2013 for mid-p)."""
    changed, fewer = lost + gained, min(lost, gained)
    if changed == 0:
        return McNemar(1.0, 1.0, 1.0, 1.0)
    tail = float(bdtr(fewer, changed, 0.5))
    point = tail - (float(bdtr(fewer - 1, changed, 0.5)) if fewer else 0.0)
    gap = abs(lost - gained)
    return McNemar(
        exact=min(1.0, 2 * tail),
        mid_p=min(1.0, 2 * tail - point),
        asymptotic=float(chdtrc(1, gap**2 / changed)),
        continuity=float(chdtrc(1, max(0, gap - 1) ** 2 / changed)),
    )
