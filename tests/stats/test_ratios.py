"""The ratio of two means over the same units."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evalsvc.stats.margins import z_of
from evalsvc.stats.paired import tango_z
from evalsvc.stats.ratios import PairedValues, count_fewest_units, ratio_bounds, ratio_z
from evalsvc.stats.unit_means import t_quantile
from tests.support.collapse import SHAPES, draw_values, find_collapse

Z = z_of(0.05)


def test_with_a_base_of_ones_it_is_the_score_test_of_a_share() -> None:
    """A prompt that is kept has x / r = (1 - r) / r, one that is lost -1: z is that of a binomial share r."""
    values = PairedValues(np.ones(60), np.repeat([1.0, 0.0], [54, 6]))
    for share in (0.5, 0.7, 0.8, 0.89):
        expected = (0.9 - share) / np.sqrt(share * (1 - share) / 60)
        assert t_quantile(np.abs([ratio_z(values, share)]), 59)[0] == pytest.approx(expected, rel=1e-6)


def test_a_ratio_of_one_is_tangos_test_of_no_difference() -> None:
    base, adapted = np.repeat([1.0, 1.0, 0.0, 0.0], [20, 7, 2, 11]), np.repeat([1.0, 0.0, 1.0, 0.0], [20, 7, 2, 11])
    z = t_quantile(np.abs([ratio_z(PairedValues(base, adapted), 1.0)]), 39)[0]
    assert -z == pytest.approx(float(tango_z(0.0, 7, 2, 40)), rel=1e-6)


def test_bounds_are_where_the_test_reaches_the_quantile() -> None:
    for seed, name in enumerate(SHAPES):
        values = draw_values(name, 0.2, 30, seed)
        low, high = (float(end[0]) for end in ratio_bounds(values, np.array([Z])))
        assert low < values.ratio < high
        assert (ratio_z(values, low), ratio_z(values, high)) == pytest.approx((Z, -Z), abs=1e-6)


def test_many_units_have_fiellers_interval() -> None:
    values = draw_values("distinct bigrams", 0.3, 4000, 1)
    a, b, n = values.adapted, values.base, 4000
    (var_a, cov), (_, var_b) = np.cov(a, b) / n
    t = stats.t.ppf(0.95, n - 1)
    # (mean a - r mean b)^2 = t^2 (var a - 2 r cov + r^2 var b), a quadratic in r.
    roots = np.roots(
        [b.mean() ** 2 - t**2 * var_b, -2 * (a.mean() * b.mean() - t**2 * cov), a.mean() ** 2 - t**2 * var_a]
    )
    low, high = (float(end[0]) for end in ratio_bounds(values, np.array([Z])))
    assert (low, high) == pytest.approx(sorted(roots), abs=1e-3)


@pytest.mark.parametrize("least", [0.5, 0.8, 0.95, 0.99])
def test_the_fewest_units_of_an_unchanged_arm_are_those_whose_bound_reaches_the_threshold(least: float) -> None:
    n = count_fewest_units(least, Z)
    above, below = (ratio_bounds(PairedValues(np.ones(k), np.ones(k)), np.array([Z]))[0][0] for k in (n, n - 1))
    assert below < least <= above + 1e-9


def test_an_arm_that_kept_nothing_has_bounds_from_zero() -> None:
    values = PairedValues(np.ones(24), np.zeros(24))
    low, high = (float(end[0]) for end in ratio_bounds(values, np.array([Z])))
    assert (low, values.ratio) == (0.0, 0.0)
    assert 0 < high < 0.2


@pytest.mark.parametrize("name", SHAPES)
def test_at_the_margin_it_passes_no_more_often_than_alpha(name: str) -> None:
    runs, collapse = 300, find_collapse(name, 0.8)
    passes = sum(ratio_z(draw_values(name, collapse, 24, seed), 0.8) >= Z for seed in range(runs))
    assert passes / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
