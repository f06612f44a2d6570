"""Group-sequential bounds against printed constants, and error rates by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evalsvc.stats.sequential import crossing_probability, spend_alpha, spending_bounds
from tests.support import simulate


@pytest.mark.parametrize(
    ("alpha", "looks", "constant"),
    [(0.025, 2, 1.9774), (0.025, 3, 2.0040), (0.025, 4, 2.0243), (0.025, 5, 2.0401), (0.05, 5, 1.7509)],
)
def test_obrien_fleming_constants_cross_with_probability_alpha(alpha: float, looks: int, constant: float) -> None:
    """Jennison and Turnbull's table: bounds C sqrt(K / k)."""
    fractions = [k / looks for k in range(1, looks + 1)]
    found = crossing_probability(fractions, [constant / f**0.5 for f in fractions])
    assert found == pytest.approx(alpha, abs=5e-6)


def test_spending_bounds_are_the_published_ones() -> None:
    """Five equal looks at one-sided 0.025, as printed by Lan and DeMets' own program."""
    found = spending_bounds((0.2, 0.4, 0.6, 0.8, 1.0), 0.025)
    assert found == pytest.approx((4.8769, 3.3569, 2.6803, 2.2898, 2.0310), abs=2e-4)


@pytest.mark.parametrize("fractions", [(1.0,), (0.5, 1.0), (0.1, 0.11, 0.5, 0.93, 1.0)])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_alpha_is_spent_exactly_whenever_one_looks(fractions: tuple[float, ...], alpha: float) -> None:
    bounds = spending_bounds(fractions, alpha)
    assert crossing_probability(fractions, bounds) == pytest.approx(alpha, rel=1e-4)
    for count in range(1, len(fractions)):
        so_far = crossing_probability(fractions[:count], bounds[:count])
        assert so_far == pytest.approx(spend_alpha(fractions[count - 1], alpha), rel=1e-3, abs=1e-12)


def test_one_look_at_the_end_is_the_fixed_test() -> None:
    assert spending_bounds((1.0,), 0.05)[0] == pytest.approx(stats.norm.ppf(0.95), abs=1e-9)


def test_crossing_agrees_with_simulated_paths() -> None:
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(40_000, 5)) / np.sqrt(5) + 2.0 / 5
    z = np.cumsum(steps, axis=1) / np.sqrt(simulate.LOOKS)
    bounds = spending_bounds(simulate.LOOKS, 0.05)
    assert crossing_probability(simulate.LOOKS, bounds, drift=2.0) == pytest.approx(
        float((z >= bounds).any(axis=1).mean()), abs=0.01
    )


@pytest.mark.parametrize("fractions", [(), (0.5, 0.5), (0.6, 0.4), (0.5, 1.1), (0.0, 1.0)])
def test_looks_out_of_order_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must increase"):
        spending_bounds(fractions, 0.05)


@pytest.mark.parametrize(
    ("n", "discordance", "margin", "change", "passed", "failed", "asked"),
    [
        (500, 0.10, 0.05, 0.0, 0.96, 0.0, 0.66),
        (500, 0.10, 0.05, -0.05, 0.047, 0.046, 0.98),
        (500, 0.10, 0.05, -0.10, 0.0, 0.996, 0.50),
        (2000, 0.10, 0.02, 0.0, 0.86, 0.0, 0.74),
        (2000, 0.10, 0.02, -0.02, 0.05, 0.055, 0.98),
        (2000, 0.10, 0.02, -0.08, 0.0, 1.0, 0.28),
    ],
)
def test_rates_and_savings_are_those_of_the_table(
    n: int, discordance: float, margin: float, change: float, passed: float, failed: float, asked: float
) -> None:
    constants = tuple(1.7509 / f**0.5 for f in simulate.LOOKS)
    draws = [simulate.draw_population(n, discordance, change, 2000, seed) for seed in range(5)]
    classical, spending = (
        simulate.Rates(*np.mean([simulate.simulate_looks(draw, margin, bounds) for draw in draws], axis=0))
        for bounds in (constants, spending_bounds(simulate.LOOKS, simulate.ALPHA))
    )
    for found in (classical, spending):  # a point, and half a point of rounding in the table
        assert found.passed == pytest.approx(passed, abs=0.015)
        assert found.failed == pytest.approx(failed, abs=0.015)
    assert classical.asked == pytest.approx(asked, abs=0.015)
    assert spending.asked <= asked + 0.08  # the spending bounds ask for more at the first look, and less at the last
