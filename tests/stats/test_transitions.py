"""Guessing brackets, re-run floors, floors and ceilings."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from evalsvc.stats.transitions import above_floor, blind_spots, chance_bracket, guessing_accuracy, share_interval


def test_chance_bracket_reproduces_the_published_formula() -> None:
    found = chance_bracket(lost=100, gained=80, base_right=650, n=1000, choices=4)
    assert found.spurious == pytest.approx(0.0431667, abs=1e-7)
    assert found.lost_adjusted == pytest.approx(0.0568333, abs=1e-7)
    assert found.gained_adjusted == pytest.approx(0.0368333, abs=1e-7)
    assert found.ceiling == pytest.approx(0.5333333, abs=1e-7)
    assert (found.net, found.clipped) == (-0.02, False)


def test_clipping_is_said_and_leaves_the_raw_net_beside_it() -> None:
    found = chance_bracket(lost=10, gained=30, base_right=500, n=1000, choices=4)
    assert (found.lost_adjusted, found.clipped) == (0.0, True)
    assert found.net == pytest.approx(0.02)


def test_with_several_golds_guessing_explains_more() -> None:
    """Two of four choices are right and all is guessed: every pair of guesses of the two arms is equally likely."""
    golds = {0, 2}
    pairs = [(before, after) for before in range(4) for after in range(4)]
    lost, gained = (sum(p[1 - k] not in golds and p[k] in golds for p in pairs) for k in (0, 1))
    right = sum(before in golds for before, _ in pairs)
    chance = guessing_accuracy([len(golds)], [4])
    assert chance == right / len(pairs) == 0.5
    found = chance_bracket(lost, gained, right, len(pairs), 1 / chance)
    assert found.spurious == found.lost == lost / len(pairs)
    assert (found.lost_adjusted, found.gained_adjusted, found.ceiling) == (0, 0, 0)
    assert blind_spots(right, len(pairs), chance) == ("at chance",)
    assert guessing_accuracy([1, 2, 3], [2, 4, 3]) == pytest.approx((1 / 2 + 2 / 4 + 3 / 3) / 3)


@pytest.mark.parametrize(("choices", "lost"), [(1, 10), (4, 700)])
def test_counts_that_no_items_have_are_refused(choices: float, lost: int) -> None:
    with pytest.raises(ValueError, match="must be possible counts"):
        chance_bracket(lost, 0, 650, 1000, choices)


@pytest.mark.parametrize(("sticky", "raw", "adjusted"), [(0.0, 0.094, 0.047), (0.8, 0.019, -0.028)])
def test_the_bracket_is_biased_either_way_where_nothing_is_forgotten(
    sticky: float, raw: float, adjusted: float
) -> None:
    """Half the items are known, the rest guessed among four; nothing is lost in truth."""
    rng = np.random.default_rng(0)
    n = 200_000
    known = rng.random(n) < 0.5
    first = rng.integers(0, 4, n)
    again = np.where(rng.random(n) < sticky, first, rng.integers(0, 4, n))
    before, after = known | (first == 0), known | (again == 0)
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    found = chance_bracket(lost, gained, int(before.sum()), n, 4)
    assert found.lost == pytest.approx(raw, abs=0.003)
    assert found.lost - found.spurious == pytest.approx(adjusted, abs=0.003)


@pytest.mark.parametrize(("shape", "floor"), [((1, 1), 0.167), ((0.3, 0.3), 0.094), ((0.1, 0.1), 0.042)])
def test_sampling_alone_loses_items(shape: tuple[float, float], floor: float) -> None:
    """E[p(1-p)] of the items are lost between two draws of one model."""
    rng = np.random.default_rng(1)
    skill = rng.beta(*shape, 100_000)
    base, rerun, adapted = ((rng.random(100_000) < skill).astype(float) for _ in range(3))
    found = above_floor(base, rerun, adapted)
    assert found.lost == pytest.approx(floor, abs=0.004)
    assert found.low < 0 < found.high
    assert found.net_lost == pytest.approx(0, abs=0.004)


@pytest.mark.parametrize(("right", "n"), [(64, 100), (0, 20), (199, 200)])
def test_share_interval_is_wilsons(right: int, n: int) -> None:
    assert share_interval(right, n) == pytest.approx(proportion_confint(right, n, 0.10, "wilson"), abs=1e-12)


@pytest.mark.parametrize(
    ("right", "n", "chance", "spots"),
    [
        (200, 200, 0.5, ("at ceiling",)),
        (26, 200, 0.5, ("below chance",)),
        (101, 200, 0.5, ("at chance",)),
        (64, 100, 0.5, ()),
        (26, 200, None, ()),
    ],
)
def test_blind_spots(right: int, n: int, chance: float | None, spots: tuple[str, ...]) -> None:
    assert blind_spots(right, n, chance) == spots
