"""Betting on the mean of bounded items that come in random order: evidence that may be looked at after every item.

A gambler who bets against "the mean is at most m" with fair odds multiplies the wealth by 1 + bet * (y - m) per item.
Were the claim true, the wealth would reach 1 / alpha with probability at most alpha, at any time (Ville 1939;
Waudby-Smith and Ramdas 2024, Journal of the Royal Statistical Society B 86:1-27). Which bet is best depends on the
truth, so the wealth is spread evenly over a grid of bets.

Drawn without replacement from a pool of N, the mean that is left to draw is (N m - sum so far) / (items left): the
gambler plays against that, and is certain as soon as what is left can no longer make the claim true.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BETS = 24
_SMALLEST_BET = 0.02
_CAUTION = 0.95
"""Largest share of the wealth that a bet may lose."""
_STEPS = np.linspace(0, 1, _BETS)[:, None]


def log_wealth(items: Floats, mean: float, pool: int | None = None) -> Floats:
    """Return the log of the wealth after each item of a gambler against "the mean is at most `mean`".

    Args:
        items: [..., n] values in [0, 1], in random order; leading axes are independent sequences.
        mean: In (0, 1).
        pool: Number of items that `items` are drawn from without replacement; None draws from a population.

    Returns:
        [..., n]; inf where the pool's mean is certainly above, -inf where it is certainly not.

    Raises:
        ValueError: `mean` is not in (0, 1), or there are more items than the pool has.
    """
    gap, largest = _game(items, mean, pool)
    total = np.full(items.shape, -math.inf)
    for bet in np.geomspace(_SMALLEST_BET, _CAUTION / mean, _BETS):
        total = np.logaddexp(total, log_capital(gap, np.minimum(bet, largest)))
    total -= math.log(_BETS)
    return total if pool is None else _settle(total, items, mean, pool)


def _game(items: Floats, mean: float, pool: int | None) -> tuple[Floats, Floats]:
    """Return how far each item lies above what it is bet against, and the largest bet that may be placed on it."""
    count = items.shape[-1]
    if not 0 < mean < 1 or (pool is not None and count > pool):
        raise ValueError(f"mean == {mean} with {count} items of {pool}, must be in (0, 1), with no more than there are")
    against = np.full(items.shape, mean)
    if pool is not None:
        before = np.cumsum(items, axis=-1) - items
        against = np.clip((pool * mean - before) / np.arange(pool, pool - count, -1), 0.0, None)
    return items - against, _CAUTION / np.maximum(against, 1e-12)


def log_capital(gap: Floats, bets: Floats | float) -> Floats:
    """Return the log of the capital after each item, given item - mean [..., n] and bets that lose less than all."""
    return np.asarray(np.cumsum(np.log1p(bets * gap), axis=-1))


def _settle(total: Floats, items: Floats, mean: float, pool: int) -> Floats:
    """Put in what is certain: the drawn items alone exceed the claim, or all that is left cannot."""
    summed = np.cumsum(items, axis=-1)
    left = pool - np.arange(1, items.shape[-1] + 1)
    exceeded = np.maximum.accumulate(summed > pool * mean + 1e-9, axis=-1)
    total = np.where(exceeded, math.inf, total)
    return np.where(summed + left <= pool * mean + 1e-9, -math.inf, total)


def evidence(items: Floats, mean: float, pool: int | None = None) -> tuple[Floats, Floats]:
    """Return the greatest log wealth so far [..., n] against "at most `mean`" and against "at least `mean`".

    A pool that is drawn to the end settles the question: inf for the first if its mean is above, else for the second.
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
    # The largest mean that has been refuted from below; what was drawn bounds it from both sides.
    low, high = float(items.sum()) / pool, float(items.sum() + pool - len(items)) / pool
    for _ in range(20):
        middle = (low + high) / 2
        refuted = 0 < middle < 1 and _most(items, middle, pool) >= 1 / alpha
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _most(items: Floats, mean: float, pool: int) -> float:
    """Return the greatest wealth so far, given items [n] that alone settle nothing: `log_wealth` without logarithms."""
    gap, largest = _game(items, mean, pool)
    bets = _SMALLEST_BET * (_CAUTION / mean / _SMALLEST_BET) ** _STEPS
    wealth = np.minimum(bets, largest)  # [bets, n], and the rest in its place: a large array is slow to get
    wealth *= gap
    wealth += 1
    with np.errstate(over="ignore"):  # who is that rich is rich enough
        np.cumprod(wealth, axis=-1, out=wealth)
        return float(wealth.mean(axis=0).max(initial=0.0))
