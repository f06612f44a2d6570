"""Bootstrap of items (Efron 1979), with the same draws for all arms, which keeps the pairing.

Formulas and sources: docs/pages/statistics.md, sections "The frontier" and "Diversity and drift".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from evalsvc.stats.paired import LEVEL, Interval

Floats = NDArray[np.float64]

_CHUNK_ITEMS = 8_000_000


def resampled_means(values: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Return means of `values` over resampled items.

    Args:
        values: [arms, n]; column i is the same item in every arm.
        replicates: Number of resamples.

    Returns:
        [replicates, arms].
    """
    n = values.shape[1]
    sums = np.empty((replicates, len(values)))
    start = 0
    for counts in _counts(n, replicates, rng):
        np.matmul(counts, values.T, out=sums[start : start + len(counts)])
        start += len(counts)
    sums /= n
    return sums


def _counts(n: int, replicates: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield [chunk, n], how often each item was drawn in each resample."""
    chunk = max(1, min(replicates, _CHUNK_ITEMS // n))
    for start in range(0, replicates, chunk):
        rows = min(chunk, replicates - start)
        drawn = rng.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def bca_interval(
    values: Floats,
    function: Callable[[Floats], Floats],
    replicates: int,
    rng: np.random.Generator,
    level: float = LEVEL,
) -> Interval:
    """Return the bias-corrected and accelerated interval of a function of means (Efron 1987).

    Args:
        values: [arms, n]; column i is the same item in every arm.
        function: Maps means [..., arms] to the statistic [...].
    """
    n = values.shape[1]
    means = values.mean(axis=1)
    estimate = float(function(means))
    resampled = function(resampled_means(values, replicates, rng))
    below = float(((resampled < estimate) + 0.5 * (resampled == estimate)).mean())
    left_out = function((n * means - values.T) / (n - 1))
    gaps = left_out.mean() - left_out if np.isfinite(left_out).all() else np.zeros(n)
    spread = float((gaps**2).sum())
    # Percentiles if nothing varies, all resamples lie on one side, or the statistic depends on a single item.
    if spread == 0 or not 0 < below < 1:
        with np.errstate(invalid="ignore"):  # resamples without a statistic are infinite
            low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
        return Interval(float(low), float(high))
    bias, acceleration = ndtri(below), float((gaps**3).sum()) / (6 * spread**1.5)
    z = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(resampled, ndtr(bias + z / (1 - acceleration * z)))
    return Interval(float(low), float(high))
