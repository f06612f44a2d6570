"""How many directions a change of weights uses, from its singular values. Diagnostic: decides nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def effective_rank(singular: Floats) -> float:
    """Return exp of the entropy of the singular values' shares (Roy and Vetterli 2007); 0 if all are 0."""
    total = float(singular.sum())
    if total == 0:
        return 0.0
    share = singular[singular > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def rank_at(singular: Floats, share: float = 0.9) -> int:
    """Return the least number of directions that hold `share` of the squared singular values (Biderman et al. 2024)."""
    squares = np.sort(singular)[::-1] ** 2
    total = float(squares.sum())
    return int(np.searchsorted(np.cumsum(squares), share * total * (1 - 1e-12)) + 1) if total else 0
