"""Power analysis: the margin that a number of items resolves, and the items that a margin needs.

A checkpoint as good as its base still changes some items either way. With discordance D_s (mean squared difference per
item; for binary items the share that changes) on task s with n_s items and share w_s, the weighted mean of the
differences has standard error e = sqrt(sum w_s^2 D_s / n_s). By the normal approximation of the paired tests:

* the smallest margin that is shown with power 1 - beta is z_alpha e + z_beta e;
* the power at a margin is Phi((margin - z_alpha e) / e);
* the items needed are n ((z_alpha + z_beta) e / margin)^2.

For scores in [0, 1] a margin cannot be smaller than the bound if no item changes: Tango's half-width z^2 / (n + z^2) on
one task, MOVER's sqrt(sum (w_s z^2 / (n_s + z^2))^2) on a mean (see `margins`).

Where units are documents of several items or clusters, z_alpha is Student's t of each part's effective number of units,
as in its interval: z_alpha e is then sqrt(sum (w_s t_s)^2 D_s / n_s).

For graded items and K sampled answers per item: Miller 2024 (arXiv 2411.00640), equation 9, two-sided.

Formulas and sources: docs/pages/statistics.md, section "Power".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from evalsvc.stats.margins import z_of
from evalsvc.stats.unit_means import t_quantile

ALPHA = 0.05
POWER = 0.80
ASSUMED_DISCORDANCE = 0.10


class PartUnits(NamedTuple):
    """The independent units of one part of a mean.

    Attributes:
        effective: Effective number of units.
        is_items: Whether every unit is one item; else intervals use Student's t.
    """

    effective: float
    is_items: bool = True

    def scale(self, factor: float) -> PartUnits:
        """Return `factor` times as many units."""
        return self._replace(effective=self.effective * factor)

    def quantile(self, z: float) -> float:
        """Return the quantile that an interval uses for a normal quantile z; inf for a single unit of several items."""
        return float(t_quantile(np.asarray(z), math.inf if self.is_items else self.effective - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnchangedMean:
    """The weighted mean of paired differences for an unchanged checkpoint: one that is as good as its base.

    Attributes:
        shares: Shares of the parts in the mean; they sum to 1.
        units: The independent units of each part, of which an "item" below is the usual one.
        variances: Variance of each part's difference, D_s / n_s.
        z_alpha: One-sided normal quantile of the test.
        is_bounded: Whether each item's difference lies in [-1, 1].
    """

    shares: tuple[float, ...]
    units: tuple[PartUnits, ...]
    variances: tuple[float, ...]
    z_alpha: float
    is_bounded: bool = True

    @property
    def n(self) -> int:
        """Number of units of all parts."""
        return round(sum(part.effective for part in self.units))

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(sum(w**2 * variance for w, variance in zip(self.shares, self.variances, strict=True)))

    def half_width(self, factor: float = 1.0) -> float:
        """Return the half-width of the interval to expect, with `factor` times as many items."""
        parts = zip(self.shares, self.units, self.variances, strict=True)
        squares = (w**2 * part.scale(factor).quantile(self.z_alpha) ** 2 * variance for w, part, variance in parts)
        return math.sqrt(sum(squares) / factor)

    def resolvable_margin(self, power: float = POWER) -> float:
        """Return the smallest margin that is shown with probability `power`."""
        margin = self.half_width() + z_of(1 - power) * self.error
        return (
            min(1.0, max(margin, unchanged_bound(self.shares, self.units, self.z_alpha))) if self.is_bounded else margin
        )

    def power(self, margin: float, factor: float = 1.0) -> float:
        """Return the probability to show that the loss is below `margin`, with `factor` times as many items."""
        units = [part.scale(factor) for part in self.units]
        if self.is_bounded and unchanged_bound(self.shares, units, self.z_alpha) >= margin:
            return 0.0
        error = self.error / math.sqrt(factor)
        return NormalDist().cdf((margin - self.half_width(factor)) / error) if error else 1.0

    def needed_n(self, margin: float, power: float = POWER) -> int:
        """Return the number of items, split over the tasks in the same proportions, for this power at `margin`."""
        error = self.error * z_of(1 - power)
        factor = _smallest_factor(lambda factor: self.half_width(factor) + error / math.sqrt(factor) <= margin)
        needed = math.ceil(self.n * factor - 1e-9)
        if not self.is_bounded:
            return needed
        return max(needed, smallest_passing_n(margin, self.z_alpha, self.units, self.shares))


def unchanged_variance(stderr: float, difference: float, n: int) -> float:
    """Return D / n of measured differences: the variance of a mean of 0 with the same mean square per item."""
    return stderr**2 + difference**2 / n


def expected_discordance(seen: float, n: int) -> float:
    """Return the discordance to expect after a share `seen` of n items changed: at least 1 / (n + 1).

    So it is never 0, even if none of n items changed.
    """
    return max(seen, 1 / (n + 1))


def unchanged_bound(shares: Sequence[float], units: Sequence[PartUnits], z_alpha: float) -> float:
    """Return the half-width of the interval of a mean over units of which none changed.

    At levels above 5 % Tango's is too small: there it is at least the loss p that n units exclude exactly,
    (1 - p)^n = alpha.
    """
    total = 0.0
    for w, part in zip(shares, units, strict=True):
        square = part.quantile(z_alpha) ** 2
        bound = 1.0 if math.isinf(square) else square / (part.effective + square)
        if z_alpha < z_of(ALPHA) - 1e-9:
            bound = max(bound, 1 - NormalDist().cdf(-z_alpha) ** (1 / part.effective))
        total += (w * bound) ** 2
    return math.sqrt(total)


@lru_cache(maxsize=2**10)
def smallest_passing_n(
    margin: float, z_alpha: float, units: tuple[PartUnits, ...] = (PartUnits(1),), shares: tuple[float, ...] = (1.0,)
) -> int:
    """Return the smallest number of items that exclude a loss of `margin` if none of them changes.

    Args:
        units: The units of several tasks, for the proportions in which the items are split over them.
    """

    def split(factor: float) -> list[PartUnits]:
        return [part._replace(effective=math.ceil(part.effective * factor - 1e-9)) for part in units]

    factor = _smallest_factor(lambda factor: unchanged_bound(shares, split(factor), z_alpha) < margin)
    return sum(int(part.effective) for part in split(factor))


def _smallest_factor(is_enough: Callable[[float], bool]) -> float:
    """Return the smallest multiple of the units that is enough, for a condition that stays true from there on."""
    low, high = 0.0, 1.0
    while not is_enough(high):
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


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
