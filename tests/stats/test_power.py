"""Sizes and margins against tables of the normal approximation, and against Miller 2024 (arXiv 2411.00640)."""

from __future__ import annotations

import pytest

from evalsvc.stats.paired import tango_z
from evalsvc.stats.power import (
    needed_n,
    paired_detectable,
    paired_error,
    paired_needed_n,
    resolvable_margin,
    smallest_passing_n,
)


@pytest.mark.parametrize(
    ("discordance", "margin", "at_80", "at_90"),
    [
        *((0.05, 0.01, 3092, 4282), (0.05, 0.02, 773, 1071), (0.05, 0.03, 344, 476), (0.05, 0.05, 124, 172)),
        *((0.10, 0.01, 6183, 8564), (0.10, 0.02, 1546, 2141), (0.10, 0.03, 687, 952), (0.10, 0.05, 248, 343)),
        *((0.15, 0.01, 9274, 12846), (0.15, 0.02, 2319, 3212), (0.15, 0.03, 1031, 1428), (0.15, 0.05, 371, 514)),
    ],
)
def test_needed_items_at_no_change(discordance: float, margin: float, at_80: int, at_90: int) -> None:
    assert needed_n(margin, discordance) == pytest.approx(at_80, abs=1)
    assert needed_n(margin, discordance, power=0.9) == pytest.approx(at_90, abs=1)


@pytest.mark.parametrize(
    ("n", "points"), [(164, 6.1), (817, 2.8), (1172, 2.3), (1267, 2.2), (1319, 2.2), (10042, 0.8), (14042, 0.7)]
)
def test_margin_that_a_suite_resolves(n: int, points: float) -> None:
    assert 100 * resolvable_margin(n) == pytest.approx(points, abs=0.06)


@pytest.mark.parametrize(("margin", "n"), [(0.01, 268), (0.02, 133), (0.03, 88), (0.05, 52)])
def test_fewest_items_that_can_pass(margin: float, n: int) -> None:
    assert smallest_passing_n(margin) == n
    z = 1.6448536269514722
    assert float(tango_z(-margin, 0, 0, n)) >= z
    assert float(tango_z(-margin, 0, 0, n - 1)) < z


def test_no_number_of_items_shows_what_is_not_so() -> None:
    with pytest.raises(ValueError, match="no number of items"):
        needed_n(0.02, 0.1, difference=-0.02)


def test_millers_sample_size_and_detectable_difference() -> None:
    assert paired_needed_n(0.03, between=1 / 9) == pytest.approx(968.9975, abs=1e-3)
    within = (1 / 6, 1 / 6)
    assert paired_detectable(198, 1 / 9, within) == pytest.approx(0.13273, abs=1e-5)
    assert paired_detectable(198, 1 / 9, within, (10, 10)) == pytest.approx(0.07567, abs=1e-5)


def test_millers_paired_errors() -> None:
    assert paired_error(0.7, 0.7, 0.5) == pytest.approx(0.70)
    assert paired_error(1.6, 1.5, 0.37) == pytest.approx(1.742, abs=1e-3)
