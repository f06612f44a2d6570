"""Effective rank of a matrix from its singular values, of which only the largest may be known.

Formulas and sources: docs/pages/statistics.md, section "Weights".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def complete_spectrum(largest: Floats, energy: float, count: int) -> Floats:
    """Return all singular values of a matrix, the unknown small ones estimated.

    The unknown ones decrease from the smallest known one to zero as (1 - t)^p, t in (0, 1), with the power p for which
    their squares sum to the rest of `energy`: p = 0 is flat, p = 1/2 and 1 are close to random matrices.

    Args:
        largest: The largest singular values, decreasing.
        energy: Sum of squares of all singular values: the squared Frobenius norm.
        count: Number of all singular values: the smaller side of the matrix.
    """
    values = np.asarray(largest, dtype=np.float64)
    missing, rest = count - len(values), energy - float(np.square(values).sum())
    if missing <= 0 or rest <= 1e-9 * energy:
        return values
    edge = float(values[-1]) if len(values) else float(np.sqrt(energy))
    power = max(0.0, (missing * edge**2 / rest - 1) / 2)
    tail = edge * (1 - (np.arange(missing) + 0.5) / missing) ** power
    return np.concatenate([values, tail * np.sqrt(rest / np.square(tail).sum())])


def rank_90(values: Floats) -> int:
    """Return the smallest number of singular values with 90 % of the sum of squares (Biderman et al. 2024)."""
    squares = np.sort(np.square(values))[::-1]
    total = squares.sum()
    return int(np.searchsorted(np.cumsum(squares), 0.9 * total * (1 - 1e-12)) + 1) if total > 0 else 0


def effective_rank(values: Floats) -> float:
    """Return exp of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007)."""
    positive = values[values > 0]
    if not len(positive):
        return 0.0
    shares = positive / positive.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
