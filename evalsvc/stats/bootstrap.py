"""Bootstrap of units (Efron 1979), with the same draws for all arms, which keeps the pairing.

Formulas and sources: docs/pages/statistics.md, sections "The frontier" and "Metrics of all items together".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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


def number_units(documents: Ints, clusters: Ints | None) -> Ints:
    """Return the unit [n], from 0 on, of each item: items of one document or of one cluster are of one unit.

    Args:
        documents, clusters: [n], equal for items of the same document, or cluster.
    """
    names, units = np.unique(documents, return_inverse=True)
    if clusters is None:
        return np.asarray(units, dtype=np.int64)
    others, of_cluster = np.unique(clusters, return_inverse=True)
    # Documents and clusters are the two sides of a graph, in which items are links.
    links = (np.ones(len(units), dtype=np.int8), (units, of_cluster + len(names)))
    _, component = connected_components(coo_array(links, shape=(len(names) + len(others),) * 2), directed=False)
    return np.unique(component[units], return_inverse=True)[1].astype(np.int64)


def draw_units(count: int, key: int) -> Iterator[Ints]:
    """Yield [count], the units of one resample after another, without end; the same for the same count and key.

    Takes the generator's raw bits, which no version of numpy changes: levels of two arms may have been computed by
    different ones. The multiplication's bias is below 2^-31 for a million units.
    """
    bits = np.random.PCG64(key)
    while True:
        yield ((bits.random_raw(count) >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


class ResampledError(NamedTuple):
    """Standard error of a statistic, and the degrees of freedom of its Student's t."""

    stderr: float
    df: float


def resampled_error(estimates: Floats, units: int, effective: float) -> ResampledError | None:
    """Return the standard error of a statistic from its values on resamples of its units.

    It is their standard deviation times sqrt(n / (n - 1)), which makes that of a mean the usual one (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, chapter 6). Where few units decide the value, their kurtosis k is
    large and the standard error uncertain: 2 / (k + 2 / (n - 1)) degrees of freedom (Satterthwaite 1946, Biometrics
    Bulletin 2:110-114), as the mean of n values with kurtosis K has K / n.

    Args:
        units, effective: Number of units, and their effective number.

    Returns:
        None with less than one degree of freedom: hardly any unit makes a difference.
    """
    deviations = estimates - estimates.mean()
    variance = float((deviations**2).mean())
    if len(estimates) < 2 or not variance > 0:
        return None
    kurtosis = float((deviations**4).mean()) / variance**2 - 3
    df = 2 / (max(kurtosis, 0.0) + 2 / (effective - 1))
    stderr = float(estimates.std(ddof=1) * np.sqrt(units / (units - 1)))
    return ResampledError(stderr, df) if df >= 1 else None
