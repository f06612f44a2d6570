"""Least squares against statsmodels; the interval of R2 by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from evalsvc.stats.regression import line


def test_it_is_statsmodels() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(12)
    y = 0.3 + 0.5 * x + rng.normal(0, 0.1, 12)
    expected = sm.OLS(y, sm.add_constant(x)).fit()
    found = line(x, y)
    assert (found.intercept, found.slope) == pytest.approx(tuple(expected.params), rel=1e-10)
    assert (found.slope_low, found.slope_high) == pytest.approx(tuple(expected.conf_int(0.10)[1]), rel=1e-9)
    assert found.p_value == pytest.approx(float(expected.pvalues[1]), rel=1e-9)
    assert found.r2 == pytest.approx(float(expected.rsquared), rel=1e-10)
    assert found.r2_low < found.r2 < found.r2_high


def test_the_interval_of_r2_covers_at_its_level() -> None:
    rng = np.random.default_rng(1)
    rho = 0.8
    covered = 0
    for _ in range(1000):
        x = rng.normal(size=15)
        found = line(x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=15))
        covered += found.r2_low <= rho**2 <= found.r2_high
    assert covered / 1000 == pytest.approx(0.90, abs=0.03)


@pytest.mark.parametrize(
    ("x", "y"), [([1.0, 2, 3], [1.0, 2, 3]), ([1.0] * 5, [1.0, 2, 3, 4, 5]), ([1.0, 2, 3, 4], [1.0] * 4)]
)
def test_too_few_or_equal_points_are_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="must have at least 4, with different values"):
        line(np.array(x), np.array(y))


def test_a_perfect_line() -> None:
    x = np.arange(6.0)
    found = line(x, 2 * x)
    assert [found.slope, found.r2, found.p_value] == pytest.approx([2, 1, 0], abs=1e-12)
