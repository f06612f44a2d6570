"""One-sided tests of a paired difference against a margin, on one task or on a weighted mean of tasks.

H0 is "the difference is at most the threshold" (for retention, -margin); the mirrored H0 is "at least". Both are read
off one signed z: the difference is above the threshold at level alpha when z >= z_alpha, below it when z <= -z_alpha.

* Binary items: Tango's score statistic (see `paired`).
* Graded items and perplexities: Student's t, its tail probability turned into z. Differences that lie in [-1, 1] are
  never trusted further than those of as many binary items of which none changed: half-width z^2 / (n + z^2).
* Weighted means: MOVER (Zou and Donner 2008, Statistics in Medicine 27:1693-1702), which puts the tasks' own bounds
  together. A task without any changed item so keeps its uncertainty, where adding up standard errors would lose it.
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
"""z at which the bounds of weighted means are worked out; between them z is interpolated (error below 1e-4)."""


class Paired(NamedTuple):
    """What one task says of a difference, better counted positive.

    Attributes:
        stderr: Of the difference; used where there are no counts.
        counts: (lost, gained) of binary items, else None.
        df: Degrees of freedom of `stderr`.
        bounded: Whether each item's difference lies in [-1, 1].
    """

    n: int
    difference: float
    stderr: float
    counts: tuple[int, int] | None = None
    df: float = float("inf")
    bounded: bool = True


class MarginTest(NamedTuple):
    """A difference against a threshold.

    Attributes:
        low, high: One-sided bounds at level alpha each.
        z: Signed; positive if the difference is above the threshold.
        p_above, p_below: Of H0 "at most" and of the mirrored H0 "at least" the threshold.
    """

    difference: float
    low: float
    high: float
    z: float
    p_above: float
    p_below: float


def bounds(tasks: Sequence[Paired], z: ArrayLike) -> tuple[Floats, Floats]:
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


def _t_bounds(tasks: Sequence[Paired], level: Floats) -> tuple[Floats, Floats]:
    """Return lower and upper bounds [len(level), tasks] by Student's t, at each z [len(level), 1]."""
    n, difference, stderr, df, bounded = np.array([(t.n, t.difference, t.stderr, t.df, t.bounded) for t in tasks]).T
    half = -stdtrit(df, np.maximum(ndtr(-level), 1e-300)) * stderr
    half = np.where(np.isinf(df), level * stderr, half)
    half = np.where(bounded, np.maximum(half, level**2 / (n + level**2)), half)
    low, high = difference - half, difference + half
    return np.where(bounded, np.maximum(low, -1), low), np.where(bounded, np.minimum(high, 1), high)


def combine_bounds(shares: ArrayLike, differences: ArrayLike, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return MOVER's bounds [...] of sum(shares * differences), given the parts' bounds [..., parts]."""
    w, d = np.asarray(shares, dtype=np.float64), np.asarray(differences, dtype=np.float64)
    centre = (w * d).sum(axis=-1)
    return (
        centre - np.sqrt(((w * (d - low)) ** 2).sum(axis=-1)),
        centre + np.sqrt(((w * (high - d)) ** 2).sum(axis=-1)),
    )


def margin_test(tasks: Sequence[Paired], shares: Sequence[float], threshold: float, z_alpha: float) -> MarginTest:
    """Test the mean of `tasks`, weighted by `shares` that add up to 1, against a threshold.

    Args:
        z_alpha: Of the bounds that are reported, and that z is compared with.

    Raises:
        ValueError: There are no tasks, or a task has neither counts nor a finite standard error.
    """
    if not tasks or not all(task.counts is not None or np.isfinite(task.stderr) for task in tasks):
        raise ValueError(f"{len(tasks)} tasks, must be at least one, each with counts or a standard error")
    only = tasks[0].counts if len(tasks) == 1 else None
    differences = [task.difference for task in tasks]
    one_by_one = np.stack([_ends(task, z_alpha, whole=only is None) for task in tasks], axis=-1)
    low, high = combine_bounds(shares, differences, *one_by_one)
    difference = float(np.dot(shares, differences))
    if only is not None:
        z = float(tango_z(threshold, *only, tasks[0].n))
    else:
        # Bounds move outwards with z: the z at which one of them reaches the threshold is the statistic.
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
def _ends(task: Paired, z_alpha: float, *, whole: bool) -> Floats:
    """Return [2, 1 + z] a task's bounds at z_alpha and, if `whole`, on the grid; many tasks have the same counts."""
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
