"""Calibration: Brier score and expected calibration error; both are worse when larger.

Formulas and sources: docs/pages/statistics.md, section "What a mean hides".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalsvc.stats.estimates import standard_error
from evalsvc.stats.paired import LEVEL, t_interval

Floats = NDArray[np.float64]

BINS = 10


def brier(confidence: Floats, right: Floats) -> float:
    """Return the mean of (confidence - right)^2 (Brier 1950), a proper scoring rule.

    Args:
        confidence: [n] probability that the arm gives its own answer.
        right: [n], 1 if that answer is right, else 0.
    """
    return float(((confidence - right) ** 2).mean())


def expected_calibration_error(confidence: Floats, right: Floats, bins: int = BINS) -> float:
    """Return sum over equal-width bins of (n_b / n) |accuracy_b - confidence_b| (Naeini et al. 2015).

    Depends on the bins, and is biased upward for bins with few items. Bins are (a, b], the first one [0, b].
    """
    member = np.minimum(np.maximum(np.ceil(confidence * bins).astype(np.int64), 1), bins) - 1
    gaps = np.bincount(member, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationDrift:
    """Brier score and expected calibration error of two arms on the same items; a positive drift is worse.

    Attributes:
        brier_low, brier_high: Interval of the Brier drift, paired t; the drift of the calibration error has none.
    """

    brier_base: float
    brier_adapted: float
    brier_drift: float
    brier_low: float | None
    brier_high: float | None
    ece_base: float
    ece_adapted: float
    ece_drift: float


def calibration_drift(
    base: tuple[Floats, Floats], adapted: tuple[Floats, Floats], level: float = LEVEL
) -> CalibrationDrift:
    """Compare the calibration of two arms.

    Args:
        base, adapted: (confidence [n], right [n]), in the same order of items.
    """
    squares = [(confidence - right) ** 2 for confidence, right in (base, adapted)]
    difference = squares[1] - squares[0]
    center, stderr = float(difference.mean()), standard_error(difference)
    low, high = (None, None) if math.isnan(stderr) else t_interval(center, stderr, len(difference) - 1, level)
    levels = [float(square.mean()) for square in squares]
    errors = [expected_calibration_error(*arm) for arm in (base, adapted)]
    return CalibrationDrift(
        brier_base=levels[0],
        brier_adapted=levels[1],
        brier_drift=center,
        brier_low=low,
        brier_high=high,
        ece_base=errors[0],
        ece_adapted=errors[1],
        ece_drift=errors[1] - errors[0],
    )
