"""Non-dominated points and hypervolume in two dimensions; on both axes more is better."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def non_dominated(points: Floats) -> Bools:
    """Return which points no other point equals or beats on both axes while beating it on one.

    Args:
        points: [..., arms, 2]; leading axes are independent sets.

    Returns:
        [..., arms].
    """
    x, y = points[..., 0], points[..., 1]
    at_least = (x[..., :, None] >= x[..., None, :]) & (y[..., :, None] >= y[..., None, :])
    better = (x[..., :, None] > x[..., None, :]) | (y[..., :, None] > y[..., None, :])
    return np.asarray(~(at_least & better).any(axis=-2))


def hypervolume(points: Floats, reference: tuple[float, float]) -> float:
    """Return the area that `points` [arms, 2] dominate above `reference`; points below it on an axis add nothing."""
    area, best = 0.0, reference[1]
    for x, y in sorted(points.tolist(), key=lambda p: -p[0]):
        if x > reference[0] and y > best:
            area += (x - reference[0]) * (y - best)
            best = y
    return area
