"""Ranks from singular values, known wholly or in part."""

from __future__ import annotations

import numpy as np
import pytest

from evalsvc.stats.spectrum import complete_spectrum, effective_rank, rank_90


def test_effective_rank_as_published() -> None:
    """exp(H(1/2, 1/4, 1/8, 1/8)), Roy and Vetterli 2007."""
    assert effective_rank(np.array([4.0, 2, 1, 1])) == pytest.approx(3.363586, abs=1e-6)


def test_ranks_of_equal_values_are_their_number() -> None:
    values = np.ones(10)
    assert effective_rank(values) == pytest.approx(10)
    assert rank_90(values) == 9
    assert (rank_90(np.array([3.0, 1.0])), rank_90(np.array([2.0, 1.0])), rank_90(np.zeros(3))) == (1, 2, 0)
    assert effective_rank(np.zeros(3)) == 0


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0])
def test_a_tail_of_the_modelled_form_is_completed_exactly(power: float) -> None:
    top = np.linspace(9, 1, 50)
    tail = (1 - (np.arange(450) + 0.5) / 450) ** power
    values = np.concatenate([top, tail])
    found = complete_spectrum(top, float(np.square(values).sum()), 500)
    assert np.square(found).sum() == pytest.approx(np.square(values).sum())
    assert rank_90(found) == pytest.approx(rank_90(values), rel=0.02)
    assert effective_rank(found) == pytest.approx(effective_rank(values), rel=0.02)


def test_what_is_known_wholly_stays() -> None:
    values = np.array([3.0, 2.0])
    assert np.array_equal(complete_spectrum(values, 13.0, 2), values)
    assert np.array_equal(complete_spectrum(values, 13.0, 9), values)
