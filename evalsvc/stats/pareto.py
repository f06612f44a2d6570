"""Non-dominated points, hypervolume, and reading off a frontier; on every axis more is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def dominates(points: Floats) -> Bools:
    """Return which points equal or beat which others on all axes and beat them on one.

    Args:
        points: [arms, axes].

    Returns:
        [arms, arms]: whether the first dominates the second.
    """
    at_least = np.ones((len(points), len(points)), dtype=bool)
    better = np.zeros_like(at_least)
    for column in points.T:
        # Ranks in a byte or two compare many times faster than the numbers themselves.
        rank = np.unique(column, return_inverse=True)[1].astype(np.min_scalar_type(len(points)))
        at_least &= rank[:, None] >= rank
        better |= rank[:, None] > rank
    return at_least & better


def share_dominated(points: Floats) -> Floats:
    """Return in which share of the sets [sets, arms, axes] the first arm dominates the second, as [arms, arms].

    One set after another: all at once would take gigabytes for a thousand arms.
    """
    count = np.zeros((points.shape[1], points.shape[1]))
    for start in range(0, len(points), 255):
        part = np.zeros(count.shape, dtype=np.uint8)  # adding bytes to bytes is quick, and 255 of them fit
        for one in points[start : start + 255]:
            part += dominates(one).view(np.uint8)
        count += part
    return count / len(points)


def non_dominated(points: Floats) -> Bools:
    """Return which points [..., arms, axes] no other point of their set dominates, as [..., arms]."""
    if points.shape[-1] == 2:
        return _staircase(points)
    sets = points.reshape(-1, *points.shape[-2:])
    found = [~dominates(one).any(axis=0) for one in sets]
    return np.array(found, dtype=bool).reshape(points.shape[:-1])


def _staircase(points: Floats) -> Bools:
    """Return the non-dominated points of sets with two axes, by one sweep from the greatest first axis downwards."""
    order = np.lexsort((-points[..., 1], -points[..., 0]), axis=-1)
    x, y = (np.take_along_axis(points[..., axis], order, axis=-1) for axis in (0, 1))
    # Points with the same first axis stand together, the greatest second axis first.
    starts = np.concatenate([np.ones_like(x[..., :1], dtype=bool), x[..., 1:] != x[..., :-1]], axis=-1)
    start = np.maximum.accumulate(np.where(starts, np.arange(x.shape[-1]), 0), axis=-1)
    best = np.concatenate([np.full_like(y[..., :1], -np.inf), np.maximum.accumulate(y, axis=-1)], axis=-1)
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


def read_off(points: Floats, at: float) -> Floats:
    """Return the second axis of frontiers where their first axis is `at`, by straight lines between their points.

    Args:
        points: [..., arms, 2]; only the non-dominated ones count.

    Returns:
        [...]; left of the frontier its first point's value, which has more on both axes; right of it nan: nothing gets
        there.
    """
    front, x, y = non_dominated(points), points[..., 0], points[..., 1]
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
