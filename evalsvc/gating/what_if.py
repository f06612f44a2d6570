"""Tests the same evidence with another margin, alpha or number of items. Pure; stores no decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from evalsvc.analysis.compare import UNIT_INTERVAL, compute_task_shares
from evalsvc.analysis.units import measure_differences
from evalsvc.errors import UsageError
from evalsvc.gating.verdict import Verdict
from evalsvc.records.comparisons import Comparison
from evalsvc.stats.margins import PairedDifference, margin_test, z_of
from evalsvc.stats.power import PartUnits, UnchangedMean, expected_discordance, unchanged_variance


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The outcome of a retention rule with other settings.

    Attributes:
        estimate: Gain, positive is better.
        low, high: One-sided bounds of the estimate, each at alpha.
        power: Probability that an unchanged checkpoint with the same discordance passes.
        needed_n: Items for a power of 80 %.
    """

    verdict: Verdict
    estimate: float
    low: float
    high: float
    n: int
    p_pass: float
    power: float
    needed_n: int


def recompute_under(tasks: Sequence[Comparison], margin: float, alpha: float, factor: float = 1.0) -> WhatIf:
    """Test whether the mean loss over some tasks is below a margin, with `factor` times as many units.

    What is lost and gained is scaled with the number of units.

    Raises:
        UsageError: There is no task with an interval, or a number is out of range.
    """
    usable = [task for task in tasks if task.low is not None]
    if not usable or not (0 < margin < 1 and 0 < alpha <= 0.2 and factor > 0):
        raise UsageError(
            f"{len(usable)} tasks with an interval, margin {margin}, alpha {alpha}, factor {factor}: must have at "
            "least one task, a margin between 0 and 1, an alpha up to 0.2 and a positive factor"
        )
    shares = compute_task_shares([(task.suite, task.weight) for task in usable])
    parts, weights = measure_differences(usable, shares)
    scaled = [_scale_part(part, factor) for part in parts]
    test = margin_test(scaled, weights, -margin, z_of(alpha))
    verdict: Verdict = "inconclusive"
    if test.z >= z_of(alpha):
        verdict = "pass"
    elif test.p_below <= alpha:
        verdict = "fail"
    is_bounded = all(task.unit == UNIT_INTERVAL for task in usable)
    unchanged = _measure_unchanged(parts, weights, z_of(alpha), is_bounded)
    return WhatIf(
        verdict=verdict,
        estimate=test.difference,
        low=test.low,
        high=test.high,
        n=sum(part.n for part in scaled),
        p_pass=test.p_above,
        power=unchanged.power(margin, factor),
        needed_n=unchanged.needed_n(margin),
    )


def compute_power_curve(
    tasks: Sequence[Comparison], margin: float, alpha: float, factors: Sequence[float]
) -> list[tuple[int, float]]:
    """Return number of items and power, for several multiples of the present number of items."""
    answers = [recompute_under(tasks, margin, alpha, factor) for factor in factors]
    return [(answer.n, answer.power) for answer in answers]


def _scale_part(part: PairedDifference, factor: float) -> PairedDifference:
    """Return a difference as it would be with `factor` times as many units of the same kind."""
    n = max(2, round(part.n * factor))
    if part.units is not None:
        # The first of the repeated units, in order of their contributions, so that these keep their distribution.
        order = np.argsort(part.units.sums[0], kind="stable")
        chosen = order[(np.arange(n) * part.n / n).astype(np.intp)]
        sizes = part.units.sizes[chosen]
        sums = part.units.sums[:, chosen] / sizes.mean()
        units = part.units._replace(sums=sums, sizes=sizes / sizes.mean())
        return part._replace(
            n=n, difference=float(units.sums.mean()), stderr=part.stderr * sqrt(part.n / n), units=units
        )
    counts = None if part.counts is None else (round(part.counts[0] * n / part.n), round(part.counts[1] * n / part.n))
    return part._replace(
        n=n,
        difference=part.difference if counts is None else (counts[1] - counts[0]) / n,
        stderr=part.stderr * sqrt(part.n / n),
        counts=counts,
        df=max(1, part.df * n / part.n),
    )


def _measure_unchanged(
    parts: Sequence[PairedDifference], shares: Sequence[float], z_alpha: float, is_bounded: bool
) -> UnchangedMean:
    """Return the mean of an unchanged checkpoint, with the measured discordance."""
    return UnchangedMean(
        shares=tuple(shares),
        units=tuple(PartUnits(part.effective, part.is_items) for part in parts),
        variances=tuple(
            max(unchanged_variance(part.stderr, part.difference, part.n), expected_discordance(0.0, part.n) / part.n)
            for part in parts
        ),
        z_alpha=z_alpha,
        is_bounded=is_bounded,
    )
