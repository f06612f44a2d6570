"""Tests one rule: estimate, interval, items needed, smallest margin that the items resolve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit

from evalsvc.analysis.compare import UNIT_INTERVAL
from evalsvc.analysis.units import measure_differences
from evalsvc.errors import EvidenceError
from evalsvc.gating.rules import Rule
from evalsvc.records.comparisons import Comparison
from evalsvc.records.vocabulary import Floats
from evalsvc.stats.margins import MarginTest, PairedDifference, bound_sum, margin_test, z_of
from evalsvc.stats.power import (
    POWER,
    PartUnits,
    UnchangedMean,
    expected_discordance,
    smallest_passing_n,
    unchanged_variance,
)

MOST_RUNS = 1000
"""More runs of a recipe are not advised."""

# --------------------------------------------------------------------------------------------------------- evidence


@dataclass(frozen=True, slots=True)
class MeasuredRule:
    """A rule with its test and the comparisons behind it.

    Attributes:
        parts, weights: The independent differences that the test is about, and their shares.
        spread: Of a recipe, the difference between the mean over its runs and over all runs that it might have: 0, with
            the error that the variance between runs gives it. None for one checkpoint.
    """

    rule: Rule
    test: MarginTest
    parts: tuple[PairedDifference, ...]
    weights: tuple[float, ...]
    comparisons: tuple[Comparison, ...] = ()
    spread: PairedDifference | None = None

    @property
    def n(self) -> int:
        """Items (for diversity: prompts) behind the test."""
        return self.rule.ratio.n if self.rule.ratio else sum(c.n for c in self.comparisons)

    @property
    def units(self) -> int:
        """Independent units behind the test: documents, or clusters of them (for diversity: prompts)."""
        return sum(part.n for part in self.parts)

    @property
    def error(self) -> float:
        """Standard error of the estimate over items."""
        return math.sqrt(sum((w * part.stderr) ** 2 for w, part in zip(self.weights, self.parts, strict=True)))


def measure_rule(rule: Rule, z_alpha: float) -> MeasuredRule:
    """Test one rule.

    Args:
        z_alpha: One-sided normal quantile of the interval's ends.

    Raises:
        EvidenceError: A task has no interval.
    """
    parts, weights = list_parts(rule)
    spread = measure_spread(rule.run_gains)
    test = margin_test(*_add_spread(parts, weights, spread), rule.threshold, z_alpha)
    comparisons = tuple(pair.comparison for pair in rule.pairs)
    return MeasuredRule(rule, test, tuple(parts), tuple(weights), comparisons, spread)


def is_lost(m: MeasuredRule, z: float) -> bool:
    """Whether the gain is below zero, by its upper bound at a normal quantile of at least that of the test."""
    if m.test.high >= 0:
        return False
    return bound_sum(*_add_spread(m.parts, m.weights, m.spread), z)[1] < 0


def _add_spread(
    parts: Sequence[PairedDifference], weights: Sequence[float], spread: PairedDifference | None
) -> tuple[list[PairedDifference], list[float]]:
    """Return the differences and shares that are tested: with the variance between the runs of a recipe, if any."""
    if spread is None or not spread.stderr:
        return [*parts], [*weights]
    return [*parts, spread], [*weights, 1.0]


def measure_spread(gains: Sequence[float]) -> PairedDifference | None:
    """Return what the variance between runs adds to the interval of their mean gain; None without runs.

    Student's t with one degree of freedom less than there are runs. The spread of the gains contains the noise of each
    run on each item too, which the interval over items has already: it errs on the safe side.
    """
    if not gains:
        return None
    error = float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    return PairedDifference(n=len(gains), difference=0.0, stderr=error if error > 1e-12 else 0.0, df=len(gains) - 1)


def list_parts(rule: Rule) -> tuple[list[PairedDifference], list[float]]:
    """Return the independent differences of a rule, and their shares.

    Raises:
        EvidenceError: A task has no interval.
    """
    if (ratio := rule.ratio) is not None:
        of = ratio.values
        return [PairedDifference(n=ratio.n, difference=of.ratio - 1, stderr=of.stderr, df=ratio.n - 1, values=of)], [
            1.0
        ]
    comparisons = [pair.comparison for pair in rule.pairs]
    for comparison in comparisons:
        if comparison.low is None:
            units = comparison.units or 0
            raise EvidenceError(
                f"{rule.name}: {comparison.task} has {comparison.n} item{'s' if comparison.n > 1 else ''} in {units} "
                f"{name_units(comparison, units)}, and no interval, so it cannot be tested; use more"
            )
    return measure_differences(comparisons, rule.shares)


def name_units(comparison: Comparison, count: int) -> str:
    """Return what the units of a task are called."""
    name = "document" if comparison.clusters is None else "cluster"
    return name if count == 1 else f"{name}s"


def name_rule_units(m: MeasuredRule) -> str:
    """Return what the units of a rule are called."""
    if m.rule.ratio is not None:
        return "prompts"
    if any(c.clusters is not None for c in m.comparisons):
        return "clusters"
    return "items" if m.units == m.n else "documents"


def name_test(m: MeasuredRule) -> str:
    """Return the name of the procedure that gives a rule's interval."""
    names = sorted({c.test for c in m.comparisons}) or ["score over prompts"]
    if len(m.parts) > 1:
        name = f"{len(m.parts)} x {' and '.join(names)}"
    else:
        name = names[0] if len(m.comparisons) <= 1 else f"score over {name_units(m.comparisons[0], 2)}"
    if m.spread is None or not m.spread.stderr:
        name = f"MOVER of {name}" if len(m.parts) > 1 else name
        return name if m.spread is None else f"{name}; no variance between {m.spread.n} runs"
    return f"MOVER of {name} and t over {m.spread.n} runs"


