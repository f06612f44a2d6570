"""Betting against the reference implementation's numbers, its guarantee, and the finite pool's certainty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from evalsvc.stats.betting import compute_max_log_wealth, log_capital, log_wealth, pool_interval
from tests.support import simulate

Array = NDArray[np.float64]

X = np.tile([1.0, 0, 1, 1, 0], 20)


def hedged_interval(x: Array, alpha: float = 0.05, breaks: int = 1000) -> Array:
    """Return [t, 2], the hedged confidence sequence of Waudby-Smith and Ramdas (section 4.4) on our capital.

    Its bets are predictable plug-ins: sqrt(2 log(2 / alpha) / (variance so far * t log(1 + t))), at most half of what
    could lose everything.
    """
    t = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (t + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (t + 1)
    plug_in = np.sqrt(2 * math.log(2 / alpha) / (np.append(0.25, variance[:-1]) * t * np.log1p(t)))
    grid = np.arange(breaks + 1) / breaks
    inside = np.zeros((breaks + 1, len(x)), dtype=bool)
    for row, m in enumerate(grid):
        up = log_capital(x - m, np.minimum(plug_in, 0.5 / max(m, 1e-12)))
        down = log_capital(m - x, np.minimum(plug_in, 0.5 / max(1 - m, 1e-12)))
        inside[row] = np.maximum(up, down) + math.log(0.5) <= math.log(1 / alpha)
    low = np.maximum(grid[inside.argmax(axis=0)] - 1 / breaks, 0)
    high = np.minimum(grid[breaks - inside[::-1].argmax(axis=0)] + 1 / breaks, 1)
    return np.stack([np.maximum.accumulate(low), np.minimum.accumulate(high)], axis=1)


def test_capital_of_a_constant_bet() -> None:
    assert math.exp(log_capital(X - 0.5, 0.5)[-1]) == pytest.approx(1.25**60 * 0.75**40, rel=1e-12)
    assert math.exp(log_capital(X - 0.5, 0.5)[-1]) == pytest.approx(6.562228, abs=1e-6)


def test_hedged_confidence_sequence_is_the_references() -> None:
    found = hedged_interval(X)
    for t, low, high in ((10, 0.214, 0.952), (50, 0.400, 0.802), (100, 0.449, 0.755)):
        assert found[t - 1] == pytest.approx((low, high), abs=1e-9)


def test_hedged_confidence_sequence_of_paired_differences() -> None:
    d = np.tile([0.0] * 8 + [-1, 1], 20)
    assert 2 * hedged_interval((d + 1) / 2)[199] - 1 == pytest.approx((-0.098, 0.090), abs=1e-9)


def test_wealth_reaches_one_in_alpha_no_more_often_than_alpha() -> None:
    """At the margin, looking after every single item."""
    differences = simulate.draw_population(500, 0.10, -0.05, 3000)
    found = simulate.simulate_betting(differences, 0.05, finite=False)
    assert found.passed < 0.05
    assert found.failed < 0.05
    assert simulate.simulate_betting(simulate.draw_population(500, 0.10, -0.10, 1000), 0.05, finite=False).failed > 0.9


@pytest.mark.parametrize(
    ("n", "discordance", "margin", "change", "passed", "failed", "asked"),
    [
        (100, 0.10, 0.05, 0.0, 1.0, 0.0, 0.85),
        (500, 0.10, 0.05, 0.0, 1.0, 0.0, 0.43),
        (500, 0.10, 0.05, -0.05, 0.01, 0.99, 0.99),
        (500, 0.10, 0.05, -0.10, 0.0, 1.0, 0.33),
        (2000, 0.10, 0.02, 0.0, 1.0, 0.0, 0.50),
        (2000, 0.10, 0.02, -0.08, 0.0, 1.0, 0.09),
    ],
)
def test_finite_pool_has_the_rates_and_savings_of_the_table(
    n: int, discordance: float, margin: float, change: float, passed: float, failed: float, asked: float
) -> None:
    found = simulate.simulate_betting(simulate.shuffle_pools(n, discordance, change, 600), margin, finite=True)
    assert (found.passed, found.failed) == pytest.approx((passed, failed), abs=0.02)
    assert found.asked == pytest.approx(asked, abs=0.04)


def test_a_pool_drawn_to_the_end_is_certain() -> None:
    rng = np.random.default_rng(0)
    for mean in (0.3, 0.59, 0.6, 0.61, 0.8):
        above, below = compute_max_log_wealth(rng.permutation(X), mean, 100)
        assert (above[-1] == math.inf) == (mean < 0.6)
        assert (below[-1] == math.inf) == (mean >= 0.6)
    assert pool_interval(X, 100, 0.05) == pytest.approx((0.6, 0.6))


def test_certainty_comes_as_soon_as_the_rest_cannot_change_it() -> None:
    ones_first = np.sort(X)[::-1].copy()
    wealth = log_wealth(ones_first, 0.5, 100)
    assert not np.isinf(wealth[49])
    assert wealth[50] == math.inf  # 51 ones of 100
    assert log_wealth(1 - ones_first, 0.5, 100)[50] == -math.inf


def test_pool_interval_misses_no_more_often_than_alpha_and_shrinks() -> None:
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(200):
        low, high = pool_interval(rng.permutation(X)[:40], 100, 0.05)
        missed += not low <= 0.6 <= high
    assert missed <= 0.1 * 200 + 8
    widths = [np.ptp(pool_interval(rng.permutation(X)[:count], 100, 0.05)) for count in (20, 60, 95)]
    assert widths[0] > widths[1] > widths[2]


def test_pool_interval_ends_where_the_wealth_refutes() -> None:
    rng = np.random.default_rng(4)
    for pool, count in ((50, 1), (50, 49), (500, 60), (2000, 900)):
        items = rng.choice([0.0, 0.5, 1.0], size=count, p=[0.1, 0.8, 0.1])
        low, high = pool_interval(items, pool, 0.05)
        for end, values in ((low, items), (1 - high, 1 - items)):
            drawn = values.sum() / pool
            inside, outside = (float(log_wealth(values, m, pool).max()) for m in (end + 2e-6, max(end - 2e-6, 1e-9)))
            assert inside < -math.log(0.05)
            assert outside >= -math.log(0.05) or end - drawn < 2e-6


def test_what_cannot_be_bet_on_is_refused() -> None:
    for mean, pool in ((0.0, None), (1.0, None), (0.5, 50)):
        with pytest.raises(ValueError, match="must be in"):
            log_wealth(X, mean, pool)
