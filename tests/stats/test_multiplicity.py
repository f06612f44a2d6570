"""Holm and Benjamini-Hochberg against the published example and statsmodels, and their promises by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import polygamma
from statsmodels.stats.multitest import multipletests

from evalsvc.stats.multiplicity import benjamini_hochberg, holm, share_alpha

# Benjamini and Hochberg 1995, section 3: fifteen tests of a trial of thrombolysis.
PUBLISHED = np.array(
    [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1]
)


def test_published_example() -> None:
    assert holm(PUBLISHED)[:4] == pytest.approx([0.0015, 0.0056, 0.0247, 0.1140], abs=1e-12)
    assert benjamini_hochberg(PUBLISHED)[:4] == pytest.approx([0.0015, 0.0030, 0.0095, 0.035625], abs=1e-12)
    assert (holm(PUBLISHED) <= 0.05).sum() == 3
    assert (benjamini_hochberg(PUBLISHED) <= 0.05).sum() == 4


@pytest.mark.parametrize("seed", range(5))
def test_any_order_and_ties_agree_with_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.round(rng.uniform(size=20) ** 3, 2)  # rounding makes ties
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], abs=1e-12)


def test_order_of_the_input_is_kept() -> None:
    shuffled = np.random.default_rng(0).permutation(15)
    assert holm(PUBLISHED[shuffled]) == pytest.approx(holm(PUBLISHED)[shuffled])
    assert benjamini_hochberg(PUBLISHED[shuffled]) == pytest.approx(benjamini_hochberg(PUBLISHED)[shuffled])


def test_false_alarms_stay_below_alpha() -> None:
    p = np.random.default_rng(1).uniform(size=(4000, 10))
    raised = np.mean([(holm(row) <= 0.05).any() for row in p])
    assert raised == pytest.approx(0.05, abs=0.012)
    assert np.mean([(row <= 0.05).any() for row in p]) > 0.35  # what would happen without


def test_none_and_one() -> None:
    assert holm([]).shape == (0,)
    assert benjamini_hochberg([]).shape == (0,)
    assert holm([0.03]).tolist() == benjamini_hochberg([0.03]).tolist() == [0.03]


@pytest.mark.parametrize("p", [[0.5, float("nan")], [-0.1], [1.1], [[0.1, 0.2]]])
def test_what_is_no_list_of_probabilities_is_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match="must"):
        holm(p)


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_levels_in_turn_add_up_to_alpha(count: int) -> None:
    """The tail of the sum of 1 / k^2 is the trigamma function (Abramowitz and Stegun 6.4.10)."""
    total = sum(share_alpha(0.05, number) for number in range(1, count + 1))
    assert total == pytest.approx(0.05 * (1 - 6 / np.pi**2 * float(polygamma(1, count + 1))), abs=1e-12)
    assert sum(share_alpha(0.05, number, count) for number in range(1, count + 1)) == pytest.approx(0.05)


@pytest.mark.parametrize(("number", "batch_size"), [(0, None), (3, 2)])
def test_a_test_beyond_the_declared_number_has_no_level(number: int, batch_size: int | None) -> None:
    with pytest.raises(ValueError, match="must be from 1 to the number of tests"):
        share_alpha(0.05, number, batch_size)
