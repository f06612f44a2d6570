"""Tests by betting on the mean of items in [0, 1] that arrive in random order; valid after every item.

A bet against H0 "the mean is at most m" multiplies the wealth by 1 + bet * (y - m) per item. Under H0 the wealth
reaches 1 / alpha with probability at most alpha, at any time (Ville 1939; Waudby-Smith and Ramdas 2024, Journal of the
Royal Statistical Society B 86:1-27). The best bet depends on the true mean, so the wealth is split over a grid of bets.

For a pool of N items drawn without replacement, m is replaced by the mean of the remaining items under H0,
(N m - sum so far) / (items left). H0 is decided as soon as the remaining items can no longer make it true or false.

Formulas and sources: docs/pages/statistics.md, section "Finite pool".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BETS = 24
_SMALLEST_BET = 0.02
_CAUTION = 0.95
"""Largest share of the wealth that one bet can lose."""
_STEPS = np.linspace(0, 1, _BETS)[:, None]


def log_wealth(items: Floats, mean: float, pool: int | None = None) -> Floats:
    """Return the log wealth after each item of bets against H0 "the mean is at most `mean`".

    Args:
        items: [..., n] values in [0, 1], in random order; leading axes are independent sequences.
        mean: In (0, 1).
        pool: Size of the pool that `items` are drawn from without replacement; None for an infinite population.

    Returns:
        [..., n]; inf where H0 is certainly false for the pool, -inf where it is certainly true.

    Raises:
        ValueError: `mean` is not in (0, 1), or there are more items than the pool has.
    """
    gap, largest = _compare_with_null(items, mean, pool)
    total = np.full(items.shape, -math.inf)
    for bet in np.geomspace(_SMALLEST_BET, _CAUTION / mean, _BETS):
        total = np.logaddexp(total, log_capital(gap, np.minimum(bet, largest)))
    total -= math.log(_BETS)
    return total if pool is None else _decide_pool(total, items, mean, pool)


def _compare_with_null(items: Floats, mean: float, pool: int | None) -> tuple[Floats, Floats]:
    """Return each item minus the mean under H0, and the largest allowed bet on it."""
    count = items.shape[-1]
    if not 0 < mean < 1 or (pool is not None and count > pool):
        raise ValueError(f"mean == {mean} with {count} items of {pool}: mean must be in (0, 1), items at most the pool")
    against = np.full(items.shape, mean)
    if pool is not None:
        before = np.cumsum(items, axis=-1) - items
        against = np.clip((pool * mean - before) / np.arange(pool, pool - count, -1), 0.0, None)
    return items - against, _CAUTION / np.maximum(against, 1e-12)


def log_capital(gap: Floats, bets: Floats | float) -> Floats:
    """Return the log wealth after each item, given item - mean [..., n] and bets that cannot lose everything."""
    return np.asarray(np.cumsum(np.log1p(bets * gap), axis=-1))


def _decide_pool(total: Floats, items: Floats, mean: float, pool: int) -> Floats:
    """Set the wealth to inf where the drawn items alone exceed the mean, to -inf where the rest cannot."""
    summed = np.cumsum(items, axis=-1)
    left = pool - np.arange(1, items.shape[-1] + 1)
    exceeded = np.maximum.accumulate(summed > pool * mean + 1e-9, axis=-1)
    total = np.where(exceeded, math.inf, total)
    return np.where(summed + left <= pool * mean + 1e-9, -math.inf, total)


def compute_max_log_wealth(items: Floats, mean: float, pool: int | None = None) -> tuple[Floats, Floats]:
    """Return the maximum log wealth so far [..., n] against "at most `mean`" and against "at least `mean`".

    A pool that is drawn completely is decided: the first is inf if its mean is above `mean`, else the second.
    """
    above = np.maximum.accumulate(log_wealth(items, mean, pool), axis=-1)
    below = np.maximum.accumulate(log_wealth(1 - items, 1 - mean, pool), axis=-1)
    if pool is not None and items.shape[-1] == pool:
        full = items.sum(axis=-1) > pool * mean + 1e-9
        above[..., -1] = np.where(full, math.inf, above[..., -1])
        below[..., -1] = np.where(full, below[..., -1], math.inf)
    return above, below


def pool_interval(items: Floats, pool: int, alpha: float) -> tuple[float, float]:
    """Return bounds of the pool's mean, each missed with probability at most alpha, given the items [n] so far."""
    if len(items) == pool:
        return float(items.mean()), float(items.mean())
    return _lower(items, pool, alpha), 1 - _lower(1 - items, pool, alpha)


def _lower(items: Floats, pool: int, alpha: float) -> float:
    # The largest mean that is rejected, by bisection; the drawn items bound it on both sides.
    low, high = float(items.sum()) / pool, float(items.sum() + pool - len(items)) / pool
    for _ in range(20):
        middle = (low + high) / 2
        refuted = 0 < middle < 1 and _compute_max_wealth(items, middle, pool) >= 1 / alpha
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _compute_max_wealth(items: Floats, mean: float, pool: int) -> float:
    """Return the maximum wealth so far, given items [n] that alone decide nothing: `log_wealth` without logarithms."""
    gap, largest = _compare_with_null(items, mean, pool)
    bets = _SMALLEST_BET * (_CAUTION / mean / _SMALLEST_BET) ** _STEPS
    wealth = np.minimum(bets, largest)  # [bets, n], updated in place: allocating large arrays is slow
    wealth *= gap
    wealth += 1
    with np.errstate(over="ignore"):  # an infinite wealth rejects as well
        np.cumprod(wealth, axis=-1, out=wealth)
        return float(wealth.mean(axis=0).max(initial=0.0))
