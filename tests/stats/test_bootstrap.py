"""The shared bootstrap of items, and the intervals that come from one."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from scipy import stats

from evalsvc.stats.bootstrap import draw_units, resampled_error, resampled_means
from tests.support.corpus_metrics import CASES, measure_coverage


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


def test_the_error_of_a_mean_is_the_usual_one() -> None:
    values = np.random.default_rng(5).normal(2, 3, 40)
    means = np.array([values[drawn].mean() for drawn in islice(draw_units(40, 1), 4000)])
    error = resampled_error(means, 40, 40)
    assert error is not None
    assert error.stderr == pytest.approx(stats.sem(values), rel=0.045)  # four standard errors


def test_few_items_that_matter_leave_few_degrees_of_freedom() -> None:
    """The oracle: the kurtosis of a binomial share, (1 - 6 p q) / (n p q)."""
    rng = np.random.default_rng(6)
    freedom = []
    for changed in (3, 10, 50):
        share = changed / 100
        error = resampled_error(rng.binomial(100, share, 100_000) / 100, 100, 100)
        assert error is not None
        kurtosis = (1 - 6 * share * (1 - share)) / (100 * share * (1 - share))
        assert 2 / error.df == pytest.approx(max(kurtosis, 0) + 2 / 99, abs=0.06)  # four standard errors
        freedom.append(error.df)
    assert sorted(freedom) == freedom
    assert resampled_error(np.zeros(1000), 100, 100) is None
    assert resampled_error(np.eye(1000)[0], 100, 100) is None  # one resample in a thousand makes a difference


@pytest.mark.parametrize("name", ["F1, 10 % lost and 5 % gained", "Matthews' correlation, 5 % lost and 5 % gained"])
def test_intervals_of_corpus_metrics_hold_the_truth(name: str) -> None:
    decided, covered = measure_coverage(CASES[name], 50, 400)
    assert decided > 0.98
    assert covered > 0.9 - 3 * (0.9 * 0.1 / 400) ** 0.5
