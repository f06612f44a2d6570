"""Tests the same evidence with another margin, alpha or number of items. Pure; stores no decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from evalsvc.analysis.compare import UNIT_INTERVAL, compute_task_shares
from evalsvc.errors import UsageError
from evalsvc.gating.measure import build_paired
from evalsvc.gating.verdict import Verdict
from evalsvc.records.comparisons import Comparison
from evalsvc.stats.margins import PairedDifference, margin_test, z_of
from evalsvc.stats.power import UnchangedMean, expected_discordance, unchanged_variance


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
    """Test whether the mean loss over some tasks is below a margin, with `factor` times as many items.

    The numbers of lost and gained items are scaled with the number of items.

    Raises:
        UsageError: There is no task with an interval, or a number is out of range.
    """
    usable = [task for task in tasks if task.lost is not None or task.stderr is not None]
    if not usable or not (0 < margin < 1 and 0 < alpha <= 0.2 and factor > 0):
        raise UsageError(
            f"{len(usable)} tasks with an interval, margin {margin}, alpha {alpha}, factor {factor}: must have at "
            "least one task, a margin between 0 and 1, an alpha up to 0.2 and a positive factor"
        )
    shares = compute_task_shares([(task.suite, task.weight) for task in usable])
    scaled = [_scale_task(build_paired(task), factor) for task in usable]
    test = margin_test(scaled, shares, -margin, z_of(alpha))
    verdict: Verdict = "inconclusive"
    if test.z >= z_of(alpha):
        verdict = "pass"
    elif test.p_below <= alpha:
        verdict = "fail"
    unchanged = _measure_unchanged(usable, shares, z_of(alpha))
    return WhatIf(
        verdict=verdict,
        estimate=test.difference,
        low=test.low,
        high=test.high,
        n=sum(task.n for task in scaled),
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


def _scale_task(task: PairedDifference, factor: float) -> PairedDifference:
    n = max(2, round(task.n * factor))
    counts = None if task.counts is None else (round(task.counts[0] * n / task.n), round(task.counts[1] * n / task.n))
    difference = task.difference if counts is None else (counts[1] - counts[0]) / n
    return task._replace(
        n=n,
        difference=difference,
        stderr=task.stderr * sqrt(task.n / n),
        counts=counts,
        df=max(1, task.df * n / task.n),
    )


def _measure_unchanged(tasks: Sequence[Comparison], shares: Sequence[float], z_alpha: float) -> UnchangedMean:
    """Return the mean of an unchanged checkpoint, with the measured discordance."""
    return UnchangedMean(
        shares=tuple(shares),
        items=tuple(task.n for task in tasks),
        variances=tuple(
            max(unchanged_variance(task.stderr or 0.0, task.gain, task.n), expected_discordance(0.0, task.n) / task.n)
            for task in tasks
        ),
        z_alpha=z_alpha,
        is_bounded=all(task.unit == UNIT_INTERVAL for task in tasks),
    )
