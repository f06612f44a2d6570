"""Welch's t against scipy, and its error rate over seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evalsvc.stats.groups import welch


def test_it_is_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.2, 0.05, 3), rng.normal(0.1, 0.01, 5)
    expected = stats.ttest_ind(first, second, equal_var=False)
    interval = expected.confidence_interval(0.90)
    found = welch(first, second)
    assert (found.p_value, found.df) == pytest.approx((expected.pvalue, expected.df), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_three_seeds_of_equal_methods_seldom_decide_anything() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(2000):
        found = welch(rng.normal(0.2, 0.03, 3), rng.normal(0.2, 0.03, 3))
        wrong += found.low > 0 or found.high < 0
    assert wrong / 2000 <= 0.11


def test_groups_without_spread() -> None:
    with pytest.raises(ValueError, match="must have at least 2 each"):
        welch(np.array([1.0]), np.array([1.0, 2.0]))
    rng = np.random.default_rng(2)
    for groups in ((np.ones(3), np.ones(3)), (np.full(3, 0.1) + 1e-17, np.zeros(3)), (np.ones(3), rng.random(3))):
        with pytest.raises(ValueError, match="all 3 runs of a group have the value"):
            welch(*groups)
