"""Tango's interval and the paired t against published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference

from evalsvc.stats.paired import (
    mcnemar,
    t_interval,
    t_test,
    tango_bounds,
    tango_interval,
    tango_z,
    transition_error,
    transitions,
)
from tests.support.margins import at_a_margin


@pytest.mark.parametrize(
    ("table", "level", "low", "high"),
    [
        ((4, 9, 3, 16), 0.95, -0.0271, 0.3897),  # printed -.027, .390
        ((43, 0, 1, 0), 0.90, -0.0957, 0.0365),  # Tango 1998: -.096, .037
        ((53, 16, 8, 9), 0.95, -0.0197, 0.2069),  # Agresti and Min: -.020, .207
    ],
)
def test_interval_reproduces_printed_values(
    table: tuple[int, int, int, int], level: float, low: float, high: float
) -> None:
    _, first_only, second_only, _ = table
    found = tango_interval(second_only, first_only, sum(table), level)
    assert found == pytest.approx((low, high), abs=1e-4)


def test_interval_without_a_discordant_pair_has_its_closed_form() -> None:
    z = stats.norm.ppf(0.975)
    assert tango_interval(0, 0, 100, 0.95) == pytest.approx((-(z**2) / (100 + z**2), z**2 / (100 + z**2)), abs=1e-9)


@at_a_margin
def test_score_statistic_at_a_margin(
    lost: int, gained: int, n: int, margin: float, z: float, low: float, high: float
) -> None:
    assert float(tango_z(-margin, lost, gained, n)) == pytest.approx(z, abs=1e-4)
    assert tango_interval(lost, gained, n) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 10, 100, 1_000, 100_000])
def test_the_score_statistic_is_z_at_the_bounds(n: int) -> None:
    rng = np.random.default_rng(n)
    changed = rng.binomial(n, rng.choice([0, 0.01, 0.1, 0.5, 1], 400))
    lost = rng.binomial(changed, rng.choice([0, 0.1, 0.5, 0.9, 1], 400))
    gained, z = changed - lost, rng.uniform(0.1, 8, 400)
    low, high = tango_bounds(lost, gained, n, z)
    assert (low <= (gained - lost) / n + 1e-12).all()
    assert (high >= (gained - lost) / n - 1e-12).all()
    inner = low > -1 + 1e-9
    assert tango_z(low, lost, gained, n)[inner] == pytest.approx(z[inner], abs=1e-6)
    inner = high < 1 - 1e-9
    assert tango_z(high, lost, gained, n)[inner] == pytest.approx(-z[inner], abs=1e-6)


@pytest.mark.parametrize("n", [10, 14_000, 100_000])
def test_bounds_where_every_item_is_lost(n: int) -> None:
    z = 1.6448536
    low, high = tango_bounds(n, 0, n, z)
    assert float(low) == pytest.approx(-1, abs=1e-12)
    assert float(high) == pytest.approx((z**2 / n - 1) / (z**2 / n + 1), abs=1e-12)  # (1 + d) / (1 - d) = z^2 / n


@pytest.mark.parametrize("shift", [0.0, -0.05])
def test_interval_covers_at_its_level(shift: float) -> None:
    rng = np.random.default_rng(3)
    n, discordance, runs = 200, 0.12, 3000
    lost_rate, gained_rate = (discordance - shift) / 2, (discordance + shift) / 2
    counts = rng.multinomial(n, [lost_rate, gained_rate, 1 - discordance], size=runs)
    # Inside the interval means that the score test does not reject the truth.
    z = tango_z(np.full(runs, shift), counts[:, 0], counts[:, 1], n)
    covered = float((np.abs(z) <= stats.norm.ppf(0.95)).mean())
    assert covered == pytest.approx(0.90, abs=0.02)


def test_t_interval_is_scipys_paired_t() -> None:
    rng = np.random.default_rng(0)
    base, adapted = rng.normal(size=40), rng.normal(0.3, size=40)
    d = adapted - base
    found = t_interval(float(d.mean()), float(d.std(ddof=1) / math.sqrt(40)), 39)
    expected = stats.ttest_rel(adapted, base).confidence_interval(0.90)
    assert found == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_transitions_count_each_direction() -> None:
    base, adapted = np.array([1.0, 1, 0, 0, 1]), np.array([0.0, 1, 1, 0, 0])
    assert transitions(base, adapted) == (2, 1, 5)


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(121, 59, 4.434e-6), (70, 59, 0.378688), (80, 59, 0.089452), (10, 10, 1.0), (6, 16, 0.052479), (0, 0, 1.0)],
)
def test_exact_mcnemar_reproduces_published_values(lost: int, gained: int, p: float) -> None:
    assert mcnemar(lost, gained).exact == pytest.approx(p, rel=2e-4, abs=1e-6 if p > 1e-3 else 0)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def test_the_other_forms_of_mcnemar() -> None:
    found = mcnemar(6, 16)
    assert found[1:] == pytest.approx((0.034690, 0.033006, 0.055009), abs=1e-6)


@pytest.mark.parametrize(("lost", "gained"), [(3, 12), (40, 41), (0, 5)])
def test_mcnemar_is_statsmodels(lost: int, gained: int) -> None:
    table = [[50, lost], [gained, 50]]
    assert mcnemar(lost, gained).exact == pytest.approx(float(reference(table, exact=True).pvalue), rel=1e-10)
    without = reference(table, exact=False, correction=False)
    assert mcnemar(lost, gained).asymptotic == pytest.approx(float(without.pvalue), rel=1e-10)


def test_t_test_is_scipys_paired_t() -> None:
    rng = np.random.default_rng(0)
    base, adapted = rng.normal(size=40), rng.normal(0.3, size=40)
    d = adapted - base
    expected = stats.ttest_rel(adapted, base).pvalue
    assert t_test(float(d.mean()), float(d.std(ddof=1) / math.sqrt(40)), 39) == pytest.approx(expected, rel=1e-10)
    assert (t_test(0.0, 0.0, 5), t_test(0.1, 0.0, 5)) == (1.0, 0.0)
    assert t_test(1.96, 1.0, math.inf) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 2), (3, 0, 3), (0, 5, 9), (12, 7, 400), (900, 3, 1000)])
def test_counts_give_the_standard_error_of_the_differences(lost: int, gained: int, n: int) -> None:
    differences = np.repeat([-1.0, 1.0, 0.0], [lost, gained, n - lost - gained])
    assert transition_error(lost, gained, n) == pytest.approx(stats.sem(differences), rel=1e-14, abs=1e-17)


def test_one_item_has_no_standard_error() -> None:
    assert math.isnan(transition_error(1, 0, 1))
