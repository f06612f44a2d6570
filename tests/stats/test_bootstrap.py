"""The shared bootstrap of items."""

from __future__ import annotations

import numpy as np
import pytest

from evalsvc.stats.bootstrap import resampled_means


def test_spread_is_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=(2, 300))
    found = resampled_means(values, 4000, np.random.default_rng(1))
    assert found.shape == (4000, 2)
    expected = values.std(axis=1) / np.sqrt(300)
    assert found.std(axis=0) == pytest.approx(expected, rel=0.05)


def test_arms_share_their_resampled_items() -> None:
    one = np.random.default_rng(0).normal(size=200)
    found = resampled_means(np.stack([one, one + 1]), 500, np.random.default_rng(1))
    assert found[:, 1] - found[:, 0] == pytest.approx(np.ones(500))


def test_result_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(3, 50))
    whole = resampled_means(values, 40, np.random.default_rng(1))
    monkeypatch.setattr("evalsvc.stats.bootstrap._CHUNK_ITEMS", 100)
    assert resampled_means(values, 40, np.random.default_rng(1)) == pytest.approx(whole, abs=1e-12)
