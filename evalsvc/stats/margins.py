"""One-sided tests of a paired difference against a margin, on one task or on a weighted mean of tasks.

H0 is "the difference is at most the threshold" (for retention, -margin); the mirrored H0 is "at least". One signed z
tests both: the difference is above the threshold at level alpha if z >= z_alpha, below it if z <= -z_alpha.

* One binary item per document: Tango's score statistic (see `paired`).
* Other scores in [0, 1], and documents or clusters of several items: the score statistic of `unit_means`, which is
  Tango's for any score.
* The ratio of two means over the same units, minus 1: the score statistic of `ratios`.
* Values without limits, such as bits per byte: Student's t, with its tail probability converted to z.
* Weighted means: MOVER (Zou and Donner 2008, Statistics in Medicine 27:1693-1702), which combines the tasks' own
  bounds. A task without any changed item keeps its uncertainty, which a sum of standard errors would ignore.

Formulas and sources: docs/pages/statistics.md, section "The gate".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from evalsvc.stats.paired import tango_bounds, tango_z
from evalsvc.stats.ratios import PairedValues, ratio_bounds, ratio_z
from evalsvc.stats.unit_means import UnitSums, normal_quantile, score_bounds, score_curve, score_z, t_quantile

Floats = NDArray[np.float64]

_GRID = np.concatenate([np.linspace(0, 5, 251), np.linspace(5.1, 8, 30)])
"""z at which the bounds of weighted means are computed; between them z is interpolated (error below 1e-4)."""

_CORRECTIONS = 3


class PairedDifference(NamedTuple):
    """The difference on one task, or on several that have documents in common; positive is better.

    Attributes:
        n: Number of independent units: documents, or clusters of them.
        stderr: Standard error of the difference; used if there are neither counts nor units.
        counts: (lost, gained) where every unit is one binary item, else None.
        df: Degrees of freedom of `stderr`.
        units: Contributions of the units, [1, n], where scores lie in [0, 1] and there are no counts.
        values: Both arms' values where the difference is the ratio of their means, minus 1.
    """

    n: int
    difference: float
    stderr: float
    counts: tuple[int, int] | None = None
    df: float = float("inf")
    units: UnitSums | None = None
    values: PairedValues | None = None

    @property
    def effective(self) -> float:
        """Effective number of units, which is smaller than n if some are larger than others."""
        return self.n if self.units is None else self.units.effective

    @property
    def is_items(self) -> bool:
        """Whether every unit is one item, so that its statistic is normal; else it is Student's t."""
        if self.counts is not None:
            return True
        return self.units.is_items if self.units is not None else math.isinf(self.df)


class Ends(NamedTuple):
    """Estimates with their lower and upper bounds, [arms] each."""

    value: Floats
    low: Floats
    high: Floats


class MarginTest(NamedTuple):
    """The test of a difference against a threshold.

    Attributes:
        low, high: One-sided bounds of the difference, each at level alpha.
        z: Signed statistic; positive if the difference is above the threshold.
        p_above, p_below: p-values of H0 "at most the threshold" and of the mirrored H0 "at least the threshold".
    """

    difference: float
    low: float
    high: float
    z: float
    p_above: float
    p_below: float


def bounds(tasks: Sequence[PairedDifference], z: ArrayLike) -> tuple[Floats, Floats]:
    """Return lower and upper bounds [len(z), tasks] of every task's difference at each z >= 0."""
    level = np.atleast_1d(np.asarray(z, dtype=np.float64))[:, None]
    low, high = np.empty((len(level), len(tasks))), np.empty((len(level), len(tasks)))
    counted = np.array([task.counts is not None for task in tasks], dtype=np.bool_)
    if counted.any():
        lost, gained, n = np.array([(*task.counts, task.n) for task in tasks if task.counts is not None]).T
        low[:, counted], high[:, counted] = tango_bounds(lost, gained, n, level)
    for i, task in enumerate(tasks):
        if task.units is not None:
            low[:, i : i + 1], high[:, i : i + 1] = score_bounds(task.units, level[:, 0])
        elif task.values is not None:
            low[:, i], high[:, i] = (ends - 1 for ends in ratio_bounds(task.values, level[:, 0]))
        elif task.counts is None:
            half = _t_half_width(task, level[:, 0])
            low[:, i], high[:, i] = task.difference - half, task.difference + half
    return low, high


def _t_half_width(task: PairedDifference, z: Floats) -> Floats:
    """Return the half-width of the interval by Student's t, at each z."""
    return np.asarray(t_quantile(z, task.df) * task.stderr)


