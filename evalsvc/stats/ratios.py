"""Test and bounds of a ratio of two means over the same units: how much of the base's mean an arm keeps.

For values a_u (arm) and b_u (base) in [0, 1], "mean a / mean b > r" is "mean x > 0" with x_u = a_u - r b_u (Fieller
1954), which is tested by the score statistic of `unit_means`. A unit that was not seen is lost whole where the ratio is
above r: x = -r b, with the largest b of those that were seen (for few units with different b, r alone is conservative,
and the mean b lets too many pass: docs/pages/statistics.md, section "Diversity and drift"). Where the ratio is below r,
the worst unit has x = 1. The bounds of the ratio are the r at which the statistic reaches the quantile.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalsvc.stats.unit_means import UnitSums, normal_quantile, score_z, t_quantile

Floats = NDArray[np.float64]

_SMALLEST, _LARGEST = 1e-9, 1e6
"""Ratios between which the bounds lie; above the largest there is none."""
_ROUNDS = 100
_CLOSE = 1e-9
"""Precision of z at a bound."""


class PairedValues(NamedTuple):
    """Values in [0, 1] of the same n independent units.

    Attributes:
        base, adapted: [n].
    """

    base: Floats
    adapted: Floats

    @property
    def is_testable(self) -> bool:
        """Whether the ratio has bounds: at least two units, and a base that has something to keep."""
        return len(self.base) > 1 and bool(self.base.mean() > 0)

    @property
    def ratio(self) -> float:
        """The mean of `adapted` over that of `base`, which must be positive."""
        return float(self.adapted.mean() / self.base.mean())

    @property
    def stderr(self) -> float:
        """Standard error of the ratio, by the delta method."""
        residuals = self.adapted - self.ratio * self.base
        return float(residuals.std(ddof=1) / np.sqrt(len(self.base)) / self.base.mean())


def ratio_z(values: PairedValues, threshold: float) -> float:
    """Return the normal quantile of H0: ratio == `threshold` > 0; positive if the ratio is above it."""
    x = values.adapted - threshold * values.base
    scale = threshold * float(values.base.max()) if x.mean() > 0 else 1.0
    z = score_z(UnitSums(sums=(x / scale)[None], sizes=np.ones(len(x))), 0.0)
    return float(normal_quantile(z, len(x) - 1)[0])


def count_fewest_units(threshold: float, z: float) -> int:
    """Return the number of units from which a ratio of 1 without any change is above `threshold` < 1 at z.

    The statistic is then sqrt(n (1 - threshold) / threshold), as of a share of which no unit was lost.
    """
    odds = threshold / (1 - threshold)
    n = max(2, math.ceil(odds * z**2))
    while n < odds * float(t_quantile(np.asarray(z), n - 1)) ** 2:
        n += 1
    return n


def ratio_bounds(values: PairedValues, z: Floats) -> tuple[Floats, Floats]:
    """Return lower and upper bounds [len(z)] of the ratio at each z >= 0; inf where there is no upper bound."""
    ratio = values.ratio
    low, high = np.full(len(z), ratio), np.full(len(z), ratio)
    for i, quantile in enumerate(map(float, z)):
        if quantile > 0:
            low[i] = _find_crossing(values, quantile, ratio * _SMALLEST, ratio) if ratio > 0 else 0.0
            end = max(2 * ratio, 1.0)
            while ratio_z(values, end) > -quantile and end < _LARGEST:
                end *= 4
            high[i] = _find_crossing(values, -quantile, ratio, end) if end < _LARGEST else np.inf
    return low, high


def _find_crossing(values: PairedValues, quantile: float, low: float, high: float) -> float:
    """Return the ratio at which the falling z is `quantile`; 0 if it is below that at `low`.

    Args:
        low, high: Between these; one of them is the ratio of the means, where z is 0.
    """
    above = ratio_z(values, low) - quantile if quantile > 0 else -quantile
    below = ratio_z(values, high) - quantile if quantile < 0 else -quantile
    if above <= 0:
        return 0.0
    middle = high
    for _ in range(_ROUNDS):
        # The Illinois rule: false position, with half the value of an end that stays.
        middle = (low * below - high * above) / (below - above)
        value = ratio_z(values, middle) - quantile
        if abs(value) < _CLOSE:
            break
        if value > 0:
            low, above, below = middle, value, below / 2
        else:
            high, below, above = middle, value, above / 2
    return middle