def compute_needed_units(m: MeasuredRule, z_alpha: float) -> int | None:
    """Return the number of units with 80 % power to show that the rule holds, if the estimate were true.

    Of a recipe: with these runs; None if no number of units makes up for the variance between them.
    """
    distance = _shorten(m.test.difference - m.rule.threshold, _width_of_spread(m.spread, z_alpha))
    if distance <= 1e-6:  # at the threshold: no number of units is enough
        return None
    factor = max((_width_of_items(m, z_alpha) / distance) ** 2, _find_floor(m, z_alpha, distance))
    return max(m.units + 1, math.ceil(m.units * factor - 1e-9))


def compute_needed_runs(m: MeasuredRule, z_alpha: float) -> int | None:
    """Return the number of runs of a recipe with 80 % power to show that the rule holds, if the estimate were true.

    None for one checkpoint, or if more runs on the same items are not enough.
    """
    if m.spread is None or m.test.difference <= m.rule.threshold:
        return None
    distance = _shorten(m.test.difference - m.rule.threshold, _width_of_items(m, z_alpha))
    runs = np.arange(m.spread.n + 1, MOST_RUNS + 1)
    widths = _resolve(m.spread.stderr * np.sqrt(m.spread.n / runs), runs - 1, z_alpha)
    enough = runs[widths < distance]
    return int(enough[0]) if len(enough) else None


def _width_of_items(m: MeasuredRule, z_alpha: float) -> float:
    """Return the distance from the threshold that these items show with 80 % power: z_alpha e_0 + z_beta e.

    e_0 is the standard error if the threshold were true, which the statistic has, and e that of the estimate.
    """
    distance = m.test.difference - m.rule.threshold
    z = margin_test(m.parts, m.weights, m.rule.threshold, z_alpha).z
    return z_alpha * distance / max(z, 1e-9) + z_of(1 - POWER) * _describe_items(m, z_alpha).error


def _find_floor(m: MeasuredRule, z_alpha: float, distance: float) -> float:
    """Return how many times as many units are needed at least, because of what is not seen."""
    items = _describe_items(m, z_alpha)
    return smallest_passing_n(distance, z_alpha, items.units, items.shares) / items.n if items.is_bounded else 0.0


def _width_of_spread(spread: PairedDifference | None, z_alpha: float) -> float:
    """Return the distance that these runs resolve with 80 % power on endless items."""
    return 0.0 if spread is None else float(_resolve(spread.stderr, spread.df, z_alpha))


def _resolve(stderr: ArrayLike, df: ArrayLike, z_alpha: float) -> Floats:
    """Return the distance that is shown with 80 % power by Student's t with this error."""
    return np.asarray((-stdtrit(df, ndtr(-z_alpha)) + z_of(1 - POWER)) * stderr)


def _shorten(distance: float, width: float) -> float:
    """Return what one part of an interval may be wide, if the whole is a distance and the other part is this wide."""
    return math.sqrt(distance**2 - width**2) if distance > width else 0.0


def compute_smallest_margin(m: MeasuredRule, z_alpha: float) -> float:
    """Return the smallest margin that these units resolve with 80 % power for an unchanged checkpoint."""
    of_items = _describe_items(m, z_alpha, is_unchanged=True).resolvable_margin()
    return math.hypot(of_items, _width_of_spread(m.spread, z_alpha))


def _describe_items(m: MeasuredRule, z_alpha: float, *, is_unchanged: bool = False) -> UnchangedMean:
    """Return the mean of a rule over items such as these; of an unchanged checkpoint if so, else as estimated."""
    if is_unchanged:
        variances = [unchanged_variance(part.stderr, part.difference, part.n) for part in m.parts]
    else:
        variances = [max(part.stderr**2, expected_discordance(0.0, part.n) / part.n) for part in m.parts]
    return UnchangedMean(
        shares=m.weights,
        units=tuple(PartUnits(part.effective, part.is_items) for part in m.parts),
        variances=tuple(variances),
        z_alpha=z_alpha,
        is_bounded=m.rule.unit == UNIT_INTERVAL,
    )
