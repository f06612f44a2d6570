"""Bounds of a mean over independent units: documents, or clusters of them, with scores of any kind in [-1, 1].

A unit u contributes x_u to the mean and has size s_u; with n units of mean size 1 the mean is theta = sum x_u / n, and
|x_u| <= s_u. H0: theta = t is tested by the score statistic

    z(t) = (theta - t) / sqrt(V(t) / n),

where V(t) is the variance of y_u = x_u - t s_u under the distribution that is the most likely one among those with
mean t: weights p_u = 1 / (n (1 + lambda y_u)), and the mass that is left, if lambda is at its limit, on a unit that is
lost whole (Owen 2001, Empirical Likelihood, section 2.9; the unit at the end of the scale makes it the likelihood of
all distributions on [-1, 1], as in Honda and Takemura 2010). So a mean of which no unit changed keeps the uncertainty
of what was not seen, a single odd value changes nothing much, and for one binary item per unit z is Tango's statistic.
A unit that was not seen is taken to be of the size that a random item's unit has, sum s^2 / n.

Where sizes differ, few of the large units are seen, and that these lost nothing says little: V(t) is at least the
variance that follows if losses do not depend on the size, sum s^2 / n times the variance of x_u / s_u - t, each unit
counted s_u times, under its most likely distribution of mean zero.

z is referred to the normal distribution, as Tango's is, if every unit is one item (or one of each task); else to
Student's t with n_e - 1 degrees of freedom, n_e = n^2 / sum s^2 being the effective number of units. This does not
depend on the scores, so that bounds are continuous in them. The choice among five bounds was made by simulation:
docs/pages/statistics.md, section "The gate".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Floats = NDArray[np.float64]

_MOST = 2**12
"""Number of different values up to which the bounds are exact."""
_ROUNDS = 60
_STEPS = np.linspace(0, 1, 41)[1:] ** 2.5
"""Where a curve of bounds is computed, as shares of the way from the mean to the last bound."""


class UnitSums(NamedTuple):
    """Contributions of n units to a mean, for several arms on the same units.

    Attributes:
        sums: [arms, n]; an arm's mean is the mean of its row.
        sizes: [n] of mean 1; a row's values are at most these, either way.
        is_items: Whether every unit is one item.
    """

    sums: Floats
    sizes: Floats
    is_items: bool = False

    @property
    def effective(self) -> float:
        """Effective number of units: n if all have one size."""
        return count_effective(self.sizes)

    @property
    def df(self) -> float:
        """Degrees of freedom of the statistic; infinite if it is normal."""
        return math.inf if self.is_items else self.effective - 1


def count_effective(sizes: Floats) -> float:
    """Return the effective number of units, (sum s)^2 / sum s^2."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def t_quantile(z: Floats, df: float) -> Floats:
    """Return the quantile of Student's t with the tail probability of a normal quantile z >= 0."""
    if math.isinf(df):
        return z
    if df <= 0:
        return np.full_like(z, np.inf)
    return np.asarray(-stdtrit(df, np.maximum(ndtr(-z), 1e-300)))


def normal_quantile(t: Floats, df: float) -> Floats:
    """Return the normal quantile with the tail probability of Student's t; the inverse of `t_quantile`."""
    if math.isinf(df):
        return t
    if df <= 0:
        return np.zeros_like(t)
    return np.asarray(-np.sign(t) * ndtri(np.maximum(stdtr(df, -np.abs(t)), 1e-300)))


def score_z(units: UnitSums, threshold: float) -> Floats:
    """Return the statistic z [arms] of H0: mean == `threshold`, which must lie in (-1, 1); positive if above it."""
    z = np.zeros(len(units.sums))
    for arm, row in enumerate(units.sums):
        values, sizes, counts = _compress(row, units.sizes)
        gap = float(row.mean()) - threshold
        sign = 1.0 if gap >= 0 else -1.0
        variance = _variance_at(sign * values, sizes, counts, _worst(units.sizes), sign * threshold)
        z[arm] = gap / np.sqrt(variance / len(row)) if gap else 0.0
    return z


def score_curve(units: UnitSums, z: Floats, *, is_lower: bool) -> Floats:
    """Return the lower (or upper) bound [len(z)] of the first arm's mean at each of many increasing z >= 0.

    Interpolates between 40 of them, which is quicker; the error is below 3e-3 of the way from the mean to the last.
    """
    sign = 1.0 if is_lower else -1.0
    values, sizes, counts = _compress(sign * units.sums[0], units.sizes)
    n, worst, df = counts.sum(), _worst(units.sizes), units.df
    mean = float(counts @ values) / n
    (lowest,) = _lower(values, sizes, counts, worst, t_quantile(np.asarray(z[-1:]), df))
    if not lowest < mean:
        return np.full(len(z), sign * mean)
    gaps = (mean - lowest) * _STEPS
    t = [gap / np.sqrt(_variance_at(values, sizes, counts, worst, mean - gap) / n) for gap in gaps[:-1]]
    reached = np.append(normal_quantile(np.array(t), df), z[-1])
    return np.asarray(sign * (mean - z * np.interp(z, reached, gaps / reached)))


