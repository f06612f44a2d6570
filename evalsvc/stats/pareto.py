"""Non-dominated points, hypervolume, and interpolation on a frontier; on every axis more is better.

Formulas and sources: docs/pages/statistics.md, section "The frontier".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ranks = NDArray[np.signedinteger[Any]]
Indices = NDArray[np.intp]

THREADS = os.cpu_count()
_CACHE_NUMBERS = 2**16
"""Numbers that fit into a core's cache."""
_FEW = 4
_MAX_COMPARISONS = 8_000_000
"""Pairs of arms times sets that are compared at once."""


def dominates(these: Floats | Ranks, those: Floats | Ranks) -> Bools:
    """Return which points dominate which others: at least equal on all axes and better on one.

    Args:
        these: [a, axes], or their ranks.
        those: [b, axes], or their ranks.

    Returns:
        [a, b]: whether the first dominates the second.
    """
    at_least = np.ones((len(these), len(those)), dtype=bool)
    better = np.zeros_like(at_least)
    for first, second in zip(these.T, those.T, strict=True):
        at_least &= np.greater_equal.outer(first, second)
        better |= np.greater.outer(first, second)
    return at_least & better


def rank_densely(values: Floats) -> Ranks:
    """Return the dense ranks of values [..., arms] along one axis, from 0 up; dominance only depends on them.

    Values are rounded first, so that arms with equal counts tie in spite of rounding errors. Ranks are sorted and
    compared many times faster than the values.
    """
    return _in_parts(_rank_axis, values.reshape(-1, values.shape[-1])).reshape(values.shape)


