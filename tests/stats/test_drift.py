"""Divergences per token."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from evalsvc.stats.drift import drift, kl_divergence, kl_from_samples

P, Q = np.log([0.7, 0.2, 0.1]), np.log([0.5, 0.3, 0.2])


def test_published_values() -> None:
    assert float(kl_divergence(P, Q)) == pytest.approx(0.085123, abs=1e-6)
    assert float(kl_divergence(Q, P)) == pytest.approx(0.092033, abs=1e-6)


def test_it_is_scipys_on_many_tokens_and_counts_impossible_ones_as_nothing() -> None:
    rng = np.random.default_rng(0)
    p, q = (special.log_softmax(rng.normal(size=(50, 200)), axis=1) for _ in range(2))
    assert kl_divergence(p, q) == pytest.approx(special.rel_entr(np.exp(p), np.exp(q)).sum(axis=1), abs=1e-12)
    with np.errstate(divide="ignore"):
        assert float(kl_divergence(np.log([1.0, 0.0]), np.log([0.5, 0.5]))) == pytest.approx(np.log(2))


def test_different_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="vocabularies of 3 and 2 tokens"):
        kl_divergence(P, Q[:2])


def test_the_estimate_from_samples_is_unbiased_and_never_negative() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.choice(3, p=np.exp(P), size=400_000)
    assert kl_from_samples((Q - P)[drawn]) == pytest.approx(0.085123, abs=0.002)
    assert kl_from_samples((Q - P)[drawn[:3]]) >= 0


def test_texts_are_the_unit_of_the_interval() -> None:
    """Tokens of a text go together: an interval over tokens would be far too narrow."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        texts = np.repeat(np.arange(40), 50)
        kl = np.abs(0.5 + np.repeat(rng.normal(0, 0.1, 40), 50) + rng.normal(0, 0.02, 2000))
        found = drift(kl, texts)
        covered += found.low <= 0.5 <= found.high
    assert (found.tokens, found.texts) == (2000, 40)
    assert found.p95 == pytest.approx(np.quantile(kl, 0.95))
    assert covered / 400 == pytest.approx(0.90, abs=0.05)
