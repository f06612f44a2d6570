"""How much a number of items can resolve, before or after they are scored.

A checkpoint that is as good as its base still changes some items either way. With discordance D_s (mean squared
difference per item; for binary items the share that changes) on task s of n_s items and share w_s, the weighted mean of
the differences has standard error e = sqrt(sum w_s^2 D_s / n_s), and, by the normal approximation of the paired tests:

* the smallest margin that is shown with power 1 - beta is (z_alpha + z_beta) e;
* the power at a margin is Phi(margin / e - z_alpha);
* the items needed are n ((z_alpha + z_beta) e / margin)^2.

Scores in [0, 1] are never resolved further than by items of which none changes: Tango's half-width z^2 / (n + z^2) on a
task, MOVER's sqrt(sum (w_s z^2 / (n_s + z^2))^2) on a mean (see `margins`).

For graded items, and for K sampled answers per item: Miller 2024 (arXiv 2411.00640), equation 9, two-sided.
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
    """A weighted mean of paired differences under no change: what its items show of a checkpoint as good as its base.

    Attributes:
        shares: Of the tasks in the mean; they add up to 1.
        items: Of each task.
        variances: Of each task's difference under no change, D_s / n_s.
        z_alpha: One-sided quantile of the test.
        bounded: Whether each item's difference lies in [-1, 1].
    """

    shares: tuple[float, ...]
    items: tuple[int, ...]
    variances: tuple[float, ...]
    z_alpha: float
    bounded: bool = True

    @property
    def n(self) -> int:
        """Items of all tasks."""
        return sum(self.items)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(sum(w**2 * variance for w, variance in zip(self.shares, self.variances, strict=True)))

    def resolvable_margin(self, power: float = POWER) -> float:
        """Return the smallest margin that is shown with probability `power`."""
        margin = (self.z_alpha + z_of(1 - power)) * self.error
        return min(1.0, max(margin, unchanged_bound(self.shares, self.items, self.z_alpha))) if self.bounded else margin

    def power(self, margin: float, factor: float = 1.0) -> float:
        """Return the chance to show that the loss stays below `margin`, given `factor` times as many items."""
        items = [n * factor for n in self.items]
        if self.bounded and unchanged_bound(self.shares, items, self.z_alpha) >= margin:
            return 0.0
        error = self.error / math.sqrt(factor)
        return NormalDist().cdf(margin / error - self.z_alpha) if error else 1.0

    def needed_n(self, margin: float, power: float = POWER) -> int:
        """Return the items, split over the tasks as these are, that show a loss below `margin` with this power."""
        needed = scale_items(self.n, self.error, margin, self.z_alpha, power)
        return (
            max(needed, smallest_passing_n(margin, self.z_alpha, self.items, self.shares)) if self.bounded else needed
        )


def unchanged_variance(stderr: float, difference: float, n: int) -> float:
    """Return D / n of measured differences: the variance of their mean with the same squares around 0."""
    return stderr**2 + difference**2 / n


def expected_discordance(seen: float, n: int) -> float:
    """Return the discordance to expect of further items after a share `seen` of n: at least one in n + 1.

    Where nothing has changed so far, the next item may.
    """
    return max(seen, 1 / (n + 1))


def scale_items(n: int, error: float, distance: float, z_alpha: float, power: float = POWER) -> int:
    """Return the items that show an estimate `distance` from its threshold, if n items have this standard error."""
    return math.ceil(n * ((z_alpha + z_of(1 - power)) * error / distance) ** 2)


def unchanged_bound(shares: Sequence[float], items: Sequence[float], z_alpha: float) -> float:
    """Return the half-width of the interval of a mean over binary items of which none has changed."""
    square = z_alpha**2
    return math.sqrt(sum((w * square / (n + square)) ** 2 for w, n in zip(shares, items, strict=True)))


@lru_cache(maxsize=2**10)
def smallest_passing_n(
    margin: float, z_alpha: float, items: tuple[int, ...] = (1,), shares: tuple[float, ...] = (1.0,)
) -> int:
    """Return the fewest items that exclude a loss of `margin` if none of them changes.

    Args:
        items: Of several tasks, for the proportions in which the items are split over them.
    """

    def passes(factor: float) -> bool:
        return unchanged_bound(shares, [math.ceil(n * factor) for n in items], z_alpha) < margin

    low, high = 0.0, 1.0
    while not passes(high):
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return sum(math.ceil(n * high) for n in items)


def paired_needed_n(
    difference: float,
    between: float,
    within: tuple[float, float] = (0.0, 0.0),
    samples: tuple[int, int] = (1, 1),
    alpha: float = ALPHA,
    power: float = POWER,
) -> float:
    """Return the items that a two-sided paired test needs to find a mean difference; round up to use it.

    Args:
        between: Variance over items of the difference of the two arms' expected scores.
        within: Mean variance of a score on one item, per arm: 0 for scores that do not vary from draw to draw.
        samples: Answers sampled per item, per arm.
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
    """Return the smallest mean difference that n items find; arguments as in `paired_needed_n`."""
    return (z_of(alpha / 2) + z_of(1 - power)) * math.sqrt(_paired_variance(between, within, samples) / n)


def _paired_variance(between: float, within: tuple[float, float], samples: tuple[int, int]) -> float:
    return between + within[0] / samples[0] + within[1] / samples[1]


def paired_error(first: float, second: float, correlation: float) -> float:
    """Return the standard error of a difference of two means, from theirs and the correlation of the items' scores."""
    return math.sqrt(first**2 + second**2 - 2 * correlation * first * second)
