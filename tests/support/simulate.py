"""Simulated gates on one suite of binary items: how often each mode passes and fails, and what it asks.

An item is lost with probability (D - change) / 2 and gained with (D + change) / 2; a finite pool holds exactly as many
of each, in random order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalsvc.stats.betting import compute_max_log_wealth
from evalsvc.stats.margins import z_of
from evalsvc.stats.paired import tango_z
from evalsvc.stats.sequential import spending_bounds

ALPHA = 0.05
LOOKS = (0.2, 0.4, 0.6, 0.8, 1.0)

Array = NDArray[np.float64]


class Rates(NamedTuple):
    """Shares of simulated gates, and the mean share of items that was asked."""

    passed: float
    failed: float
    asked: float


def draw_population(n: int, discordance: float, change: float, runs: int, seed: int = 1) -> Array:
    """Draw [runs, n] differences from an endless population."""
    discordance = max(discordance, abs(change))
    u = np.random.default_rng(seed).random((runs, n))
    lost, gained = (discordance - change) / 2, (discordance + change) / 2
    return np.where(u < lost, -1.0, np.where(u < lost + gained, 1.0, 0.0))


def shuffle_pools(n: int, discordance: float, change: float, runs: int, seed: int = 1) -> Array:
    """Shuffle [runs, n] pools of one composition."""
    discordance = max(discordance, abs(change))
    lost, gained = round(n * (discordance - change) / 2), round(n * (discordance + change) / 2)
    one = np.concatenate([-np.ones(lost), np.ones(gained), np.zeros(n - lost - gained)])
    return np.random.default_rng(seed).permuted(np.tile(one, (runs, 1)), axis=1)


def compute_z(differences: Array, count: int, margin: float) -> Array:
    seen = differences[:, :count]
    return tango_z(-margin, (seen < 0).sum(axis=1), (seen > 0).sum(axis=1), count)


def simulate_fixed(differences: Array, margin: float, alpha: float = ALPHA) -> Rates:
    z = compute_z(differences, differences.shape[1], margin)
    return Rates(float((z >= z_of(alpha)).mean()), float((z <= -z_of(alpha)).mean()), 1.0)


def simulate_looks(differences: Array, margin: float, bounds: tuple[float, ...]) -> Rates:
    """Stop at the first of five looks at which z leaves the bounds."""
    runs, n = differences.shape
    verdict, asked = np.zeros(runs), np.ones(runs)
    for fraction, bound in zip(LOOKS, bounds, strict=True):
        z = compute_z(differences, int(np.ceil(fraction * n)), margin)
        crossed = np.where(z >= bound, 1, np.where(z <= -bound, -1, 0))
        new = (verdict == 0) & (crossed != 0)
        verdict[new], asked[new] = crossed[new], fraction
    return Rates(float((verdict > 0).mean()), float((verdict < 0).mean()), float(asked.mean()))


def simulate_group_sequential(differences: Array, margin: float, alpha: float = ALPHA) -> Rates:
    return simulate_looks(differences, margin, spending_bounds(LOOKS, alpha))


def simulate_betting(differences: Array, margin: float, alpha: float = ALPHA, *, finite: bool) -> Rates:
    """Stop at the first item at which the evidence is overwhelming."""
    n = differences.shape[1]
    items, mean = (differences + 1) / 2, (1 - margin) / 2
    above, below = compute_max_log_wealth(items, mean, n if finite else None)
    needed = -np.log(alpha)
    up, down = (np.where((e >= needed).any(axis=1), (e >= needed).argmax(axis=1), n) for e in (above, below))
    asked = np.minimum(np.minimum(up, down) + 1, n) / n
    return Rates(float((up < down).mean()), float((down < up).mean()), float(asked.mean()))
