"""Non-dominated points, hypervolume, and reading off a frontier; on every axis more is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ranks = NDArray[np.signedinteger[Any]]


def dominates(these: Floats | Ranks, those: Floats | Ranks) -> Bools:
    """Return which points equal or beat which others on all axes and beat them on one.

    Args:
        these: [a, axes], or their ranks.
        those: [b, axes], ditto.

    Returns:
        [a, b]: whether the first dominates the second.
    """
    at_least = np.ones((len(these), len(those)), dtype=bool)
    better = np.zeros_like(at_least)
    for mine, other in zip(these.T, those.T, strict=True):
        at_least &= np.greater_equal.outer(mine, other)
        better |= np.greater.outer(mine, other)
    return at_least & better


def ranked(values: Floats) -> Ranks:
    """Return values [..., arms] along one axis as their dense ranks, from 0 up: all that dominance depends on.

    Small integers are sorted and compared many times faster than the numbers themselves.
    """
    order = np.argsort(values, axis=-1)
    inorder = np.take_along_axis(values, order, axis=-1)
    rank = np.zeros(values.shape, dtype=np.int16 if values.shape[-1] < 2**15 else np.int32)
    rank[..., 1:] = inorder[..., 1:] != inorder[..., :-1]
    found = np.empty_like(rank)
    np.put_along_axis(found, order, np.cumsum(rank, axis=-1, dtype=rank.dtype), axis=-1)
    return found


def certain_dominators(sets: Ranks, often: Floats, best: Bools, level: float) -> NDArray[np.intp]:
    """Return, for each arm, one that dominates it in a share `level` of the sets or more, the surest of them; else -1.

    Args:
        sets: [sets, arms, axes], each axis as from `ranked`.
        often: [arms], in which share of the sets none dominates them.
        best: [arms], arms that are asked first: where one of them will do, no other is looked for.
    """
    found = np.full(sets.shape[1], -1, dtype=np.intp)
    rest = np.flatnonzero(often <= 1 - level + 1e-9)  # the others are dominated in too few sets, by whomever
    for by in (np.flatnonzero(best), np.arange(sets.shape[1])):
        of, count = rest, np.zeros((len(by), len(rest)))
        for start in range(0, len(sets), 255):
            part = sets[start : start + 255]
            count += _times_dominated(part[:, by], part[:, of])
            # Whoever cannot get there any more is not asked again.
            able = (count + len(sets) - start - len(part)) / len(sets) >= level
            rows, columns = able.any(axis=1), able.any(axis=0)
            by, of, count = by[rows], of[columns], count[rows][:, columns]
        found[of] = by[count.argmax(axis=0)] if len(by) else -1
        rest = np.setdiff1d(rest, of)
    return found


def _times_dominated(these: Ranks, those: Ranks) -> NDArray[np.uint8]:
    """Return [a, b] in how many of 255 sets or fewer points [sets, a, axes] dominate others [sets, b, axes].

    One set after another: all at once would take gigabytes for a thousand arms. Bytes are quick to add to bytes.
    """
    count = np.zeros((these.shape[1], those.shape[1]), dtype=np.uint8)
    for mine, other in zip(these, those, strict=True):
        count += dominates(mine, other).view(np.uint8)
    return count


def non_dominated(points: Floats | Ranks) -> Bools:
    """Return which points [..., arms, axes], or their ranks, no other of their set dominates, as [..., arms]."""
    if points.shape[-1] == 2:
        return _staircase(points)
    sets = points.reshape(-1, *points.shape[-2:])
    found = [~dominates(one, one).any(axis=0) for one in sets]
    return np.array(found, dtype=bool).reshape(points.shape[:-1])


def _staircase(points: NDArray[Any]) -> Bools:
    """Return the non-dominated points of sets with two axes, by one sweep from the greatest first axis downwards."""
    order = np.lexsort((-points[..., 1], -points[..., 0]), axis=-1)
    x, y = (np.take_along_axis(points[..., axis], order, axis=-1) for axis in (0, 1))
    # Points with the same first axis stand together, the greatest second axis first.
    starts = np.concatenate([np.ones_like(x[..., :1], dtype=bool), x[..., 1:] != x[..., :-1]], axis=-1)
    start = np.maximum.accumulate(np.where(starts, np.arange(x.shape[-1]), 0), axis=-1)
    best = np.concatenate([np.full_like(y[..., :1], y.min(initial=0) - 1), np.maximum.accumulate(y, axis=-1)], axis=-1)
    beaten = (np.take_along_axis(best, start, axis=-1) >= y) | (np.take_along_axis(y, start, axis=-1) > y)
    found = np.empty(x.shape, dtype=bool)
    np.put_along_axis(found, order, ~beaten, axis=-1)
    return found


def hypervolume(points: Floats, reference: Sequence[float]) -> float:
    """Return the volume that `points` [arms, axes] dominate above `reference`; points below it on an axis add nothing.

    By slices along the last axis, each the volume of one axis less: exact, and quick for the tens of arms there are.
    """
    above = points[(points > np.asarray(reference)).all(axis=1)]
    if above.shape[1] == 1:
        return float(above[:, 0].max() - reference[0]) if len(above) else 0.0
    volume, floor = 0.0, reference[-1]
    for height in np.unique(above[:, -1]):
        volume += (float(height) - floor) * hypervolume(above[above[:, -1] >= height, :-1], reference[:-1])
        floor = float(height)
    return volume


def read_off(points: Floats, at: float, front: Bools | None = None) -> Floats:
    """Return the second axis of frontiers where their first axis is `at`, by straight lines between their points.

    Args:
        points: [..., arms, 2]; only the non-dominated ones count.
        front: [..., arms], which these are, where that is known.

    Returns:
        [...]; left of the frontier its first point's value, which has more on both axes; right of it nan: nothing gets
        there.
    """
    front = non_dominated(points) if front is None else front
    x, y = points[..., 0], points[..., 1]
    right = np.where(front & (x >= at), x, np.inf).min(axis=-1)
    left = np.where(front & (x <= at), x, -np.inf).max(axis=-1)
    # Points of a frontier with the same first axis have the same second one.
    high, low = (
        np.where(front & (x == end[..., None]), y, -np.inf).max(axis=-1, initial=-np.inf) for end in (right, left)
    )
    with np.errstate(invalid="ignore", divide="ignore"):  # where one of the neighbours is missing
        between = low + (high - low) * (at - left) / (right - left)
    found = np.where((left == right) | np.isneginf(left), high, between)
    return np.where(np.isposinf(right), np.nan, found)
