"""Brier score and expected calibration error."""

from __future__ import annotations

import numpy as np
import pytest

from evalsvc.stats.calibration import brier, expected_calibration_error

CONFIDENCE = np.array([0.95, 0.85, 0.65, 0.55, 0.35])
RIGHT = np.array([1.0, 1, 0, 1, 0])


def test_published_values() -> None:
    assert brier(CONFIDENCE, RIGHT) == pytest.approx(0.1545, abs=1e-12)
    assert expected_calibration_error(CONFIDENCE, RIGHT) == pytest.approx(0.3300, abs=1e-12)


def test_a_calibrated_arm_has_next_to_no_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    assert expected_calibration_error(confidence, (rng.random(100_000) < confidence).astype(float)) < 0.01


def test_the_ends_of_the_scale_fall_into_bins() -> None:
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.0