def _rank_axis(values: Floats) -> Ranks:
    sets = values.round(12)
    place = np.argsort(sets, axis=-1) + np.arange(0, sets.size, sets.shape[-1])[:, None]
    in_order = sets.ravel()[place]
    rank = np.zeros(sets.shape, dtype=np.int16 if sets.shape[-1] < 2**15 else np.int32)
    rank[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    dense_ranks = np.empty(sets.size, dtype=rank.dtype)
    dense_ranks[place] = np.cumsum(rank, axis=-1, dtype=rank.dtype)
    return dense_ranks.reshape(sets.shape)


def _in_parts(function: Callable[..., NDArray[Any]], *sets: NDArray[Any]) -> NDArray[Any]:
    """Apply a function of sets [sets, arms] in threads, to as many sets at a time as fit into a core's cache."""
    total, arms = sets[0].shape
    size = max(1, _CACHE_NUMBERS // arms)
    if total <= size:
        return function(*sets)
    with ThreadPoolExecutor(THREADS) as pool:
        parts = pool.map(lambda start: function(*(part[start : start + size] for part in sets)), range(0, total, size))
        return np.concatenate(list(parts))


def find_dominators(sets: Ranks, best: Bools, level: float) -> Indices:
    """Return, for each arm, the arm that dominates it most often, if in at least a share `level` of the sets; else -1.

    Args:
        sets: [sets, arms, axes], each axis as from `rank_densely`.
        best: [arms], arms that are tried first; the others are only tried for arms that none of these dominates.
    """
    axes = [np.ascontiguousarray(sets[..., axis].T) for axis in range(sets.shape[-1])]
    spare = len(sets) - math.ceil(level * len(sets) - 1e-9)  # the number of sets in which it may not dominate
    dominators = np.full(sets.shape[1], -1, dtype=np.intp)
    rest = np.arange(sets.shape[1])
    for candidates in (np.flatnonzero(best), np.arange(sets.shape[1])):
        missed = np.sum(
            [~dominates(ranks[candidates], ranks[rest]) for ranks in sets[:_FEW]], axis=0
        )  # excludes most pairs
        dominating, dominated = (
            arms[numbers] for arms, numbers in zip((candidates, rest), np.nonzero(missed <= spare), strict=True)
        )
        dominating, dominated, missed = _keep_dominating(axes, dominating, dominated, spare)
        # The last assignment stays: among the most frequent, the first arm.
        order = np.lexsort((-dominating, -missed))
        dominators[dominated[order]] = dominating[order]
        rest = np.setdiff1d(rest, dominated)
    return dominators


def _keep_dominating(
    axes: Sequence[Ranks], dominators: Indices, dominated: Indices, spare: int
) -> tuple[Indices, Indices, NDArray[np.int64]]:
    """Keep the pairs whose first arm dominates the second in all but at most `spare` sets, with the number of others.

    Args:
        axes: Ranks [arms, sets] of each axis.
    """
    total, start, step = axes[0].shape[1], 0, _FEW
    missed = np.zeros(len(dominators), dtype=np.int64)
    while start < total and len(dominators):
        stop = min(total, start + max(1, min(step, _MAX_COMPARISONS // len(dominators))))
        at_least = np.ones((len(dominators), stop - start), dtype=bool)
        better = np.zeros_like(at_least)
        for ranks in axes:
            dominator_ranks, dominated_ranks = ranks[dominators, start:stop], ranks[dominated, start:stop]
            at_least &= dominator_ranks >= dominated_ranks
            better |= dominator_ranks > dominated_ranks
        missed += (~(at_least & better)).sum(axis=1)
        able = missed <= spare
        dominators, dominated, missed = dominators[able], dominated[able], missed[able]
        start, step = stop, 2 * step
    return dominators, dominated, missed


def non_dominated(points: Floats | Ranks) -> Bools:
    """Return [..., arms], which points [..., arms, axes] (or their ranks) no other point of their set dominates."""
    sets = points.reshape(-1, *points.shape[-2:])
    if sets.dtype == np.float64:
        sets = np.stack([rank_densely(axis) for axis in np.moveaxis(sets, -1, 0)], axis=-1)
    if sets.shape[-1] == 2:
        return _in_parts(_staircase, sets[..., 0], sets[..., 1]).reshape(points.shape[:-1])
    front = [~dominates(members, members).any(axis=0) for members in sets]
    return np.array(front, dtype=bool).reshape(points.shape[:-1])


def _staircase(x: Ranks, y: Ranks) -> Bools:
    """Return the non-dominated points of sets with two axes [sets, arms], by one sweep in order of decreasing x.

    A point and its arm are packed into one integer, which sorts much faster.
    """
    bits = int(max(x.max(), y.max(), x.shape[1])).bit_length()
    mask, number = (1 << bits) - 1, np.dtype(np.int32 if 3 * bits < 32 else np.int64)
    keys: NDArray[Any] = x.astype(number) << 2 * bits | y.astype(number) << bits | np.arange(x.shape[1], dtype=number)
    keys.sort(axis=-1)
    keys = keys[:, ::-1]
    # By y, then by x: a point equal to the running maximum has the largest y, and among these the largest x.
    points = ((keys >> bits & mask) << bits) | keys >> 2 * bits
    rows, places = np.nonzero(points == np.maximum.accumulate(points, axis=-1))
    on_staircase = np.zeros(x.shape, dtype=bool)
    on_staircase[rows, keys[rows, places] & mask] = True
    return on_staircase


def hypervolume(points: Floats, reference: Sequence[float]) -> float:
    """Return the volume that `points` [arms, axes] dominate above `reference`; points below it on an axis add nothing.

    Exact, by slices along the last axis, whose volumes have one axis less; fast for tens of non-dominated arms.
    """
    above = points[(points > np.asarray(reference)).all(axis=1)]
    if not len(above):
        return 0.0
    if above.shape[1] == 1:
        return float(above[:, 0].max() - reference[0])
    above = above[non_dominated(above)]
    volume, floor = 0.0, reference[-1]
    for height in np.unique(above[:, -1]):
        volume += (float(height) - floor) * hypervolume(above[above[:, -1] >= height, :-1], reference[:-1])
        floor = float(height)
    return volume


def read_off(x: Floats, y: Floats, at: float) -> Floats:
    """Return the second axis of frontiers where their first axis is `at`, by linear interpolation between their points.

    Args:
        x, y: [..., arms]; only the non-dominated points count.

    Returns:
        [...]; left of the frontier the value of its first point, which is better on both axes; right of it nan.
    """
    beyond = x >= at
    # The frontier's next point to the right has the largest y of all points there; points to its left have more.
    high = np.where(beyond, y, -np.inf).max(axis=-1)
    right = np.where(beyond & (y == high[..., None]), x, -np.inf).max(axis=-1)
    left = np.where(~beyond & (y > high[..., None]), x, -np.inf).max(axis=-1)
    low = np.where(x == left[..., None], y, -np.inf).max(axis=-1)
    with np.errstate(invalid="ignore"):  # where one of the neighbours is missing
        between = low + (high - low) * (at - left) / (right - left)
    values = np.where((right == at) | np.isneginf(left), high, between)
    return np.where(np.isneginf(high), np.nan, values)
