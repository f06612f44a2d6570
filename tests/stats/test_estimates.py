"""Levels and standard errors of lm-eval's aggregations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lm_eval.api import metrics
from scipy import stats

from evalsvc.stats.estimates import clustered_error, estimate, standard_error
from evalsvc.stats.paired import t_interval

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


def test_clustered_error_reproduces_published_values() -> None:
    """Miller 2024: 12 items in 4 clusters of 3."""
    scores = np.array([1.0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0])
    psi, clusters = scores - scores.mean(), np.repeat(np.arange(4), 3)
    assert standard_error(psi) == pytest.approx(0.150756, abs=1e-6)
    found = clustered_error(psi, clusters)
    assert found.stderr == pytest.approx(0.215166, abs=1e-6)
    assert found.clusters == 4
    assert found.stderr * math.sqrt(3 / 4) == pytest.approx(0.186339, abs=1e-6)  # appendix A: without G/(G-1)
    cross = (np.add.reduceat(psi, range(0, 12, 3)) ** 2).sum() - (psi**2).sum()
    assert math.sqrt(standard_error(psi) ** 2 + cross / 144) == pytest.approx(0.191353, abs=1e-6)  # equation 4


def test_clusters_of_one_item_are_no_clusters() -> None:
    psi = BYTES - BYTES.mean()
    assert clustered_error(psi, np.arange(400)).stderr == pytest.approx(standard_error(psi), rel=1e-12)
    assert math.isnan(clustered_error(psi, np.zeros(400, dtype=np.int64)).stderr)


@pytest.mark.parametrize("together", [0.2, 0.5])
def test_clustered_t_keeps_the_level_that_items_alone_do_not(together: float) -> None:
    """200 clusters of 5 items, at the margin: a clustered t passes in about 5 % of runs, a plain one more often."""
    rng = np.random.default_rng(7)
    runs, passed = 2000, np.zeros(2)
    clusters = np.repeat(np.arange(200), 5)
    for _ in range(runs):
        # Every item takes its cluster's draw with some probability, which correlates the flips of a cluster.
        shared, own = rng.random(200)[clusters], rng.random(1000)
        u = np.where(rng.random(1000) < math.sqrt(together), shared, own)
        d = np.where(u < 0.075, -1.0, np.where(u < 0.10, 1.0, 0.0))  # true difference -0.05
        psi = d - d.mean()
        for i, (stderr, df) in enumerate([(standard_error(psi), 999), (clustered_error(psi, clusters).stderr, 199)]):
            passed[i] += t_interval(float(d.mean()), stderr, df).low > -0.05
    assert passed[0] / runs > 0.07
    assert passed[1] / runs == pytest.approx(0.055, abs=0.015)
