"""The shared bootstrap of items."""

from __future__ import annotations

import numpy as np
import pytest

from evalsvc.stats.bootstrap import bca_interval, resampled_means


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


OLD_MEN = np.array([10, 12, 12.5, 12.5, 13.9, 15, 21, 22, 23, 34, 50, 81, 89, 121, 134, 213])


def test_intervals_of_the_mean_are_those_of_r() -> None:
    """R's boot, as quoted in scipy's tests: percentile 28.86-84.21, BCa 32.31-91.43, at 95 %."""
    found = bca_interval(OLD_MEN[None], lambda means: means[..., 0], 400_000, np.random.default_rng(0), 0.95)
    assert found == pytest.approx((32.31, 91.43), rel=0.005)
    means = resampled_means(OLD_MEN[None], 400_000, np.random.default_rng(0))[:, 0]
    low, high = np.quantile(means, [0.025, 0.975])
    assert (low, high) == pytest.approx((28.86, 84.21), rel=0.005)
    assert (2 * OLD_MEN.mean() - high, 2 * OLD_MEN.mean() - low) == pytest.approx((23.77, 79.12), rel=0.01)


def test_bca_without_any_spread_is_a_point() -> None:
    found = bca_interval(np.full((1, 9), 2.0), lambda means: means[..., 0], 100, np.random.default_rng(0))
    assert found == (2.0, 2.0)