def score_bounds(units: UnitSums, z: Floats) -> tuple[Floats, Floats]:
    """Return lower and upper bounds [len(z), arms] of every arm's mean, at each z >= 0."""
    t = t_quantile(np.asarray(z, dtype=np.float64), units.df)
    low, high = np.empty((len(t), len(units.sums))), np.empty((len(t), len(units.sums)))
    worst = _worst(units.sizes)
    for arm, row in enumerate(units.sums):
        values, sizes, counts = _compress(row, units.sizes)
        low[:, arm] = _lower(values, sizes, counts, worst, t)
        high[:, arm] = -_lower(-values, sizes, counts, worst, t)
    return low, high


def _worst(sizes: Floats) -> float:
    """Return the size of the unit of a random item."""
    return float(np.mean(sizes**2))


def _compress(row: Floats, sizes: Floats) -> tuple[Floats, Floats, Floats]:
    """Return different values, their sizes, and how many units have them; at most `_MOST`, as means of neighbours."""
    is_same = bool((sizes == sizes[0]).all())
    if is_same:
        values, times = np.unique(row, return_counts=True)
        if len(values) <= _MOST:
            return values, np.full(len(values), sizes[0]), times.astype(np.float64)
    if len(row) <= _MOST:
        return row, sizes, np.ones(len(row))
    order = np.argsort(row, kind="stable")
    starts = np.linspace(0, len(row), _MOST, endpoint=False).astype(np.intp)
    counts = np.asarray(np.diff(starts, append=len(row)), dtype=np.float64)
    means, of_sizes = (np.asarray(np.add.reduceat(column[order], starts) / counts) for column in (row, sizes))
    return means, of_sizes, counts


def _variance_at(values: Floats, sizes: Floats, counts: Floats, worst: float, threshold: float) -> float:
    """Return V(threshold), for a mean of at least the threshold.

    Args:
        values, sizes, counts: Different values with their sizes, and how often each occurs.
        worst: Size of a unit that was not seen.
    """
    variance = _variance(values - threshold * sizes, counts, worst * (1 + threshold))
    if sizes[0] == sizes[-1] and bool((sizes == sizes[0]).all()):
        return variance
    return max(variance, worst * _variance(values / sizes - threshold, counts * sizes, 1 + threshold))


def _variance(y: Floats, counts: Floats, worst: float) -> float:
    """Return the variance of y under the most likely distribution of mean 0, for y of mean >= 0.

    Args:
        y: [k] different values.
        counts: [k], how often each occurs.
        worst: Minus the value of a unit that is lost whole.
    """
    n = counts.sum()
    share = counts / n
    lowest = max(worst, -float(y.min()))
    if lowest <= 0:
        return 0.0
    limit = (1 - 1e-13) / lowest
    terms = y / (1 + limit * y)
    if float(share @ terms) >= 0:  # more mass must go to a lost unit than occurs
        p = share / (1 + limit * y)
        return float(p @ y**2) + max(0.0, 1 - float(p.sum())) * worst**2
    low, high = 0.0, limit
    bet = min(float(share @ y) / max(float(share @ y**2), 1e-300), limit / 2)
    for _ in range(_ROUNDS):
        terms = y / (1 + bet * y)
        slope, value = float(share @ terms**2), float(share @ terms)
        low, high = (bet, high) if value > 0 else (low, bet)
        step = bet + value / slope
        after = step if low < step < high else (low + high) / 2
        if abs(after - bet) <= 1e-12 * limit:
            break
        bet = after
    return float((share / (1 + bet * y)) @ y**2)


def _lower(values: Floats, sizes: Floats, counts: Floats, worst: float, t: Floats) -> Floats:
    """Return the lower bounds [len(t)]: where the statistic is t; by bracketing with the Illinois rule."""
    n = float(counts.sum())
    mean = float(counts @ values) / n
    bounds = np.full(len(t), -1.0)
    for i, quantile in enumerate(t):
        if quantile == 0 or mean <= -1:
            bounds[i] = max(mean, -1.0)
            continue
        if not np.isfinite(quantile):
            continue

        def excess(threshold: float, quantile: float = float(quantile)) -> float:
            variance = _variance_at(values, sizes, counts, worst, threshold)
            return mean - threshold - quantile * float(np.sqrt(variance / n))

        # At -1 nothing can vary, so that the excess is positive; just below the mean it is negative.
        low, high, above, below = -1.0, mean, 1 + mean, -quantile / float(np.sqrt(n))
        side = 0
        for _ in range(_ROUNDS):
            middle = (low * below - high * above) / (below - above)
            if not low < middle < high:
                middle = (low + high) / 2
            value = excess(middle)
            if value > 0:
                low, above = middle, value
                below = below / 2 if side > 0 else below
                side = 1
            else:
                high, below = middle, value
                above = above / 2 if side < 0 else above
                side = -1
            if high - low < 1e-10 or abs(value) < 1e-12:
                break
        bounds[i] = middle
    return bounds
