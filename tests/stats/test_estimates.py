"""Levels and standard errors of lm-eval's aggregations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lm_eval.api import metrics
from scipy import stats

from evalsvc.stats.estimates import estimate

RNG = np.random.default_rng(5)
LOGLIKELIHOODS = -RNG.gamma(3.0, 20.0, size=400)
BYTES = RNG.integers(50, 400, size=400).astype(np.float64)


def test_levels_are_lm_evals() -> None:
    pairs = list(zip(LOGLIKELIHOODS, BYTES, strict=True))
    small = LOGLIKELIHOODS / 100
    assert estimate(small, None, "mean").value == pytest.approx(metrics.mean(small.tolist()), rel=1e-12)
    assert estimate(small, None, "perplexity").value == pytest.approx(metrics.perplexity(small.tolist()), rel=1e-12)
    assert estimate(LOGLIKELIHOODS, BYTES, "bits_per_byte").value == pytest.approx(metrics.bits_per_byte(pairs))
    assert estimate(LOGLIKELIHOODS, BYTES, "weighted_perplexity").value == pytest.approx(
        metrics.weighted_perplexity(pairs)
    )


@pytest.mark.parametrize("aggregation", ["mean", "perplexity", "bits_per_byte", "weighted_perplexity"])
def test_standard_errors_agree_with_the_bootstrap(aggregation: str) -> None:
    values = LOGLIKELIHOODS if aggregation.startswith(("bits", "weighted")) else LOGLIKELIHOODS / 100
    weights = BYTES if aggregation.startswith(("bits", "weighted")) else None

    def level(index: np.ndarray) -> float:
        return estimate(values[index], None if weights is None else weights[index], aggregation).value

    found = stats.bootstrap(
        (np.arange(len(values)),), level, n_resamples=2000, vectorized=False, rng=np.random.default_rng(1)
    )
    assert estimate(values, weights, aggregation).stderr == pytest.approx(found.standard_error, rel=0.1)


def test_influence_has_mean_zero_and_one_value_per_item() -> None:
    found = estimate(LOGLIKELIHOODS, BYTES, "weighted_perplexity")
    assert found.influence.shape == (400,)
    assert found.influence.mean() == pytest.approx(0, abs=1e-9)


def test_one_item_has_a_level_but_no_standard_error() -> None:
    found = estimate(np.array([1.0]), None, "mean")
    assert found.value == 1.0
    assert math.isnan(found.stderr)


def test_perplexity_of_garbage_stays_finite() -> None:
    assert math.isfinite(estimate(np.array([-1e6]), np.array([1.0]), "weighted_perplexity").value)


@pytest.mark.parametrize("values", [np.array([]), np.array([1.0])])
def test_unknown_aggregations_and_empty_tasks_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        estimate(values, None, "f1" if len(values) else "mean")
