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
        points: [..., arms, axes]; leading dimensions are independent sets.

    Returns:
        [..., arms, arms]: whether the first dominates the second.
    """
    at_least = np.ones((*points.shape[:-1], points.shape[-2]), dtype=bool)
    better = np.zeros_like(at_least)
    for axis in range(points.shape[-1]):
        column = points[..., axis]
        at_least &= column[..., :, None] >= column[..., None, :]
        better |= column[..., :, None] > column[..., None, :]
    return at_least & better


def non_dominated(points: Floats) -> Bools:
    """Return which points [..., arms, axes] no other point dominates, as [..., arms]."""
    return np.asarray(~dominates(points).any(axis=-2))


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


def read_off(points: Floats, at: float) -> float:
    """Return the second axis of a frontier where its first axis is `at`, by straight lines between its points.

    Args:
        points: [arms, 2]; only the non-dominated ones count.

    Returns:
        Left of the frontier its first point's value, which has more on both axes; right of it nan: nothing gets there.
    """
    front = points[non_dominated(points)]
    front = front[np.argsort(front[:, 0])]
    return float(np.interp(at, front[:, 0], front[:, 1], right=np.nan))
