"""Whether a metric is better when higher or lower, and the sign and the arrow that follow from it."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

LOWER_IS_BETTER = frozenset(
    {"bits_per_byte", "word_perplexity", "byte_perplexity", "perplexity", "ppl", "wer", "brier_score"}
)
"""Metrics that are better when lower, unless declared otherwise."""

Difference = TypeVar("Difference", float, NDArray[np.float64])


def is_higher_better(metric: str, declared: object = None) -> bool:
    """Return whether a metric is better when higher: as declared by a task or a results file, else by its name."""
    return metric not in LOWER_IS_BETTER if declared is None else bool(declared)


def orient(difference: Difference, higher_is_better: bool) -> Difference:
    """Return a difference, adapted minus base, with the sign turned so that positive is better."""
    return difference if higher_is_better else -difference


def arrow(higher_is_better: bool) -> str:
    """Return the arrow that is shown after a metric's name."""
    return "↑" if higher_is_better else "↓"
