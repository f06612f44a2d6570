"""What a number of items can resolve, against published tables and against the tests' own bounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evalsvc.stats.margins import PairedDifference, margin_test, z_of
from evalsvc.stats.paired import tango_z
from evalsvc.stats.power import (
    PartUnits,
    UnchangedMean,
    expected_discordance,
    paired_detectable,
    paired_error,
    paired_needed_n,
    smallest_passing_n,
)
from evalsvc.stats.unit_means import UnitSums

Z = 1.6448536269514722


def one_task(n: int, discordance: float) -> UnchangedMean:
    return UnchangedMean(shares=(1.0,), units=(PartUnits(n),), variances=(discordance / n,), z_alpha=Z)


@pytest.mark.parametrize(
    ("discordance", "margin", "at_80", "at_90"),
    [
        *((0.05, 0.01, 3092, 4282), (0.05, 0.02, 773, 1071), (0.05, 0.03, 344, 476), (0.05, 0.05, 124, 172)),
        *((0.10, 0.01, 6183, 8564), (0.10, 0.02, 1546, 2141), (0.10, 0.03, 687, 952), (0.10, 0.05, 248, 343)),
        *((0.15, 0.01, 9274, 12846), (0.15, 0.02, 2319, 3212), (0.15, 0.03, 1031, 1428), (0.15, 0.05, 371, 514)),
    ],
)
def test_needed_items_at_no_change(discordance: float, margin: float, at_80: int, at_90: int) -> None:
    for n in (100, 5000):  # whatever the items that there are
        assert one_task(n, discordance).needed_n(margin) == pytest.approx(at_80, abs=1)
        assert one_task(n, discordance).needed_n(margin, power=0.9) == pytest.approx(at_90, abs=1)
    assert one_task(at_80, discordance).power(margin) == pytest.approx(0.8, abs=0.002)
    assert one_task(at_80, discordance).resolvable_margin() == pytest.approx(margin, rel=0.005)


@pytest.mark.parametrize(
    ("n", "points"), [(164, 6.1), (817, 2.8), (1172, 2.3), (1267, 2.2), (1319, 2.2), (10042, 0.8), (14042, 0.7)]
)
def test_margin_that_a_suite_resolves(n: int, points: float) -> None:
    assert 100 * one_task(n, 0.1).resolvable_margin() == pytest.approx(points, abs=0.06)


@pytest.mark.parametrize(("margin", "n"), [(0.01, 268), (0.02, 133), (0.03, 88), (0.05, 52)])
def test_fewest_items_that_can_pass(margin: float, n: int) -> None:
    assert smallest_passing_n(margin, Z) == n
    assert float(tango_z(-margin, 0, 0, n)) >= Z
    assert float(tango_z(-margin, 0, 0, n - 1)) < Z
    # Too few items show nothing, however rarely one changes: no margin below, no power, and never fewer items.
    few = one_task(n - 1, 0.0)
    assert few.resolvable_margin() >= margin
    assert few.power(margin) == 0.0
    assert few.power(margin, factor=n / (n - 1)) == 1.0
    assert few.needed_n(margin) == n
    assert one_task(4 * n, 0.0).needed_n(margin) == n


@pytest.mark.parametrize("sizes", [(40, 40), (30, 90, 15)])
def test_a_mean_over_tasks_needs_what_its_own_test_needs(sizes: tuple[int, ...]) -> None:
    shares = tuple(1 / len(sizes) for _ in sizes)

    def passes(total: int) -> bool:
        tasks = [
            PairedDifference(n=-(-size * total // sum(sizes)), difference=0.0, stderr=0.0, counts=(0, 0))
            for size in sizes
        ]
        return margin_test(tasks, shares, -0.03, Z).low > -0.03

    needed = smallest_passing_n(0.03, Z, tuple(map(PartUnits, sizes)), shares)
    assert passes(needed)
    assert not passes(needed - 2 * len(sizes))


def test_the_power_is_how_often_an_unchanged_checkpoint_passes() -> None:
    """By simulation: 400 items, one in ten of which changes, either way with the same chance."""
    rng = np.random.default_rng(7)
    flips = rng.multinomial(400, [0.05, 0.05, 0.9], size=4000)
    passed = np.mean([float(tango_z(-0.04, lost, gained, 400)) >= Z for lost, gained, _ in flips])
    assert one_task(400, 0.1).power(0.04) == pytest.approx(passed, abs=0.02)


@pytest.mark.parametrize(("margin", "each"), [(0.2, 1), (0.2, 5), (0.05, 4)])
def test_clusters_need_what_their_own_test_needs(margin: float, each: int) -> None:
    def passes(count: int) -> bool:
        units = UnitSums(np.zeros((1, count)), np.ones(count))
        part = PairedDifference(n=count, difference=0.0, stderr=0.0, df=count - 1, units=units)
        return margin_test([part], [1.0], -margin, Z).low > -margin

    fewest = next(count for count in range(2, 200) if passes(count))
    unchanged = UnchangedMean(shares=(1.0,), units=(PartUnits(each, is_items=False),), variances=(0.0,), z_alpha=Z)
    assert unchanged.needed_n(margin) == fewest
    assert unchanged.power(margin, factor=fewest / each) == 1.0
    assert unchanged.power(margin, factor=(fewest - 1) / each) == 0.0


def test_the_power_of_clusters_is_how_often_an_unchanged_checkpoint_passes() -> None:
    """By simulation: 20 clusters, whose gains are normal with standard deviation .1."""
    rng = np.random.default_rng(3)
    t = float(stats.t.ppf(0.95, 19))
    gains = rng.normal(0, 0.1, (20000, 20))
    passed = np.mean(gains.mean(axis=1) - t * gains.std(axis=1, ddof=1) / 20**0.5 > -0.06)
    unchanged = UnchangedMean(
        shares=(1.0,), units=(PartUnits(20, is_items=False),), variances=(0.01 / 20,), z_alpha=Z, is_bounded=False
    )
    assert unchanged.power(0.06) == pytest.approx(passed, abs=0.02)
    needed = unchanged.needed_n(0.06)
    assert unchanged.power(0.06, factor=needed / 20) == pytest.approx(0.8, abs=0.02)


def test_perplexities_know_no_bound_and_expectations_no_certainty() -> None:
    free = UnchangedMean(shares=(1.0,), units=(PartUnits(4),), variances=(1e-8,), z_alpha=z_of(0.05), is_bounded=False)
    assert free.resolvable_margin() == pytest.approx(2.4865e-4, rel=1e-4)
    assert free.needed_n(0.05) == 1
    assert expected_discordance(0.0, 99) == 0.01
    assert expected_discordance(0.2, 99) == 0.2


def test_millers_sample_size_and_detectable_difference() -> None:
    assert paired_needed_n(0.03, between=1 / 9) == pytest.approx(968.9975, abs=1e-3)
    within = (1 / 6, 1 / 6)
    assert paired_detectable(198, 1 / 9, within) == pytest.approx(0.13273, abs=1e-5)
    assert paired_detectable(198, 1 / 9, within, (10, 10)) == pytest.approx(0.07567, abs=1e-5)


def test_millers_paired_errors() -> None:
    assert paired_error(0.7, 0.7, 0.5) == pytest.approx(0.70)
    assert paired_error(1.6, 1.5, 0.37) == pytest.approx(1.742, abs=1e-3)
