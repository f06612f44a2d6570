"""Builds the rules of a policy with their evidence. Pure: no I/O, no database.

Every rule states "the mean gain over these tasks exceeds a threshold" (for retention the threshold is -margin), and is
tested in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from evalsvc.analysis.compare import (
    UNIT_INTERVAL,
    compare_values,
    compute_coverage,
    compute_task_shares,
    is_binary,
    pair_values,
)
from evalsvc.errors import EvidenceError
from evalsvc.gating.policy import Policy
from evalsvc.records.comparisons import Comparison
from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Floats
from evalsvc.stats.ratios import PairedValues
from evalsvc.stats.transitions import blind_spots

Mask = NDArray[np.bool_]
RuleKind = Literal["learning", "retention", "incumbent", "exchange", "drift", "diversity"]
# Cached as long as the scores are in memory, for several gates on one arm.
_COMPARISONS: WeakKeyDictionary[TaskScores, WeakKeyDictionary[TaskScores, Comparison]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class TaskPair:
    """Both arms' scores on one task.

    Attributes:
        items: Number of items of the whole task; more than the base's samples at an interim look.
        places: float64 [samples of the base], each sample's place in the random order of all items; only needed for
            interim looks and halves.
        runs: Scores of each independent run of a recipe, on the samples that all have; `adapted` is their mean.
    """

    base: TaskScores
    adapted: TaskScores
    items: int
    places: Floats | None = None
    runs: tuple[TaskScores, ...] = ()

    @property
    def comparison(self) -> Comparison:
        """The comparison of both arms on all available samples."""
        known = _COMPARISONS.setdefault(self.adapted, WeakKeyDictionary())
        if self.base not in known:
            known[self.base] = compare_values(self.base, self.adapted)
        return known[self.base]

    def part(self, mask: Mask) -> TaskPair:
        """Return the pair on some of the base's samples; `items` does not change."""
        if mask.all():
            return self
        places = None if self.places is None else self.places[mask]
        return replace(self, base=self.base.take(mask), places=places)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiversityRatio:
    """The diversity of an arm's generated text, as a share of its base's.

    Attributes:
        suite: As suite/task/measure.
        metric: The measure.
        values: Both arms' values of the prompts on which the measure is defined; less is worse.
        runs: The ratio of each independent run of a recipe; `values` has the means over the runs.
    """

    suite: str
    metric: str
    values: PairedValues
    runs: tuple[float, ...] = ()

    @property
    def n(self) -> int:
        """Number of prompts."""
        return len(self.values.base)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindSpot:
    """A task on which a rule cannot see a change for the worse, because of the base's level.

    Attributes:
        level: Where the base is: "at chance", "below chance", "at zero", for a learning rule "at ceiling", or
            "at 0.067, within the margin" if the loss of everything would not be more than the rule's margin.
        items: Number of items.
        is_allowed: Whether the policy counts them all the same.
    """

    task: str
    level: str
    items: int
    is_allowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a policy with its evidence.

    Attributes:
        kind: The part of the policy that it comes from.
        suite, task: Suite and task of the rule; None for several suites, all tasks, or sampled answers.
        margin: Margin of the policy.
        threshold: The value that the gain must exceed.
        pairs: Scores of both arms on its tasks.
        shares: Shares of the tasks in the mean.
        allowed: Suites, and tasks as SUITE/TASK, whose blind spots the policy allows.
    """

    kind: RuleKind
    suite: str | None = None
    task: str | None = None
    margin: float
    threshold: float
    unit: str
    pairs: tuple[TaskPair, ...] = ()
    shares: tuple[float, ...] = ()
    ratio: DiversityRatio | None = None
    allowed: tuple[str, ...] = ()

    @property
    def blind_spots(self) -> tuple[BlindSpot, ...]:
        """The tasks on which the base has nothing to lose; for a learning rule, nothing to gain."""
        spots = []
        is_within = self.kind in ("retention", "incumbent") and self._losable <= self.margin
        for pair in self.pairs if self.kind in ("learning", "retention", "incumbent") else ():
            level = find_blind_level(pair.base, is_learning=self.kind == "learning")
            if level is None and is_within:
                level = f"at {measure_losable(pair.base):.3g}{describe_floor(pair.base)}, within the margin"
            if level is not None:
                name = f"{pair.base.suite}/{pair.base.task}"
                is_allowed = pair.base.suite in self.allowed or name in self.allowed
                spots.append(BlindSpot(task=name, level=level, items=len(pair.base.values), is_allowed=is_allowed))
        return tuple(spots)

    @property
    def _losable(self) -> float:
        """The mean loss if nothing were kept."""
        return sum(share * measure_losable(pair.base) for share, pair in zip(self.shares, self.pairs, strict=True))

    @property
    def is_blind(self) -> bool:
        """Whether more than half of its items are blind spots that the policy does not allow: then it cannot pass."""
        blind = sum(spot.items for spot in self.blind_spots if not spot.is_allowed)
        return 2 * blind > sum(len(pair.base.values) for pair in self.pairs)

    def without_blind_spots(self) -> Rule:
        """Return the rule on the other tasks, or on all of them if there are no others."""
        blind = {spot.task for spot in self.blind_spots if not spot.is_allowed}
        kept = [f"{pair.base.suite}/{pair.base.task}" not in blind for pair in self.pairs]
        if all(kept) or not any(kept):
            return self
        pairs = tuple(pair for pair, is_kept in zip(self.pairs, kept, strict=True) if is_kept)
        shares = [share for share, is_kept in zip(self.shares, kept, strict=True) if is_kept]
        return replace(self, pairs=pairs, shares=tuple(share / sum(shares) for share in shares))

    @property
    def name(self) -> str:
        """Name: kind/suite, kind/suite/task, "retention/group", "exchange", or "diversity/suite/task/measure"."""
        if self.kind == "exchange":
            return self.kind
        if self.ratio is not None:
            return f"{self.kind}/{self.ratio.suite}"
        return "/".join((self.kind, *((self.suite or "group",) if self.task is None else (str(self.suite), self.task))))

    @property
    def grows(self) -> bool:
        """Whether its items are split over interim looks; other suites are scored completely at the first look."""
        return self.ratio is None and self.unit == UNIT_INTERVAL

    @property
    def run_gains(self) -> tuple[float, ...]:
        """The gain of each independent run of a recipe; empty for one checkpoint."""
        if self.ratio is not None:
            return tuple(value - 1 for value in self.ratio.runs)
        gains = [[pair_values(pair.base, run).gain for run in pair.runs] for pair in self.pairs]
        return tuple(float(np.dot(self.shares, of_run)) for of_run in zip(*gains, strict=True))


def build_rules(
    policy: Policy,
    pairs: Sequence[TaskPair],
    ratios: Sequence[DiversityRatio] = (),
    against_incumbent: Sequence[TaskPair] = (),
) -> list[Rule]:
    """Return a policy's rules with the evidence for each.

    Args:
        against_incumbent: The checkpoint's scores with those of the arm that is served now in place of the base's.

    Raises:
        EvidenceError: A suite, task or ratio of the policy is missing or incomplete, or its metric does not fit.
    """
    rules: list[Rule] = []
    learned: list[TaskPair] = []
    if policy.learning:
        gain = policy.learning.min_gain
        for suite in policy.learning.suites:
            tasks = _find_suite_pairs(pairs, suite, policy)
            learned += tasks
            rules.append(_build_mean_rule("learning", gain, gain, tasks, suite))
    kept: list[TaskPair] = []
    for entry in policy.retention:
        tasks = _find_suite_pairs(pairs, entry.suite, policy)
        kept += tasks
        rules.append(_build_mean_rule("retention", entry.margin, -entry.margin, tasks, entry.suite))
        if (margin := entry.per_task_margin) is not None:
            for pair in tasks:
                rules.append(_build_mean_rule("retention", margin, -margin, [pair], entry.suite, pair.base.task))
    if (margin := policy.group_margin) is not None:
        rules.append(_build_mean_rule("retention", margin, -margin, kept))
    if policy.incumbent:
        for suite in policy.suites_with_margin:
            tasks, margin = _find_suite_pairs(against_incumbent, suite, policy), policy.incumbent.margin
            rules.append(_build_mean_rule("incumbent", margin, -margin, tasks, suite))
    if policy.exchange:
        rules.append(_build_exchange_rule(policy.exchange.max_forgotten_per_learned, learned, kept))
    if policy.drift:
        tasks = _find_suite_pairs(pairs, policy.drift.suite, policy, bits=True)
        most = policy.drift.max_bits_per_byte_increase
        rules.append(replace(_build_mean_rule("drift", most, -most, tasks, policy.drift.suite), unit="bits_per_byte"))
    if policy.diversity:
        ratios = [ratio for ratio in ratios if ratio.metric in policy.diversity.measures]
        if not ratios:
            raise EvidenceError(
                "diversity: the store has no sampled answers of this checkpoint and its base; "
                "submit both on a suite with role diversity, or remove the rule from the policy"
            )
        rules += [_build_diversity_rule(ratio, policy.diversity.min_ratio) for ratio in ratios]
    if not rules:
        raise EvidenceError("the policy has no rule; add learning or retention to it")
    return [replace(rule, allowed=policy.require.allow_blind_spots) for rule in rules]


def _build_mean_rule(
    kind: RuleKind,
    margin: float,
    threshold: float,
    pairs: Sequence[TaskPair],
    suite: str | None = None,
    task: str | None = None,
) -> Rule:
    """Return a rule about the mean gain over some tasks."""
    return Rule(
        kind=kind,
        suite=suite,
        task=task,
        margin=margin,
        threshold=threshold,
        unit=UNIT_INTERVAL,
        pairs=tuple(pairs),
        shares=tuple(compute_task_shares([(pair.base.suite, pair.base.weight) for pair in pairs])),
    )


def _build_exchange_rule(rate: float, learned: Sequence[TaskPair], kept: Sequence[TaskPair]) -> Rule:
    """Return the rule that the loss is below `rate` times the gain: mean gain kept + rate * mean gain learned > 0."""
    gain, loss = (compute_task_shares([(p.base.suite, p.base.weight) for p in pairs]) for pairs in (learned, kept))
    return Rule(
        kind="exchange",
        margin=rate,
        threshold=0.0,
        unit=UNIT_INTERVAL,
        pairs=(*learned, *kept),
        shares=(*(rate * share for share in gain), *loss),
    )


def find_blind_level(base: TaskScores, *, is_learning: bool) -> str | None:
    """Return the level at which a base has nothing to lose (to learn), None if it has something."""
    gains = base.values if base.higher_is_better else 1 - base.values
    right, n = gains.sum(), len(gains)
    if not is_binary(gains):
        levels: tuple[str, ...] = ("at zero",) if right == 0 else ("at ceiling",) if right == n else ()
    else:
        levels = blind_spots(int(right), n, base.chance if base.higher_is_better else None)
    return next((name for name in levels if (name == "at ceiling") == is_learning), None)


def measure_losable(base: TaskScores) -> float:
    """Return what a base can lose on a task: its mean score above that of guessing, where this is known."""
    if not base.higher_is_better:
        return 1 - float(base.values.mean())
    return max(0.0, float(base.values.mean()) - (base.chance or 0.0))


def describe_floor(base: TaskScores) -> str:
    """Return above what `measure_losable` is measured, in words."""
    return " above chance" if base.higher_is_better and base.chance else ""


def _build_diversity_rule(ratio: DiversityRatio, least: float) -> Rule:
    if not ratio.values.is_testable:
        reason = "the base has nothing to lose on them" if ratio.n > 1 else "needs two"
        raise EvidenceError(
            f"diversity/{ratio.suite}: is defined on {ratio.n} prompts, and {reason}, so it cannot be tested; use "
            "prompts with longer answers, or name the policy's `diversity.measures` without it"
        )
    return Rule(kind="diversity", margin=least, threshold=least - 1, unit="ratio", ratio=ratio)


def _find_suite_pairs(pairs: Sequence[TaskPair], suite: str, policy: Policy, *, bits: bool = False) -> list[TaskPair]:
    """Return a suite's tasks, after checking that each can be tested."""
    tasks = [pair for pair in pairs if pair.base.suite == suite]
    if not tasks:
        raise EvidenceError(
            f"suite {suite!r}: is in the policy, and the base has no scores of items on it; submit it, or import it "
            "with --samples"
        )
    for pair in tasks:
        _check_pair(pair, policy.require.min_coverage, bits=bits)
    return tasks


