"""How much a number of binary items can resolve, before or after they are scored.

Normal approximation of the paired score test: with discordance D (share of items that change either way) and true
difference 0, n items exclude a loss of delta with power 1 - beta when n = (z_alpha + z_beta)^2 D / delta^2.
"""

from __future__ import annotations

import math
from statistics import NormalDist

ALPHA = 0.05
POWER = 0.80
ASSUMED_DISCORDANCE = 0.10


def _z_sum(alpha: float, power: float) -> float:
    return NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)


def resolvable_margin(
    n: int, discordance: float = ASSUMED_DISCORDANCE, alpha: float = ALPHA, power: float = POWER
) -> float:
    """Return the smallest margin that n items resolve."""
    return _z_sum(alpha, power) * math.sqrt(discordance / n)


def needed_n(
    margin: float, discordance: float, difference: float = 0.0, alpha: float = ALPHA, power: float = POWER
) -> int:
    """Return the items needed to show that a loss stays below `margin`, given the true difference.

    Raises:
        ValueError: The difference is not above -margin, so no n is enough.
    """
    if difference <= -margin:
        raise ValueError(f"difference == {difference}, must be > {-margin}: no number of items can show it")
    return math.ceil(_z_sum(alpha, power) ** 2 * (discordance - difference**2) / (difference + margin) ** 2)


def smallest_passing_n(margin: float, alpha: float = ALPHA) -> int:
    """Return the n below which not even zero changed items exclude a loss of `margin` (Tango's z at no discordance)."""
    z = NormalDist().inv_cdf(1 - alpha)
    return math.floor(z * z * (1 - margin) / margin) + 1
