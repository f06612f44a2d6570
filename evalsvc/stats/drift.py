"""How far an adapted arm's next-token distribution has moved from its base's, in nats per token.

Forward KL, KL(base || adapted), is what best predicts forgetting among the measures compared in "RL's Razor"
(arXiv 2509.04259). It is defined only where both arms have one and the same vocabulary.
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
    """Mean and 95th percentile over tokens; the interval of the mean takes whole texts as the unit."""

    tokens: int
    texts: int
    mean: float
    low: float
    high: float
    p95: float


def kl_divergence(log_p: Floats, log_q: Floats) -> Floats:
    """Return KL(p || q) over the last axis, in nats.

    Args:
        log_p, log_q: [..., vocabulary] natural logs of probabilities, each summing to 1; -inf where p is 0 counts as 0.

    Raises:
        ValueError: The vocabularies differ in size.
    """
    if log_p.shape[-1] != log_q.shape[-1]:
        raise ValueError(f"vocabularies of {log_p.shape[-1]} and {log_q.shape[-1]} tokens, must be the same")
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(p > 0, p * (log_p - log_q), 0.0).sum(axis=-1))


def kl_from_samples(log_ratio: Floats) -> float:
    """Estimate KL(p || q) from tokens drawn from p: mean of r - 1 - ln r with r = q / p.

    Unbiased and never negative, but with heavy tails: for when full distributions cannot be had (Schulman 2020).

    Args:
        log_ratio: [n] ln q - ln p of each drawn token.
    """
    return float((np.expm1(log_ratio) - log_ratio).mean())


def drift(kl: Floats, texts: NDArray[np.int64], level: float = LEVEL) -> Drift:
    """Summarise per-token divergences.

    Args:
        kl: [tokens].
        texts: [tokens] which text each token belongs to.
    """
    mean = float(kl.mean())
    stderr, groups = clustered_error(kl - mean, texts)
    low, high = t_interval(mean, stderr, groups - 1, level) if groups > 1 else (float("nan"), float("nan"))
    return Drift(tokens=len(kl), texts=groups, mean=mean, low=low, high=high, p95=float(np.quantile(kl, 0.95)))
