"""Effective rank."""

from __future__ import annotations

import numpy as np
import pytest

from evalsvc.stats.spectrum import effective_rank, rank_at


def test_published_value() -> None:
    assert effective_rank(np.array([4.0, 2, 1, 1])) == pytest.approx(3.363586, abs=1e-6)


def test_ends() -> None:
    assert effective_rank(np.ones(7)) == pytest.approx(7)
    assert effective_rank(np.zeros(3)) == 0
    assert rank_at(np.array([10.0, 1, 1])) == 1
    assert rank_at(np.ones(10)) == 9
    assert rank_at(np.zeros(3)) == 0
