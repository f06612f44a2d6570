"""Tests one rule: estimate, interval, items needed, smallest margin that the items resolve."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evalsvc.analysis.compare import UNIT_INTERVAL
from evalsvc.analysis.units import measure_differences
from evalsvc.errors import EvidenceError
from evalsvc.gating.rules import Rule
from evalsvc.records.comparisons import Comparison
from evalsvc.stats.margins import MarginTest, PairedDifference, margin_test
from evalsvc.stats.power import UnchangedMean, scale_items, unchanged_variance

# --------------------------------------------------------------------------------------------------------- evidence


@dataclass(frozen=True, slots=True)
class MeasuredRule:
    """A rule with its test and the comparisons behind it.

    Attributes:
        parts, weights: The independent differences that the test is about, and their shares.
    """

    rule: Rule
    test: MarginTest
    parts: tuple[PairedDifference, ...]
    weights: tuple[float, ...]
    comparisons: tuple[Comparison, ...] = ()

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
        """Standard error of the estimate."""
        return math.sqrt(sum((w * part.stderr) ** 2 for w, part in zip(self.weights, self.parts, strict=True)))


def measure_rule(rule: Rule, z_alpha: float) -> MeasuredRule:
    """Test one rule.

    Args:
        z_alpha: One-sided normal quantile of the interval's ends.

    Raises:
        EvidenceError: A task has no interval.
    """
    parts, weights = list_parts(rule)
    test = margin_test(parts, weights, rule.threshold, z_alpha)
    return MeasuredRule(rule, test, tuple(parts), tuple(weights), tuple(pair.comparison for pair in rule.pairs))


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
        return f"MOVER of {len(m.parts)} x {' and '.join(names)}"
    return names[0] if len(m.comparisons) <= 1 else f"score over {name_units(m.comparisons[0], 2)}"


def compute_needed_units(m: MeasuredRule, z_alpha: float) -> int | None:
    """Return the number of units with 80 % power to show that the rule holds, if the estimate were true."""
    distance = m.test.difference - m.rule.threshold
    if distance <= 1e-6:  # at the threshold: no number of units is enough
        return None
    # If no unit changed, the standard error is 0; the bound is used instead.
    error = m.error or (m.test.difference - m.test.low) / z_alpha
    return max(m.units + 1, scale_items(m.units, error, distance, z_alpha))


def compute_smallest_margin(m: MeasuredRule, z_alpha: float) -> float:
    """Return the smallest margin that these units resolve with 80 % power for an unchanged checkpoint."""
    return UnchangedMean(
        shares=m.weights,
        items=tuple(part.effective for part in m.parts),
        variances=tuple(unchanged_variance(part.stderr, part.difference, part.n) for part in m.parts),
        z_alpha=z_alpha,
        is_bounded=m.rule.unit == UNIT_INTERVAL,
    ).resolvable_margin()
