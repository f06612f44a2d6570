"""Closed-form confidence sequences of the literature, held to their published values, and betting held to them.

The product only bets. What else has the same guarantee is written down here, as an independent judge of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, special, stats

from evalsvc.stats.betting import compute_max_log_wealth

Array = NDArray[np.float64]


def best_rho(v: float, alpha: float) -> float:
    """Return the tuning of a two-sided normal mixture that is tightest at intrinsic time v (Howard et al. 2021)."""
    return v / (2 * math.log(1 / alpha) + math.log1p(2 * math.log(1 / alpha)))


def normal_mixture(v: float, v_opt: float, alpha: float) -> float:
    """Return the two-sided bound on a 1-sub-Gaussian sum at intrinsic time v (Howard et al. 2021, equation 14)."""
    rho = best_rho(v_opt, alpha)
    return math.sqrt((v + rho) * math.log((v + rho) / (rho * alpha**2)))


def one_sided_normal_mixture(v: float, v_opt: float, alpha: float) -> float:
    """Return the one-sided bound (Howard et al. 2021, proposition 6)."""
    rho = best_rho(v_opt, 2 * alpha)

    def log_martingale(s: float) -> float:
        normal = float(stats.norm.logcdf(s / math.sqrt(v + rho)))
        return 0.5 * math.log(4 * rho / (v + rho)) + s * s / (2 * (v + rho)) + normal

    return root(lambda s: log_martingale(s) - math.log(1 / alpha), 0, 10 * math.sqrt(v + rho))


def beta_binomial(s: float, v: float, v_opt: float, g: float, h: float, *, one_sided: bool = False) -> float:
    """Return the log of the beta-binomial mixture martingale, increments in {-g, h} (Howard et al. 2021, section 3)."""
    rho = max(best_rho(v_opt, 0.1 if one_sided else 0.05) - g * h, 1e-3 * g * h)
    upto = h / (g + h) if one_sided else 1.0

    def log_beta(a: float, b: float) -> float:
        return float(special.betaln(a, b) + np.log(special.betainc(a, b, upto)))

    return (
        v / (g * h) * math.log(g + h)
        - (v + h * s) / (h * (g + h)) * math.log(g)
        - (v - g * s) / (g * (g + h)) * math.log(h)
        + log_beta((rho + v - g * s) / (g * (g + h)), (rho + v + h * s) / (h * (g + h)))
        - log_beta(rho / (g * (g + h)), rho / (h * (g + h)))
    )


def rate_interval(successes: int, trials: int, t_opt: float, alpha: float = 0.05) -> tuple[float, float]:
    """Return bounds of a rate that hold after every trial at once."""

    def excess(p: float) -> float:
        v = p * (1 - p)
        return beta_binomial(successes - trials * p, trials * v, t_opt * v, p, 1 - p) - math.log(1 / alpha)

    ends = []
    for end in (1e-9, 1 - 1e-9):
        ends.append(root(excess, end, successes / trials) if excess(end) > 0 else round(end))
    return ends[0], ends[1]


def bernstein_lower(x: Array, alpha: float) -> Array:
    """Return the predictable plug-in empirical Bernstein bound (Waudby-Smith and Ramdas 2024, theorem 2)."""
    t = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (t + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (t + 1)
    bets = np.sqrt(2 * math.log(1 / alpha) / (np.append(0.25, variance[:-1]) * t * np.log1p(t)))
    bets = np.minimum(bets, 0.5)
    guess = np.append(0, (np.cumsum(x) / t)[:-1])
    spent = math.log(1 / alpha) + np.cumsum((x - guess) ** 2 * (-np.log1p(-bets) - bets))
    return np.asarray(np.maximum.accumulate((np.cumsum(bets * x) - spent) / np.cumsum(bets)))


def root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.brentq(function, low, high))


def betting_interval(x: Array, alpha: float = 0.05) -> tuple[float, float]:
    """Return the means that betting has not refuted, on either side with alpha / 2."""
    limit = math.log(2 / alpha)
    grid = np.linspace(0.01, 0.99, 197)
    refuted = [[side[-1] >= limit for side in compute_max_log_wealth(x, float(mean))] for mean in grid]
    low = max((m for m, (above, _) in zip(grid, refuted, strict=True) if above), default=0.0)
    high = min((m for m, (_, below) in zip(grid, refuted, strict=True) if below), default=1.0)
    return low, high


def test_normal_mixtures_are_the_references() -> None:
    assert best_rho(100, 0.05) == pytest.approx(12.60056, abs=1e-5)
    assert normal_mixture(100, 100, 0.05) == pytest.approx(30.35209, abs=1e-5)
    assert one_sided_normal_mixture(100, 100, 0.05) == pytest.approx(27.66071, abs=1e-5)


@pytest.mark.parametrize(("one_sided", "bound"), [(False, 31.4308), (True, 28.41238)])
def test_beta_binomial_mixtures_are_the_references(one_sided: bool, bound: float) -> None:
    found = root(lambda s: beta_binomial(s, 100, 100, 0.2, 0.8, one_sided=one_sided) - math.log(20), 0, 300)
    assert found == pytest.approx(bound, abs=1e-5)


@pytest.mark.parametrize(
    ("successes", "trials", "t_opt", "low", "high"),
    [(700, 1000, 100, 0.651629, 0.745949), (15, 50, 50, 0.129556, 0.511896), (1, 2, 50, 0, 1)],
)
def test_intervals_of_a_rate_are_the_references(
    successes: int, trials: int, t_opt: float, low: float, high: float
) -> None:
    assert rate_interval(successes, trials, t_opt) == pytest.approx((low, high), abs=1e-5)


def test_empirical_bernstein_is_the_references() -> None:
    x = np.tile([1.0, 0, 1, 1, 0], 20)
    low, high = bernstein_lower(x, 0.025), 1 - bernstein_lower(1 - x, 0.025)
    assert (low[49], high[49]) == pytest.approx((0.349090, 0.851499), abs=1e-5)
    assert (low[99], high[99]) == pytest.approx((0.427337, 0.772363), abs=1e-5)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_betting_is_as_tight_as_the_closed_forms(rate: float) -> None:
    """On the same coin tosses: no wider than empirical Bernstein, little wider than what is made for coins."""
    x = (np.random.default_rng(5).random(800) < rate).astype(float)
    low, high = betting_interval(x)
    made_for_coins = rate_interval(int(x.sum()), len(x), 400)
    bernstein = float(1 - bernstein_lower(1 - x, 0.025)[-1] - bernstein_lower(x, 0.025)[-1])
    assert low < x.mean() < high
    assert high - low <= bernstein + 0.01
    assert high - low <= 1.2 * (made_for_coins[1] - made_for_coins[0]) + 0.01
