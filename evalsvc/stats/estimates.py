"""Levels and standard errors of aggregated metrics.

A smooth statistic T of n items is approximately T + mean(psi_i) with influence values psi of mean zero, so its standard
error is sd(psi) / sqrt(n) (Hampel 1974; the delta method). For a paired comparison, the influence values of two arms on
the same items are subtracted.

Formulas and sources: docs/pages/statistics.md, section "One task".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WEIGHTED = frozenset({"bits_per_byte", "weighted_perplexity"})
SMOOTH = WEIGHTED | {"mean", "perplexity"}


class Estimate(NamedTuple):
    """A statistic, and its influence values (mean zero, one per item)."""

    value: float
    influence: Floats

    @property
    def stderr(self) -> float:
        """Standard error; nan if n < 2."""
        return standard_error(self.influence)


def estimate(values: Floats, weights: Floats | None, aggregation: str) -> Estimate:
    """Estimate one arm's level on one task.

    Args:
        values: [n] metric values; log-likelihoods in nats for the perplexities.
        weights: [n] words or bytes for "bits_per_byte" and "weighted_perplexity", else None.
        aggregation: One of `SMOOTH`, in lm-eval's sense.

    Raises:
        ValueError: `aggregation` is not one of `SMOOTH`, weights are missing, or there are no items.
    """
    if aggregation not in SMOOTH or not len(values):
        raise ValueError(f"aggregation == {aggregation!r} with {len(values)} items, must be one of {sorted(SMOOTH)}")
    if aggregation in WEIGHTED:
        if weights is None:
            raise ValueError(f"weights are missing, must be given for {aggregation!r}")
        rate = float(values.sum() / weights.sum())
        psi = (values - rate * weights) / weights.mean()
    else:
        rate = float(values.mean())
        psi = values - rate
    if aggregation == "mean":
        value, slope = rate, 1.0
    elif aggregation == "bits_per_byte":
        value, slope = -rate / math.log(2), -1 / math.log(2)
    else:  # both perplexities are exp(-rate)
        value = math.exp(min(-rate, 700.0))
        slope = -value
    return Estimate(value, psi * slope)


def standard_error(influence: Floats) -> float:
    """Return sd(influence) / sqrt(n) with the n - 1 divisor, as lm-eval's `mean_stderr`; nan if n < 2."""
    n = len(influence)
    return float(influence.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan


class ClusteredError(NamedTuple):
    """Standard error of clustered items, and the number of clusters G; use Student's t with G - 1."""

    stderr: float
    clusters: int


def clustered_error(influence: Floats, clusters: NDArray[np.int64]) -> ClusteredError:
    """Return (1/n) sqrt(G/(G-1) sum over clusters of (sum of its influence values)^2); nan if G < 2.

    Args:
        influence: [n], with mean zero, as in `Estimate`.
        clusters: [n], a number for each cluster, such as a subject, a passage or a document.

    Source: Miller 2024 (arXiv 2411.00640), appendix A, with the factor G/(G-1); docs/pages/statistics.md, "Clusters".
    """
    _, member = np.unique(clusters, return_inverse=True)
    sums = np.bincount(member, weights=influence)
    groups = len(sums)
    if groups < 2:
        return ClusteredError(math.nan, groups)
    return ClusteredError(float(math.sqrt(groups / (groups - 1) * (sums**2).sum()) / len(influence)), groups)
