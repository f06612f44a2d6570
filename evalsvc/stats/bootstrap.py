"""Bootstrap of items (Efron 1979), with the same draws for all arms, which keeps the pairing.

Formulas and sources: docs/pages/statistics.md, section "The frontier".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

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
