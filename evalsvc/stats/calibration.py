"""How far stated confidence is from being right. Both measures are worse when larger."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 10


def brier(confidence: Floats, right: Floats) -> float:
    """Return the mean of (confidence - right)^2 (Brier 1950): proper, so preferred.

    Args:
        confidence: [n] probability that the arm gives its own answer.
        right: [n] whether that answer is right, 0 or 1.
    """
    return float(((confidence - right) ** 2).mean())


def expected_calibration_error(confidence: Floats, right: Floats, bins: int = BINS) -> float:
    """Return sum over equal-width bins of (n_b / n) |accuracy_b - confidence_b| (Naeini et al. 2015).

    Depends on the bins, and is biased upward where they hold few items. Bins are (a, b], the first one [0, b].
    """
    member = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(member, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
