"""Tests one rule: estimate, interval, items needed, smallest margin that the items resolve."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evalsvc.analysis.compare import UNIT_INTERVAL
from evalsvc.errors import EvidenceError
from evalsvc.gating.rules import DiversityRatio, Rule
from evalsvc.records.comparisons import Comparison
from evalsvc.stats.margins import MarginTest, PairedDifference, margin_test
from evalsvc.stats.power import UnchangedMean, scale_items, unchanged_variance

# --------------------------------------------------------------------------------------------------------- evidence


@dataclass(frozen=True, slots=True)
class MeasuredRule:
    """A rule with its test and the comparisons behind it."""

    rule: Rule
    test: MarginTest
    comparisons: tuple[Comparison, ...] = ()
    tasks: tuple[PairedDifference, ...] = ()

    @property
    def n(self) -> int:
        """Items (for diversity: prompts) behind the test."""
        return self.rule.ratio.n if self.rule.ratio else sum(c.n for c in self.comparisons)


def measure_rule(rule: Rule, z_alpha: float) -> MeasuredRule:
    """Test one rule.

    Args:
        z_alpha: One-sided normal quantile of the interval's ends.

    Raises:
        EvidenceError: A task has no interval.
    """
    if rule.ratio is not None:
        return MeasuredRule(rule, _ratio_test(rule.ratio, rule.threshold, z_alpha))
    compared = compare_rule_tasks(rule)
    tasks = tuple(build_paired(c) for c in compared)
    return MeasuredRule(rule, margin_test(tasks, rule.shares, rule.threshold, z_alpha), compared, tasks)


def compare_rule_tasks(rule: Rule) -> tuple[Comparison, ...]:
    """Compare the arms on a rule's tasks.

    Raises:
        EvidenceError: A task has no interval.
    """
    compared = tuple(pair.comparison for pair in rule.pairs)
    for comparison in compared:
        if comparison.lost is None and comparison.stderr is None:
            raise EvidenceError(
                f"{rule.name}: {comparison.task} has {comparison.n} item{'s' if comparison.n > 1 else ''} and no "
                "standard error, so it cannot be tested; use more items"
            )
    return compared


def build_paired(comparison: Comparison) -> PairedDifference:
    """Return a comparison as input of the test; positive is better."""
    counts = None
    if comparison.lost is not None and comparison.gained is not None and comparison.clusters is None:
        worse, better = comparison.lost, comparison.gained
        counts = (worse, better) if comparison.higher_is_better else (better, worse)
    return PairedDifference(
        n=comparison.n,
        difference=comparison.gain,
        stderr=comparison.stderr or 0.0,
        counts=counts,
        df=max((comparison.clusters or comparison.n) - 1, 1),
        is_bounded=comparison.unit == UNIT_INTERVAL,
    )


def _ratio_test(ratio: DiversityRatio, threshold: float, z_alpha: float) -> MarginTest:
    task = PairedDifference(
        n=ratio.n, difference=ratio.value - 1, stderr=ratio.stderr, df=ratio.n - 1, is_bounded=False
    )
    return margin_test([task], [1.0], threshold, z_alpha)


def name_test(m: MeasuredRule) -> str:
    """Return the name of the procedure that gives a rule's interval."""
    names = sorted({c.test for c in m.comparisons}) or ["t of the ratio"]
    return names[0] if len(m.comparisons) <= 1 else f"MOVER of {len(m.comparisons)} x {' and '.join(names)}"


def _standard_error(m: MeasuredRule) -> float:
    if m.rule.ratio is not None:
        return m.rule.ratio.stderr
    parts = zip(m.rule.shares, m.comparisons, strict=True)
    return math.sqrt(sum(share**2 * (c.stderr or 0.0) ** 2 for share, c in parts))


def compute_needed_items(m: MeasuredRule, z_alpha: float) -> int | None:
    """Return the number of items with 80 % power to show that the rule holds, if the estimate were true."""
    distance = m.test.difference - m.rule.threshold
    if distance <= 1e-6:  # at the threshold: no number of items is enough
        return None
    # If no item changed, the standard error is 0; the bound is used instead.
    error = _standard_error(m) or (m.test.difference - m.test.low) / z_alpha
    return max(m.n + 1, scale_items(m.n, error, distance, z_alpha))


def compute_smallest_margin(m: MeasuredRule, z_alpha: float) -> float:
    """Return the smallest margin that these items resolve with 80 % power for an unchanged checkpoint."""
    shares, items = m.rule.shares, tuple(c.n for c in m.comparisons)
    variances = tuple(unchanged_variance(c.stderr or 0.0, c.gain, c.n) for c in m.comparisons)
    if (ratio := m.rule.ratio) is not None:
        shares, items, variances = (1.0,), (ratio.n,), (ratio.stderr**2,)
    is_bounded = m.rule.unit == UNIT_INTERVAL
    unchanged = UnchangedMean(shares=shares, items=items, variances=variances, z_alpha=z_alpha, is_bounded=is_bounded)
    return unchanged.resolvable_margin()
