"""Multiple tests: levels and adjusted p-values; a test is rejected if its adjusted p-value is at most alpha.

Holm (1979, Scandinavian Journal of Statistics 6:65-70) controls the family-wise error rate at alpha, under any
dependence. Benjamini and Hochberg (1995, Journal of the Royal Statistical Society B 57:289-300) control the false
discovery rate at alpha, for independent or positively dependent tests.

Formulas and sources: docs/pages/statistics.md, sections "Which tasks moved" and "All rules".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def bonferroni(alpha: float, tests: int) -> float:
    """Return the level of each test that keeps the family-wise error rate at most alpha."""
    return alpha / max(1, tests)


def share_alpha(alpha: float, number: int, batch_size: int | None = None) -> float:
    """Return the level of the `number`-th of several tests in turn; the levels add up to at most `alpha`.

    alpha / batch_size, or if the number of tests is not known before the first: alpha * 6 / (pi * number)^2, as the sum
    of all 1 / k^2 is pi^2 / 6 (Bonferroni with unequal shares).

    Raises:
        ValueError: `number` is not from 1 to `batch_size`.
    """
    if not 1 <= number <= (batch_size or number):
        raise ValueError(f"test {number} of {batch_size}, must be from 1 to the number of tests")
    return alpha / batch_size if batch_size else alpha * 6 / (math.pi * number) ** 2


def holm(p: ArrayLike) -> Floats:
    """Return Holm's adjusted p-values of `p` [tests], in its order.

    Raises:
        ValueError: `p` is not one-dimensional, or has a value outside [0, 1].
    """
    values, order = _sort_p(p)
    steps = np.arange(len(values), 0, -1)
    return _restore_order(np.maximum.accumulate(values * steps), order)


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Return Benjamini and Hochberg's adjusted p-values of `p` [tests], in its order.

    Raises:
        ValueError: `p` is not one-dimensional, or has a value outside [0, 1].
    """
    values, order = _sort_p(p)
    count = len(values)
    scaled = values * count / np.arange(1, count + 1)
    return _restore_order(np.minimum.accumulate(scaled[::-1])[::-1], order)


def _sort_p(p: ArrayLike) -> tuple[Floats, NDArray[np.intp]]:
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"p has {values.ndim} dimensions, must have one")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p == {values.tolist()}, must lie in [0, 1]")
    order = np.argsort(values, kind="stable")
    return values[order], order


def _restore_order(adjusted: Floats, order: NDArray[np.intp]) -> Floats:
    result = np.empty_like(adjusted)
    result[order] = np.minimum(adjusted, 1.0)
    return result
