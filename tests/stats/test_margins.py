"""Verdicts of examples by hand, the bounds of weighted means, and error rates by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from evalsvc.stats.margins import (
    Ends,
    PairedDifference,
    bound_ratio,
    bound_sum,
    bounds,
    combine_bounds,
    margin_test,
    z_of,
)
from evalsvc.stats.paired import tango_z
from evalsvc.stats.unit_means import UnitSums
from tests.support.margins import at_a_margin

Z = z_of(0.05)


def binary(lost: int, gained: int, n: int) -> PairedDifference:
    d = (gained - lost) / n
    return PairedDifference(n, d, math.sqrt(((lost + gained) / n - d * d) / (n - 1)), (lost, gained), n - 1)


@at_a_margin
def test_one_binary_task_is_tested_by_tango(
    lost: int, gained: int, n: int, margin: float, z: float, low: float, high: float
) -> None:
    found = margin_test([binary(lost, gained, n)], [1.0], -margin, Z)
    assert found.z == pytest.approx(z, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)
    assert (found.p_above, found.p_below) == pytest.approx((stats.norm.sf(z), stats.norm.cdf(z)), abs=1e-4)
    assert (found.z >= Z) == (found.low > -margin)
    # A second task without a share changes nothing: the grid of weighted means agrees with the statistic itself.
    again = margin_test([binary(lost, gained, n), binary(5, 5, 50)], [1.0, 0.0], -margin, Z)
    assert again.z == pytest.approx(found.z, abs=2e-3)


def test_values_without_limits_are_tested_by_paired_t() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(0.01, 0.2, size=400)
    task = PairedDifference(400, float(d.mean()), float(d.std(ddof=1) / 20), None, 399)
    found = margin_test([task], [1.0], -0.02, Z)
    expected = stats.ttest_1samp(d, -0.02, alternative="greater")
    assert found.p_above == pytest.approx(expected.pvalue, abs=1e-4)
    assert found.low == pytest.approx(d.mean() - stats.t.ppf(0.95, 399) * d.std(ddof=1) / 20, abs=1e-9)


def test_items_that_all_stayed_the_same_still_leave_doubt() -> None:
    """No change in ten items is not proof: it says little about the next thousand."""
    several = margin_test([binary(0, 0, 10)] * 3, [1 / 3] * 3, -0.02, Z)
    assert several.z < Z


def test_weighted_means_follow_the_normal_approximation_when_there_is_much_data() -> None:
    tasks = [binary(300, 280, 6000), binary(150, 170, 3000)]
    shares = [0.25, 0.75]
    found = margin_test(tasks, shares, -0.01, Z)
    error = math.sqrt(sum((w * t.stderr) ** 2 for w, t in zip(shares, tasks, strict=True)))
    assert found.difference == pytest.approx(sum(w * t.difference for w, t in zip(shares, tasks, strict=True)))
    assert (found.low, found.high) == pytest.approx(
        (found.difference - Z * error, found.difference + Z * error), abs=2e-4
    )


@pytest.mark.parametrize("change", [-0.03, 0.0])
def test_a_weighted_mean_passes_at_the_margin_no_more_often_than_alpha(change: float) -> None:
    """Three tasks of unequal size and weight, the mean exactly at the margin."""
    rng = np.random.default_rng(2)
    sizes, shares = [120, 300, 80], np.array([0.4, 0.4, 0.2])
    runs, margin = 4000, -change
    d, low, high = [], [], []
    for n in sizes:
        lost, gained, _ = rng.multinomial(n, [0.06 - change / 2, 0.06 + change / 2, 0.88], size=runs).T
        from evalsvc.stats.paired import tango_bounds

        a, b = tango_bounds(lost, gained, n, Z)
        d.append((gained - lost) / n)
        low.append(a)
        high.append(b)
    lower, upper = combine_bounds(shares, np.stack(d, -1), np.stack(low, -1), np.stack(high, -1))
    assert float((lower > -margin).mean()) == pytest.approx(0.05, abs=0.015)
    assert float((upper < -margin).mean()) == pytest.approx(0.05, abs=0.015)


def test_bounds_widen_with_z() -> None:
    low, high = bounds([binary(5, 3, 90), PairedDifference(50, 0.1, 0.05, None, 49)], np.linspace(0, 8, 40))
    assert low.shape == (40, 2)
    assert (np.diff(low, axis=0) <= 1e-9).all()
    assert (np.diff(high, axis=0) >= -1e-9).all()


@pytest.mark.parametrize("tasks", [[], [PairedDifference(1, 0.0, math.nan)]])
def test_nothing_to_test_is_refused(tasks: list[PairedDifference]) -> None:
    with pytest.raises(ValueError, match="must have"):
        margin_test(tasks, [1.0] * len(tasks), -0.02, Z)


@pytest.mark.parametrize(
    ("n", "discordance", "margin", "change", "passed", "failed"),
    [
        (100, 0.05, 0.05, 0.0, 0.59, 0.0),
        (100, 0.05, 0.05, -0.05, 0.037, 0.062),
        (100, 0.10, 0.05, 0.0, 0.44, 0.001),
        (100, 0.10, 0.05, -0.05, 0.045, 0.058),
        (100, 0.10, 0.05, -0.10, 0.0, 0.68),
        (100, 0.10, 0.02, -0.02, 0.047, 0.054),
        (500, 0.10, 0.05, 0.0, 0.96, 0.0),
        (500, 0.10, 0.05, -0.05, 0.050, 0.051),
        (500, 0.10, 0.05, -0.10, 0.0, 0.995),
        (500, 0.10, 0.02, 0.0, 0.40, 0.001),
        (500, 0.15, 0.05, 0.0, 0.88, 0.0),
        (2000, 0.05, 0.02, 0.0, 0.99, 0.0),
        (2000, 0.10, 0.02, 0.0, 0.88, 0.0),
        (2000, 0.10, 0.02, -0.02, 0.048, 0.048),
        (2000, 0.10, 0.02, -0.04, 0.0, 0.89),
        (2000, 0.15, 0.02, 0.0, 0.74, 0.0),
    ],
)
def test_fixed_gate_has_the_rates_of_the_table(
    n: int, discordance: float, margin: float, change: float, passed: float, failed: float
) -> None:
    """Exact rates, summed over all counts that are not negligible, within a point of a simulation's."""
    lost_rate, gained_rate = (discordance - change) / 2, (discordance + change) / 2
    lost, gained = (
        np.arange(stats.binom.ppf(1e-12, n, rate), stats.binom.isf(1e-12, n, rate) + 1)
        for rate in (lost_rate, gained_rate)
    )
    grid = np.stack(np.meshgrid(lost, gained, indexing="ij"), axis=-1)
    chance = stats.multinomial.pmf(
        np.concatenate([grid, n - grid.sum(axis=-1, keepdims=True)], axis=-1),
        n,
        [lost_rate, gained_rate, 1 - discordance],
    )
    z = tango_z(-margin, grid[..., 0], grid[..., 1], n)
    assert chance.sum() == pytest.approx(1, abs=1e-6)
    assert chance[z >= Z].sum() == pytest.approx(passed, abs=0.01)
    assert chance[z <= -Z].sum() == pytest.approx(failed, abs=0.01)
    if change == -margin:
        assert chance[z >= Z].sum() <= 0.0505  # Tango's false passes: 3.5 to 5.2 % over these cases


