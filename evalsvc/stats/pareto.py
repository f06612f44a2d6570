"""Non-dominated points, hypervolume, and reading off a frontier; on every axis more is better."""

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
_AT_HAND = 2**16
"""Numbers that fit into a core's cache."""
_FEW = 4
_AT_ONCE = 8_000_000
"""Pairs of arms times sets that are compared at the same time."""


def dominates(these: Floats | Ranks, those: Floats | Ranks) -> Bools:
    """Return which points equal or beat which others on all axes and beat them on one.

    Args:
        these: [a, axes], or their ranks.
        those: [b, axes], or their ranks.

    Returns:
        [a, b]: whether the first dominates the second.
    """
    at_least = np.ones((len(these), len(those)), dtype=bool)
    better = np.zeros_like(at_least)
    for mine, other in zip(these.T, those.T, strict=True):
        at_least &= np.greater_equal.outer(mine, other)
        better |= np.greater.outer(mine, other)
    return at_least & better


def rank_densely(values: Floats) -> Ranks:
    """Return values [..., arms] along one axis as their dense ranks, from 0 up: all that dominance depends on.

    Two arms with the same counts tie, whatever order their items were added up in: numbers are rounded first. Ranks are
    sorted and compared many times faster than the numbers themselves.
    """
    return _in_parts(_rank_axis, values.reshape(-1, values.shape[-1])).reshape(values.shape)


def _rank_axis(values: Floats) -> Ranks:
    sets = values.round(12)
    place = np.argsort(sets, axis=-1) + np.arange(0, sets.size, sets.shape[-1])[:, None]
    inorder = sets.ravel()[place]
    rank = np.zeros(sets.shape, dtype=np.int16 if sets.shape[-1] < 2**15 else np.int32)
    rank[:, 1:] = inorder[:, 1:] != inorder[:, :-1]
    found = np.empty(sets.size, dtype=rank.dtype)
    found[place] = np.cumsum(rank, axis=-1, dtype=rank.dtype)
    return found.reshape(sets.shape)


def _in_parts(function: Callable[..., NDArray[Any]], *sets: NDArray[Any]) -> NDArray[Any]:
    """Apply a function of sets [sets, arms] on all processors, to as many sets at a time as fit into a core's cache."""
    total, arms = sets[0].shape
    size = max(1, _AT_HAND // arms)
    if total <= size:
        return function(*sets)
    with ThreadPoolExecutor(THREADS) as pool:
        parts = pool.map(lambda start: function(*(part[start : start + size] for part in sets)), range(0, total, size))
        return np.concatenate(list(parts))


def certain_dominators(sets: Ranks, best: Bools, level: float) -> Indices:
    """Return, for each arm, the one that most often dominates it, if in a share `level` of the sets or more; else -1.

    Args:
        sets: [sets, arms, axes], each axis as from `rank_densely`.
        best: [arms], arms that are asked first: where one of them will do, no other is looked for.
    """
    axes = [np.ascontiguousarray(sets[..., axis].T) for axis in range(sets.shape[-1])]
    spare = len(sets) - math.ceil(level * len(sets) - 1e-9)  # the most sets in which it need not dominate
    found = np.full(sets.shape[1], -1, dtype=np.intp)
    rest = np.arange(sets.shape[1])
    for asked in (np.flatnonzero(best), np.arange(sets.shape[1])):
        missed = np.sum([~dominates(one[asked], one[rest]) for one in sets[:_FEW]], axis=0)  # most pairs need no more
        by, of = (arms[numbers] for arms, numbers in zip((asked, rest), np.nonzero(missed <= spare), strict=True))
        by, of, missed = _certain(axes, by, of, spare)
        # The last one written stays: of the most frequent, the first.
        order = np.lexsort((-by, -missed))
        found[of[order]] = by[order]
        rest = np.setdiff1d(rest, of)
    return found


def _certain(axes: Sequence[Ranks], by: Indices, of: Indices, spare: int) -> tuple[Indices, Indices, NDArray[np.int64]]:
    """Return the pairs of arms of which one dominates the other in all sets but `spare`, and in how many it does not.

    Args:
        axes: Of each axis [arms, sets].
    """
    total, start, step = axes[0].shape[1], 0, _FEW
    missed = np.zeros(len(by), dtype=np.int64)
    while start < total and len(by):
        stop = min(total, start + max(1, min(step, _AT_ONCE // len(by))))
        at_least = np.ones((len(by), stop - start), dtype=bool)
        better = np.zeros_like(at_least)
        for ranks in axes:
            mine, other = ranks[by, start:stop], ranks[of, start:stop]
            at_least &= mine >= other
            better |= mine > other
        missed += (~(at_least & better)).sum(axis=1)
        able = missed <= spare
        by, of, missed = by[able], of[able], missed[able]
        start, step = stop, 2 * step
    return by, of, missed


def non_dominated(points: Floats | Ranks) -> Bools:
    """Return which points [..., arms, axes], or their ranks, no other of their set dominates, as [..., arms]."""
    sets = points.reshape(-1, *points.shape[-2:])
    if sets.dtype == np.float64:
        sets = np.stack([rank_densely(axis) for axis in np.moveaxis(sets, -1, 0)], axis=-1)
    if sets.shape[-1] == 2:
        return _in_parts(_staircase, sets[..., 0], sets[..., 1]).reshape(points.shape[:-1])
    found = [~dominates(one, one).any(axis=0) for one in sets]
    return np.array(found, dtype=bool).reshape(points.shape[:-1])


def _staircase(x: Ranks, y: Ranks) -> Bools:
    """Return the non-dominated points of sets with two axes [sets, arms], by one sweep from the greatest x downwards.

    A point and its arm are one number, which sorts much faster than the order of several.
    """
    bits = int(max(x.max(), y.max(), x.shape[1])).bit_length()
    mask, number = (1 << bits) - 1, np.dtype(np.int32 if 3 * bits < 32 else np.int64)
    keys: NDArray[Any] = x.astype(number) << 2 * bits | y.astype(number) << bits | np.arange(x.shape[1], dtype=number)
    keys.sort(axis=-1)
    keys = keys[:, ::-1]
    # By y, then by x: whoever is equal to the greatest so far has the greatest y, and of these the greatest x.
    points = ((keys >> bits & mask) << bits) | keys >> 2 * bits
    rows, places = np.nonzero(points == np.maximum.accumulate(points, axis=-1))
    found = np.zeros(x.shape, dtype=bool)
    found[rows, keys[rows, places] & mask] = True
    return found


def hypervolume(points: Floats, reference: Sequence[float]) -> float:
    """Return the volume that `points` [arms, axes] dominate above `reference`; points below it on an axis add nothing.

    By slices along the last axis, each the volume of one axis less: exact, and quick for the tens of arms that no other
    one dominates.
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
        [...]; left of the frontier its first point's value, which has more on both axes; right of it nan: nothing gets
        there.
    """
    beyond = x >= at
    # The frontier's next point to the right has the greatest y of all there; those to its left have more.
    high = np.where(beyond, y, -np.inf).max(axis=-1)
    right = np.where(beyond & (y == high[..., None]), x, -np.inf).max(axis=-1)
    left = np.where(~beyond & (y > high[..., None]), x, -np.inf).max(axis=-1)
    low = np.where(x == left[..., None], y, -np.inf).max(axis=-1)
    with np.errstate(invalid="ignore"):  # where one of the neighbours is missing
        between = low + (high - low) * (at - left) / (right - left)
    found = np.where((right == at) | np.isneginf(left), high, between)
    return np.where(np.isneginf(high), np.nan, found)