def combine_bounds(shares: ArrayLike, differences: ArrayLike, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return MOVER's bounds [...] of sum(shares * differences), given the parts' bounds [..., parts]."""
    w, d = np.asarray(shares, dtype=np.float64), np.asarray(differences, dtype=np.float64)
    centre = (w * d).sum(axis=-1)
    return (
        centre - np.sqrt(((w * (d - low)) ** 2).sum(axis=-1)),
        centre + np.sqrt(((w * (high - d)) ** 2).sum(axis=-1)),
    )


def bound_ratio(top: Ends, bottom: Ends) -> tuple[Floats, Floats]:
    """Return the bounds [arms] of top / bottom, of independent estimates: the ratios R that MOVER does not reject.

    R is inside if 0 lies within MOVER's bounds of top - R * bottom (Donner and Zou 2012, Statistical Methods in Medical
    Research 21:347-359).

    Args:
        top, bottom: Estimates with their bounds; the lower bounds of `bottom` must be positive.
    """
    product, down, up = top.value * bottom.value, top.value - top.low, top.high - top.value
    shorter, longer = bottom.value - bottom.low, bottom.high - bottom.value

    def root(side: Floats, spread: Floats) -> tuple[Floats, Floats, Floats]:
        a, c = bottom.value**2 - spread**2, top.value**2 - side**2
        return a, c, np.sqrt(np.maximum(product**2 - a * c, 0.0))

    with np.errstate(divide="ignore", invalid="ignore"):
        (a, _, of_negative), (_, c, of_positive) = root(down, shorter), root(down, longer)
        low = np.where(top.low < 0, (product - of_negative) / a, c / (product + of_positive))
        (a, _, of_positive), (_, c, of_negative) = root(up, shorter), root(up, longer)
        high = np.where(top.high > 0, (product + of_positive) / a, c / (product - of_negative))
    return np.where(top.low == 0, 0.0, low), np.where(top.high == 0, 0.0, high)


def bound_sum(tasks: Sequence[PairedDifference], shares: Sequence[float], z: float) -> tuple[float, float]:
    """Return the bounds, at a normal quantile, of the sum of `tasks`, each times its positive share."""
    low, high = combine_bounds(shares, [task.difference for task in tasks], *bounds(tasks, [z]))
    return float(low[0]), float(high[0])


def margin_test(
    tasks: Sequence[PairedDifference], shares: Sequence[float], threshold: float, z_alpha: float
) -> MarginTest:
    """Test the sum of `tasks`, each times its positive share, against a threshold.

    Args:
        z_alpha: One-sided normal quantile of the reported bounds.

    Raises:
        ValueError: There are no tasks, or a task has neither counts nor two units nor a finite standard error.
    """
    if not tasks or not all(is_testable(task) for task in tasks):
        raise ValueError(f"{len(tasks)} tasks, must have at least one, each with counts, units or a standard error")
    low, high = bound_sum(tasks, shares, z_alpha)
    difference = float(np.dot(shares, [task.difference for task in tasks]))
    if len(tasks) == 1:
        z = _single_z(tasks[0], threshold / shares[0])
    else:
        z = _combined_z(tasks, shares, difference, threshold)
    return MarginTest(difference=difference, low=low, high=high, z=z, p_above=float(ndtr(-z)), p_below=float(ndtr(z)))


def is_testable(task: PairedDifference) -> bool:
    """Whether a difference has bounds: from counts, from at least two units, or from a standard error."""
    if task.counts is not None:
        return True
    if task.values is not None:
        return task.values.is_testable
    return task.n > 1 if task.units is not None else bool(np.isfinite(task.stderr))


def _single_z(task: PairedDifference, threshold: float) -> float:
    """Return the statistic of one difference."""
    if not -1 < threshold < 1 and (task.counts is not None or task.units is not None):
        return float(-np.sign(threshold) * _GRID[-1])
    if task.counts is not None:
        return float(tango_z(threshold, *task.counts, task.n))
    if task.units is not None:
        return float(normal_quantile(score_z(task.units, threshold), task.units.df)[0])
    if task.values is not None:
        return ratio_z(task.values, 1 + threshold)
    gap = task.difference - threshold
    if not task.stderr:
        return float(np.sign(gap) * _GRID[-1])
    t = np.array([gap / task.stderr])
    return float(normal_quantile(t, task.df)[0])


def _combined_z(tasks: Sequence[PairedDifference], shares: Sequence[float], difference: float, at: float) -> float:
    """Return the z at which a bound of the mean reaches the threshold `at`; the bounds widen with z."""
    is_lower = difference > at
    differences = [task.difference for task in tasks]
    ends = np.stack([_curve(task, is_lower) for task in tasks], axis=-1)
    low, high = combine_bounds(shares, differences, ends, ends)
    gap = low - at if is_lower else at - high
    z = _crossing(gap, gap > 0)
    if 0 < z < _GRID[-1] and any(task.units is not None for task in tasks):
        # The curves are interpolated; what is left is found with the bounds themselves.
        step = max(int(np.searchsorted(_GRID, z)), 1)
        slope = (gap[step - 1] - gap[step]) / (_GRID[step] - _GRID[step - 1])
        for _ in range(_CORRECTIONS):
            end = bound_sum(tasks, shares, z)[0 if is_lower else 1]
            z = float(np.clip(z + (end - at if is_lower else at - end) / slope, 0, _GRID[-1]))
    return z if is_lower else -z


def _curve(task: PairedDifference, is_lower: bool) -> Floats:
    """Return a task's lower or upper bound at every z of the grid."""
    if task.units is not None:
        return score_curve(task.units, _GRID, is_lower=is_lower)
    if task.counts is not None:
        return np.asarray(_counted_curve(*task.counts, task.n)[0 if is_lower else 1])
    if task.values is not None:
        return bounds([task], _GRID)[0 if is_lower else 1][:, 0]
    half = _t_half_width(task, _GRID)
    return task.difference - half if is_lower else task.difference + half


@lru_cache(maxsize=2**12)
def _counted_curve(lost: int, gained: int, n: int) -> Floats:
    """Return [2, z], both bounds at every z of the grid; cached, as tasks share counts."""
    return np.stack(tango_bounds(lost, gained, n, _GRID))


def _crossing(gap: Floats, above: NDArray[np.bool_]) -> float:
    """Return the z on the grid at which `gap`, positive where `above`, falls to zero."""
    if above.all():
        return float(_GRID[-1])
    first = int(np.argmin(above))
    if first == 0:
        return 0.0
    share = gap[first - 1] / (gap[first - 1] - gap[first])
    return float(_GRID[first - 1] + share * (_GRID[first] - _GRID[first - 1]))


def z_of(alpha: float) -> float:
    """Return the one-sided normal quantile z with P(Z > z) == alpha."""
    return float(-ndtri(alpha))