def test_a_mean_of_tasks_has_the_statistic_at_which_its_bound_reaches_the_threshold() -> None:
    rng = np.random.default_rng(0)
    tasks = [
        PairedDifference(n, float(row.mean()), 0.0, units=UnitSums(row[None], np.ones(n)))
        for n in (80, 120)
        for row in (rng.uniform(-0.3, 0.32, n),)
    ]
    for threshold in (-0.06, -0.02, 0.05):
        found = margin_test(tasks, [0.5, 0.5], threshold, Z)
        low, high = bound_sum(tasks, [0.5, 0.5], abs(found.z))
        assert (low if found.z > 0 else high) == pytest.approx(threshold, abs=1e-4)


@pytest.mark.parametrize("top", [(0.05, 0.01, 0.12), (0.05, -0.03, 0.12), (-0.05, -0.12, -0.01), (-0.02, -0.07, 0.04)])
@pytest.mark.parametrize("bottom", [(0.3, 0.2, 0.42), (0.05, 0.001, 0.15)])
def test_the_ends_of_a_ratio_are_where_movers_contrast_reaches_zero(
    top: tuple[float, float, float], bottom: tuple[float, float, float]
) -> None:
    def end(rate: float, *, is_lower: bool) -> float:
        """An end of top - rate * bottom, by MOVER."""
        value = top[0] - rate * bottom[0]
        up, down = top[2] - top[0], top[0] - top[1]
        longer, shorter = bottom[2] - bottom[0], bottom[0] - bottom[1]
        if is_lower:
            return value - math.hypot(down, rate * (longer if rate > 0 else shorter))
        return value + math.hypot(up, rate * (shorter if rate > 0 else longer))

    ends = (Ends(*(np.array([number]) for number in values)) for values in (top, bottom))
    (low,), (high,) = bound_ratio(*ends)
    ratio = top[0] / bottom[0]
    assert low < ratio < high
    assert low == pytest.approx(optimize.brentq(lambda r: end(r, is_lower=True), ratio - 1e4, ratio), rel=1e-6)
    assert high == pytest.approx(optimize.brentq(lambda r: end(r, is_lower=False), ratio, ratio + 1e4), rel=1e-6)
