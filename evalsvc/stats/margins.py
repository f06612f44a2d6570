"""One-sided tests of a paired difference against a margin, on one task or on a weighted mean of tasks.

H0 is "the difference is at most the threshold" (for retention, -margin); the mirrored H0 is "at least". One signed z
tests both: the difference is above the threshold at level alpha if z >= z_alpha, below it if z <= -z_alpha.

* Binary items: Tango's score statistic (see `paired`).
* Graded items and perplexities: Student's t, with its tail probability converted to z. For differences in [-1, 1] the
  half-width is at least z^2 / (n + z^2), that of n binary items of which none changed.
* Weighted means: MOVER (Zou and Donner 2008, Statistics in Medicine 27:1693-1702), which combines the tasks' own
  bounds. A task without any changed item keeps its uncertainty, which a sum of standard errors would ignore.

Formulas and sources: docs/pages/statistics.md, section "The gate".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from evalsvc.stats.paired import tango_bounds, tango_z

Floats = NDArray[np.float64]

_GRID = np.concatenate([np.linspace(0, 5, 251), np.linspace(5.1, 8, 30)])
"""z at which the bounds of weighted means are computed; between them z is interpolated (error below 1e-4)."""


class PairedDifference(NamedTuple):
    """The difference on one task, as a test takes it; positive is better.

    Attributes:
        stderr: Standard error of the difference; used if there are no counts.
        counts: (lost, gained) of binary items, else None.
        df: Degrees of freedom of `stderr`.
        is_bounded: Whether each item's difference lies in [-1, 1].
    """

    n: int
    difference: float
    stderr: float
    counts: tuple[int, int] | None = None
    df: float = float("inf")
    is_bounded: bool = True


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
    binary = np.array([task.counts is not None for task in tasks], dtype=np.bool_)
    if binary.any():
        lost, gained, n = np.array([(*task.counts, task.n) for task in tasks if task.counts is not None]).T
        low[:, binary], high[:, binary] = tango_bounds(lost, gained, n, level)
    if not binary.all():
        low[:, ~binary], high[:, ~binary] = _t_bounds([task for task in tasks if task.counts is None], level)
    return low, high


def _t_bounds(tasks: Sequence[PairedDifference], level: Floats) -> tuple[Floats, Floats]:
    """Return lower and upper bounds [len(level), tasks] by Student's t, at each z [len(level), 1]."""
    n, difference, stderr, df, is_bounded = np.array(
        [(t.n, t.difference, t.stderr, t.df, t.is_bounded) for t in tasks]
    ).T
    half = -stdtrit(df, np.maximum(ndtr(-level), 1e-300)) * stderr
    half = np.where(np.isinf(df), level * stderr, half)
    half = np.where(is_bounded, np.maximum(half, level**2 / (n + level**2)), half)
    low, high = difference - half, difference + half
    return np.where(is_bounded, np.maximum(low, -1), low), np.where(is_bounded, np.minimum(high, 1), high)


def combine_bounds(shares: ArrayLike, differences: ArrayLike, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return MOVER's bounds [...] of sum(shares * differences), given the parts' bounds [..., parts]."""
    w, d = np.asarray(shares, dtype=np.float64), np.asarray(differences, dtype=np.float64)
    centre = (w * d).sum(axis=-1)
    return (
        centre - np.sqrt(((w * (d - low)) ** 2).sum(axis=-1)),
        centre + np.sqrt(((w * (high - d)) ** 2).sum(axis=-1)),
    )


def margin_test(
    tasks: Sequence[PairedDifference], shares: Sequence[float], threshold: float, z_alpha: float
) -> MarginTest:
    """Test the mean of `tasks`, weighted by `shares` that add up to 1, against a threshold.

    Args:
        z_alpha: One-sided normal quantile of the reported bounds.

    Raises:
        ValueError: There are no tasks, or a task has neither counts nor a finite standard error.
    """
    if not tasks or not all(task.counts is not None or np.isfinite(task.stderr) for task in tasks):
        raise ValueError(f"{len(tasks)} tasks, must have at least one, each with counts or a standard error")
    only = tasks[0].counts if len(tasks) == 1 else None
    differences = [task.difference for task in tasks]
    one_by_one = np.stack([_ends(task, z_alpha, whole=only is None) for task in tasks], axis=-1)
    low, high = combine_bounds(shares, differences, *one_by_one)
    difference = float(np.dot(shares, differences))
    if only is not None:
        z = float(tango_z(threshold, *only, tasks[0].n))
    else:
        # The bounds widen with z; the z at which one of them reaches the threshold is the statistic.
        inside = difference > threshold
        reached = low[1:] > threshold if inside else high[1:] < threshold
        gap = (low[1:] - threshold) if inside else (threshold - high[1:])
        z = _crossing(gap, reached) * (1 if inside else -1)
    return MarginTest(
        difference=difference,
        low=float(low[0]),
        high=float(high[0]),
        z=z,
        p_above=float(ndtr(-z)),
        p_below=float(ndtr(z)),
    )


@lru_cache(maxsize=2**12)
def _ends(task: PairedDifference, z_alpha: float, *, whole: bool) -> Floats:
    """Return [2, 1 + z], a task's bounds at z_alpha and, if `whole`, on the grid; cached, as tasks share counts."""
    return np.stack(bounds([task], np.concatenate([[z_alpha], _GRID if whole else []])))[..., 0]


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
