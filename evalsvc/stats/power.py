"""Power analysis: the margin that a number of items resolves, and the items that a margin needs.

A checkpoint as good as its base still changes some items either way. With discordance D_s (mean squared difference per
item; for binary items the share that changes) on task s with n_s items and share w_s, the weighted mean of the
differences has standard error e = sqrt(sum w_s^2 D_s / n_s). By the normal approximation of the paired tests:

* the smallest margin that is shown with power 1 - beta is (z_alpha + z_beta) e;
* the power at a margin is Phi(margin / e - z_alpha);
* the items needed are n ((z_alpha + z_beta) e / margin)^2.

For scores in [0, 1] a margin cannot be smaller than the bound if no item changes: Tango's half-width z^2 / (n + z^2) on
one task, MOVER's sqrt(sum (w_s z^2 / (n_s + z^2))^2) on a mean (see `margins`).

For graded items and K sampled answers per item: Miller 2024 (arXiv 2411.00640), equation 9, two-sided.

Formulas and sources: docs/pages/statistics.md, section "Power".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from evalsvc.stats.margins import z_of

ALPHA = 0.05
POWER = 0.80
ASSUMED_DISCORDANCE = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class UnchangedMean:
    """The weighted mean of paired differences for an unchanged checkpoint: one that is as good as its base.

    Attributes:
        shares: Shares of the tasks in the mean; they sum to 1.
        items: Number of independent units of each part, of which "items" stands for the usual one.
        variances: Variance of each task's difference, D_s / n_s.
        z_alpha: One-sided normal quantile of the test.
        is_bounded: Whether each item's difference lies in [-1, 1].
    """

    shares: tuple[float, ...]
    items: tuple[float, ...]
    variances: tuple[float, ...]
    z_alpha: float
    is_bounded: bool = True

    @property
    def n(self) -> int:
        """Number of units of all parts."""
        return round(sum(self.items))

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(sum(w**2 * variance for w, variance in zip(self.shares, self.variances, strict=True)))

    def resolvable_margin(self, power: float = POWER) -> float:
        """Return the smallest margin that is shown with probability `power`."""
        margin = (self.z_alpha + z_of(1 - power)) * self.error
        return (
            min(1.0, max(margin, unchanged_bound(self.shares, self.items, self.z_alpha))) if self.is_bounded else margin
        )

    def power(self, margin: float, factor: float = 1.0) -> float:
        """Return the probability to show that the loss is below `margin`, with `factor` times as many items."""
        items = [n * factor for n in self.items]
        if self.is_bounded and unchanged_bound(self.shares, items, self.z_alpha) >= margin:
            return 0.0
        error = self.error / math.sqrt(factor)
        return NormalDist().cdf(margin / error - self.z_alpha) if error else 1.0

    def needed_n(self, margin: float, power: float = POWER) -> int:
        """Return the number of items, split over the tasks in the same proportions, for this power at `margin`."""
        needed = scale_items(self.n, self.error, margin, self.z_alpha, power)
        return (
            max(needed, smallest_passing_n(margin, self.z_alpha, self.items, self.shares))
            if self.is_bounded
            else needed
        )


def unchanged_variance(stderr: float, difference: float, n: int) -> float:
    """Return D / n of measured differences: the variance of a mean of 0 with the same mean square per item."""
    return stderr**2 + difference**2 / n


def expected_discordance(seen: float, n: int) -> float:
    """Return the discordance to expect after a share `seen` of n items changed: at least 1 / (n + 1).

    So it is never 0, even if none of n items changed.
    """
    return max(seen, 1 / (n + 1))


def scale_items(n: int, error: float, distance: float, z_alpha: float, power: float = POWER) -> int:
    """Return the items needed to show an estimate at `distance` from its threshold, if n items have this `error`."""
    return math.ceil(n * ((z_alpha + z_of(1 - power)) * error / distance) ** 2)


def unchanged_bound(shares: Sequence[float], items: Sequence[float], z_alpha: float) -> float:
    """Return the half-width of the interval of a mean over binary items of which none changed."""
    square = z_alpha**2
    return math.sqrt(sum((w * square / (n + square)) ** 2 for w, n in zip(shares, items, strict=True)))


@lru_cache(maxsize=2**10)
def smallest_passing_n(
    margin: float, z_alpha: float, items: tuple[float, ...] = (1,), shares: tuple[float, ...] = (1.0,)
) -> int:
    """Return the smallest number of items that exclude a loss of `margin` if none of them changes.

    Args:
        items: Items of several tasks, for the proportions in which the items are split over them.
    """

    def passes(factor: float) -> bool:
        return unchanged_bound(shares, [math.ceil(n * factor - 1e-9) for n in items], z_alpha) < margin

    low, high = 0.0, 1.0
    while not passes(high):
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return sum(math.ceil(n * high - 1e-9) for n in items)


def paired_needed_n(
    difference: float,
    between: float,
    within: tuple[float, float] = (0.0, 0.0),
    samples: tuple[int, int] = (1, 1),
    alpha: float = ALPHA,
    power: float = POWER,
) -> float:
    """Return the items that a two-sided paired test needs to detect a mean difference (Miller 2024, equation 9).

    Args:
        between: Variance over items of the difference of the two arms' expected scores.
        within: Mean variance of the score on one item, per arm; 0 for deterministic scores.
        samples: Sampled answers per item, per arm.
    """
    return (z_of(alpha / 2) + z_of(1 - power)) ** 2 * _paired_variance(between, within, samples) / difference**2


def paired_detectable(
    n: int,
    between: float,
    within: tuple[float, float] = (0.0, 0.0),
    samples: tuple[int, int] = (1, 1),
    alpha: float = ALPHA,
    power: float = POWER,
) -> float:
    """Return the smallest mean difference that n items detect; arguments as in `paired_needed_n`."""
    return (z_of(alpha / 2) + z_of(1 - power)) * math.sqrt(_paired_variance(between, within, samples) / n)


def _paired_variance(between: float, within: tuple[float, float], samples: tuple[int, int]) -> float:
    return between + within[0] / samples[0] + within[1] / samples[1]


def paired_error(first: float, second: float, correlation: float) -> float:
    """Return the standard error of a difference of two means, from their standard errors and the correlation."""
    return math.sqrt(first**2 + second**2 - 2 * correlation * first * second)
