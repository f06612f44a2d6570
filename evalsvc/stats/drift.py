"""Token drift: KL divergence of an adapted arm's next-token distribution from its base's, in nats per token.

Forward KL, KL(base || adapted), predicts forgetting best among the measures compared in "RL's Razor"
(arXiv 2509.04259). It is only defined if both arms have the same vocabulary.

Formulas and sources: docs/pages/statistics.md, section "Diversity and drift".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalsvc.stats.estimates import clustered_error
from evalsvc.stats.paired import LEVEL, t_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Mean and 95th percentile over tokens; the interval of the mean has texts as clusters."""

    tokens: int
    texts: int
    mean: float
    low: float
    high: float
    p95: float


def kl_divergence(log_p: Floats, log_q: Floats) -> Floats:
    """Return KL(p || q) over the last axis, in nats.

    Args:
        log_p, log_q: [..., vocabulary] natural logs of probabilities that sum to 1; terms with p = 0 are 0.

    Raises:
        ValueError: The vocabularies differ in size.
    """
    if log_p.shape[-1] != log_q.shape[-1]:
        raise ValueError(f"vocabularies of {log_p.shape[-1]} and {log_q.shape[-1]} tokens, must be equal")
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(p > 0, p * (log_p - log_q), 0.0).sum(axis=-1))


def kl_from_samples(log_ratio: Floats) -> float:
    """Estimate KL(p || q) from tokens drawn from p: mean of r - 1 - ln r with r = q / p.

    Unbiased and never negative, but heavy-tailed; for cases without full distributions (Schulman 2020).

    Args:
        log_ratio: [n], ln q - ln p of each drawn token.
    """
    return float((np.expm1(log_ratio) - log_ratio).mean())


def drift(kl: Floats, texts: NDArray[np.int64], level: float = LEVEL) -> Drift:
    """Summarise per-token divergences.

    Args:
        kl: [tokens].
        texts: [tokens], the text that each token belongs to.
    """
    mean = float(kl.mean())
    stderr, groups = clustered_error(kl - mean, texts)
    low, high = t_interval(mean, stderr, groups - 1, level) if groups > 1 else (float("nan"), float("nan"))
    return Drift(tokens=len(kl), texts=groups, mean=mean, low=low, high=high, p95=float(np.quantile(kl, 0.95)))