def _check_pair(pair: TaskPair, min_coverage: float, *, bits: bool) -> None:
    base, adapted = pair.base, pair.adapted
    name = f"{base.suite}/{base.task}"
    if (base.metric, base.filter) != (adapted.metric, adapted.filter):
        raise EvidenceError(f"{name}: the arms have different metrics ({base.metric}, {adapted.metric}); submit again")
    if base.role == "diversity":
        raise EvidenceError(
            f"{name}: sampled answers have no score to test; use the policy's diversity rule, and remove the suite "
            "from its other rules"
        )
    if fault := base.fault or adapted.fault:
        raise EvidenceError(f"{name}: {fault}")
    if (covered := compute_coverage(base, adapted)) < min_coverage:
        raise EvidenceError(
            f"{name}: both arms have scores on {covered:.1%} of the base's items, "
            f"the policy needs {min_coverage:.1%}; submit the checkpoint again"
        )
    is_mean = base.aggregation == "mean" and all(scores.is_bounded for scores in (base, adapted, *pair.runs))
    check_metric(name, base.metric, is_mean=is_mean, is_bits=base.aggregation == "bits_per_byte", is_drift=bits)


def check_metric(task: str, metric: str, *, is_mean: bool, is_bits: bool, is_drift: bool) -> None:
    """Refuse a metric that a rule cannot be about.

    Args:
        is_mean, is_bits: Whether it is a mean of values in [0, 1], or bits per byte.
        is_drift: Whether the rule is about drift, else about a margin or a gain.

    Raises:
        EvidenceError: It does not fit.
    """
    if is_drift and not is_bits:
        raise EvidenceError(f"{task}: a drift rule needs bits per byte, and the task's metric is {metric}")
    if not is_drift and not is_mean:
        raise EvidenceError(
            f"{task}: a margin needs a mean of values in [0, 1], and {metric} is not one; "
            "use another metric of the task, or a drift rule"
        )
