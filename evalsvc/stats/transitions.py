"""Items lost and gained, adjustment for guessing, the A/A floor, and floor and ceiling effects.

`lost` and `gained` are shares of n items here. Chance adjustment: Harmon et al. 2025 (arXiv 2510.17776). It removes too
little for items that are not known, and too much if wrong answers stay the same, so it is only shown as a bound and
decides nothing.

Formulas and sources: docs/pages/statistics.md, section "What a mean hides".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evalsvc.stats.paired import LEVEL, Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ChanceBracket:
    """Shares lost and gained as counted, and after subtracting the share that guessing alone would explain.

    Attributes:
        spurious: (1 - a_base)(1 - a_adapted) / (k - 1), which is subtracted from both.
        ceiling: (k a_base - 1) / (k - 1): the largest possible loss if all items right by guessing stayed right.
        net: gained - lost, as counted; the adjustment does not change it unless a share is clipped.
        clipped: Whether an adjusted share was negative and is shown as 0.
    """

    lost: float
    gained: float
    lost_adjusted: float
    gained_adjusted: float
    spurious: float
    ceiling: float
    net: float
    clipped: bool


def guessing_accuracy(golds: Sequence[int], choices: Sequence[int]) -> float:
    """Return the expected accuracy of choosing at random: the mean over items of golds / choices.

    Args:
        golds: [n], how many of an item's choices are right.
        choices: [n], positive.
    """
    return math.fsum(right / count for right, count in zip(golds, choices, strict=True)) / len(choices)


def chance_bracket(lost: int, gained: int, base_right: int, n: int, choices: float) -> ChanceBracket:
    """Adjust transition counts for guessing among `choices` options, of which one is right.

    Args:
        base_right: Items that the base has right.
        choices: 1 / (accuracy of guessing), also where the number of choices varies or several of them are right.

    Raises:
        ValueError: There are fewer than two choices, or the counts are impossible for n items.
    """
    if choices <= 1 or not 0 <= lost <= base_right <= n - gained:
        raise ValueError(
            f"lost {lost}, gained {gained}, right {base_right} of {n} with {choices} choices: must be possible counts"
        )
    level_base, level_adapted = base_right / n, (base_right - lost + gained) / n
    spurious = (1 - level_base) * (1 - level_adapted) / (choices - 1)
    adjusted = [share / n - spurious for share in (lost, gained)]
    return ChanceBracket(
        lost=lost / n,
        gained=gained / n,
        lost_adjusted=max(0.0, adjusted[0]),
        gained_adjusted=max(0.0, adjusted[1]),
        spurious=spurious,
        ceiling=(choices * level_base - 1) / (choices - 1),
        net=(gained - lost) / n,
        clipped=min(adjusted) < 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Transitions between two runs of a base (A/A): run-to-run noise without any adaptation.

    Attributes:
        lost, gained: Shares of n items.
        net_lost, net_gained: An adapted arm's shares minus these.
        low, high: Interval of `net_lost`.
    """

    n: int
    lost: float
    gained: float
    net_lost: float
    net_gained: float
    low: float
    high: float


def above_floor(
    base: NDArray[np.float64], rerun: NDArray[np.float64], adapted: NDArray[np.float64], level: float = LEVEL
) -> Floor:
    """Compare an adapted arm's transitions with those of a second run of its base, on the same n binary items.

    The interval is paired by item: of the mean of (lost in the adapted arm) - (lost in the second run).
    """
    n = len(base)
    lost, lost_again = (base > adapted).astype(float), (base > rerun).astype(float)
    excess = lost - lost_again
    spread = float(excess.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    z = NormalDist().inv_cdf((1 + level) / 2)
    net = float(excess.mean())
    gained, gained_again = float((adapted > base).mean()), float((rerun > base).mean())
    return Floor(
        n=n,
        lost=float(lost_again.mean()),
        gained=gained_again,
        net_lost=net,
        net_gained=gained - gained_again,
        low=net - z * spread,
        high=net + z * spread,
    )


def share_interval(right: int, n: int, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval of a share (Wilson 1927, JASA 22:209-212)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def blind_spots(right: int, n: int, chance: float | None) -> tuple[str, ...]:
    """Return floor and ceiling effects of a base's level: "at ceiling", "at chance", "below chance", "at zero".

    A base at 1.0 cannot gain, and items that are all too easy hide a small loss. A base at chance, or at zero where
    nothing can be guessed, has nothing to forget. A base below chance looks better if it collapses towards guessing.
    """
    if right == n:
        return ("at ceiling",)
    if chance is None:
        return ("at zero",) if right == 0 else ()
    low, high = share_interval(right, n)
    if high < chance:
        return ("below chance",)
    return ("at chance",) if low <= chance else ()
