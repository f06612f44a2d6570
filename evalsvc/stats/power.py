"""How much a number of binary items can resolve, before or after they are scored.

Normal approximation of the paired score test: with discordance D (share of items that change either way) and true
difference 0, n items exclude a loss of delta with power 1 - beta when n = (z_alpha + z_beta)^2 D / delta^2.

For graded items, and for K sampled answers per item: Miller 2024 (arXiv 2411.00640), equation 9, two-sided.
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
    return _z_sum(alpha / 2, power) ** 2 * _paired_variance(between, within, samples) / difference**2


def paired_detectable(
    n: int,
    between: float,
    within: tuple[float, float] = (0.0, 0.0),
    samples: tuple[int, int] = (1, 1),
    alpha: float = ALPHA,
    power: float = POWER,
) -> float:
    """Return the smallest mean difference that n items find; arguments as in `paired_needed_n`."""
    return _z_sum(alpha / 2, power) * math.sqrt(_paired_variance(between, within, samples) / n)


def _paired_variance(between: float, within: tuple[float, float], samples: tuple[int, int]) -> float:
    return between + within[0] / samples[0] + within[1] / samples[1]


def paired_error(first: float, second: float, correlation: float) -> float:
    """Return the standard error of a difference of two means, from theirs and the correlation of the items' scores."""
    return math.sqrt(first**2 + second**2 - 2 * correlation * first * second)
