"""Paired scores and a policy in, a verdict out. Pure: no I/O, no database.

Every rule says "the mean gain over these tasks exceeds a threshold" (for retention the threshold is -margin), and is
tested once in each direction:

* **pass** if every rule that is not waived is shown to hold: an intersection-union test, so that no correction for many
  rules is needed (Berger 1982);
* **fail** if some rule is shown not to hold after Holm's correction over all of them;
* **inconclusive** otherwise, with the items that would have been needed.

What cannot be evaluated raises EvidenceError and is never a verdict. `looks` decides while evidence still comes in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from evalsvc.compare import UNIT_INTERVAL, coverage, subtract, task_shares
from evalsvc.errors import EvidenceError
from evalsvc.policies import Policy, WaiverEntry
from evalsvc.records import Comparison, Floats, TaskScores
from evalsvc.stats.margins import MarginTest, Paired, margin_test, z_of
from evalsvc.stats.multiplicity import holm
from evalsvc.stats.power import POWER

Verdict = Literal["pass", "fail", "inconclusive"]
Mask = NDArray[np.bool_]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 3, "inconclusive": 4}
# Remembered as long as the scores are in memory: many gates may be asked of an arm.
_COMPARED: WeakKeyDictionary[TaskScores, WeakKeyDictionary[TaskScores, Comparison]] = WeakKeyDictionary()
_COLUMNS = ("samples", "values", "weights", "clusters", "answers", "invalid", "confidence")


@dataclass(frozen=True, slots=True)
class TaskPair:
    """Both arms' scores on one task.

    Attributes:
        items: Items of the whole task; more than the base's samples while a run goes on.
        places: float64 [samples of the base], each sample's place in one random order of all items; only needed where
            evidence is looked at before it is complete.
    """

    base: TaskScores
    adapted: TaskScores
    items: int
    places: Floats | None = None

    @property
    def comparison(self) -> Comparison:
        """Both arms on all samples that there are."""
        known = _COMPARED.setdefault(self.adapted, WeakKeyDictionary())
        if self.base not in known:
            known[self.base] = subtract(self.base, self.adapted)
        return known[self.base]

    def part(self, mask: Mask) -> TaskPair:
        """Return the pair on some of the base's samples; `items` stays."""
        if mask.all():
            return self
        columns = {name: getattr(self.base, name) for name in _COLUMNS}
        kept: dict[str, Any] = {name: None if column is None else column[mask] for name, column in columns.items()}
        return replace(self, base=replace(self.base, **kept), places=None if self.places is None else self.places[mask])


@dataclass(frozen=True, slots=True)
class Ratio:
    """The diversity of an arm's generated text on one suite, as a share of its base's."""

    suite: str
    metric: str
    value: float
    stderr: float
    n: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One demand of a policy.

    Attributes:
        name: kind/suite, kind/suite/task, "retention/group" or "diversity/suite".
        margin: As the policy says it.
        threshold: What the gain must exceed.
        pairs: The tasks that it is about, and their shares in the mean.
    """

    name: str
    margin: float
    threshold: float
    unit: str
    pairs: tuple[TaskPair, ...] = ()
    shares: tuple[float, ...] = ()
    ratio: Ratio | None = None

    @property
    def grows(self) -> bool:
        """Whether its evidence comes in bit by bit; other suites are asked as a whole at the first look."""
        return self.ratio is None and self.unit == UNIT_INTERVAL


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """What became of a rule.

    Attributes:
        estimate: Adapted minus base, better counted positive; for diversity the ratio minus 1.
        low, high: Ends of its interval, each a one-sided bound at the policy's alpha.
        n: Items behind it.
        needed_n: Items that would decide at the present estimate, if more would; None if it is decided or none would.
        resolvable_margin: The smallest margin that these items resolve in 80 % of unchanged checkpoints.
        p_pass, p_fail: One-sided p-values, the second after Holm; None in mode group_sequential, where bounds decide.
        degraded: Whether the loss is real (its interval excludes zero), whatever the margin says.
        waived: Why the rule is not asked of this checkpoint, if it is waived.
        look: Number of the look at which it was decided, where evidence was looked at more than once.
    """

    rule: str
    verdict: Verdict
    estimate: float
    low: float
    high: float
    margin: float
    n: int
    needed_n: int | None
    resolvable_margin: float
    test: str
    unit: str
    lost: int | None
    gained: int | None
    p_pass: float | None
    p_fail: float | None
    degraded: bool
    waived: str | None = None
    look: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One look at growing evidence: items of both arms seen, of all, and the verdict then."""

    number: int
    fraction: float
    items: int
    of: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict with its reasons.

    Attributes:
        waivers: What became of each waiver: applied, expired, for another checkpoint, not understood.
    """

    verdict: Verdict
    rules: tuple[RuleOutcome, ...]
    waivers: tuple[tuple[WaiverEntry, str], ...]
    looks: tuple[Look, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, 3 or 4."""
        return EXIT_CODES[self.verdict]

    @property
    def degraded(self) -> bool:
        """Whether a rule's loss is real."""
        return any(rule.degraded for rule in self.rules)


# ----------------------------------------------------------------------------------------------------- what is asked


def rules_of(policy: Policy, pairs: Sequence[TaskPair], ratios: Sequence[Ratio] = ()) -> list[Rule]:
    """Return a policy's rules with the evidence for each.

    Raises:
        EvidenceError: A suite, task or ratio that the policy needs is missing, incomplete or of another kind.
    """
    rules: list[Rule] = []
    if policy.learning:
        gain = policy.learning.min_gain
        rules += [_rule(f"learning/{s}", gain, gain, _suite(pairs, s, policy)) for s in policy.learning.suites]
    kept: list[TaskPair] = []
    for entry in policy.retention:
        tasks = _suite(pairs, entry.suite, policy)
        kept += tasks
        rules.append(_rule(f"retention/{entry.suite}", entry.margin, -entry.margin, tasks))
        if entry.per_task_margin is not None:
            margin = entry.per_task_margin
            rules += [_rule(f"retention/{entry.suite}/{p.base.task}", margin, -margin, [p]) for p in tasks]
    if policy.group_margin is not None:
        rules.append(_rule("retention/group", policy.group_margin, -policy.group_margin, kept))
    if policy.drift:
        rules.append(_drift(policy, _suite(pairs, policy.drift.suite, policy, bits=True)))
    if policy.diversity:
        if not ratios:
            raise EvidenceError(
                "diversity: the store has no ratio of generated diversity for this checkpoint and its base; "
                "submit both on a suite with role diversity, or take the rule out of the policy"
            )
        rules += [_diversity(ratio, policy.diversity.min_ratio) for ratio in ratios]
    if not rules:
        raise EvidenceError("the policy has no rule, so there is nothing to decide; add learning or retention to it")
    return rules


def _rule(name: str, margin: float, threshold: float, pairs: Sequence[TaskPair]) -> Rule:
    shares = task_shares([(pair.base.suite, pair.base.weight) for pair in pairs])
    return Rule(name, margin, threshold, UNIT_INTERVAL, tuple(pairs), tuple(shares))


def _drift(policy: Policy, pairs: Sequence[TaskPair]) -> Rule:
    assert policy.drift is not None
    most = policy.drift.max_bits_per_byte_increase
    return replace(_rule(f"drift/{policy.drift.suite}", most, -most, pairs), unit="bits_per_byte")


def _diversity(ratio: Ratio, least: float) -> Rule:
    if not (math.isfinite(ratio.value) and math.isfinite(ratio.stderr) and ratio.stderr > 0 and ratio.n > 1):
        raise EvidenceError(
            f"diversity/{ratio.suite}: the ratio {ratio.value} with standard error {ratio.stderr} of {ratio.n} prompts "
            "is no evidence; submit both arms again"
        )
    return Rule(f"diversity/{ratio.suite}", least, least - 1, "ratio", ratio=ratio)


def _suite(pairs: Sequence[TaskPair], suite: str, policy: Policy, *, bits: bool = False) -> list[TaskPair]:
    """Return a suite's tasks, each fit to be tested."""
    found = [pair for pair in pairs if pair.base.suite == suite]
    if not found:
        raise EvidenceError(f"suite {suite!r}: the policy asks for it, and the base has no finished run on it")
    for pair in found:
        _check(pair, policy.require.min_coverage, bits=bits)
    return found


def _check(pair: TaskPair, min_coverage: float, *, bits: bool) -> None:
    base, adapted = pair.base, pair.adapted
    name = f"{base.suite}/{base.task}"
    if (base.metric, base.filter) != (adapted.metric, adapted.filter):
        raise EvidenceError(f"{name}: the arms have different metrics ({base.metric}, {adapted.metric}); submit again")
    if fault := base.fault or adapted.fault:
        raise EvidenceError(f"{name}: {fault}")
    if (covered := coverage(base, adapted)) < min_coverage:
        raise EvidenceError(
            f"{name}: both arms have scores on {covered:.1%} of the base's items, "
            f"the policy needs {min_coverage:.1%}; submit the checkpoint again"
        )
    if bits and base.aggregation != "bits_per_byte":
        raise EvidenceError(f"{name}: drift is measured in bits per byte, and its metric is {base.metric}")
    if not bits and not (base.aggregation == "mean" and base.bounded and adapted.bounded):
        raise EvidenceError(
            f"{name}: a margin is a share of items, and {base.metric} is not a mean of values in [0, 1]; "
            "use another metric of the task, or a drift rule"
        )


# --------------------------------------------------------------------------------------------------------- evidence


@dataclass(frozen=True, slots=True)
class Measured:
    """A rule's evidence, as its test takes it."""

    rule: Rule
    test: MarginTest
    comparisons: tuple[Comparison, ...] = ()
    tasks: tuple[Paired, ...] = ()

    @property
    def n(self) -> int:
        """Items (for diversity: prompts) behind the test."""
        return self.rule.ratio.n if self.rule.ratio else sum(c.n for c in self.comparisons)


def measure(rule: Rule, z_alpha: float) -> Measured:
    """Test one rule.

    Args:
        z_alpha: Of the bounds of its interval.

    Raises:
        EvidenceError: A task has no interval.
    """
    if rule.ratio is not None:
        return Measured(rule, _ratio_test(rule.ratio, rule.threshold, z_alpha))
    compared = compared_tasks(rule)
    tasks = tuple(paired(c) for c in compared)
    return Measured(rule, margin_test(tasks, rule.shares, rule.threshold, z_alpha), compared, tasks)


def compared_tasks(rule: Rule) -> tuple[Comparison, ...]:
    """Compare the arms on a rule's tasks.

    Raises:
        EvidenceError: A task has no interval.
    """
    compared = tuple(pair.comparison for pair in rule.pairs)
    for comparison in compared:
        if comparison.lost is None and comparison.stderr is None:
            raise EvidenceError(
                f"{rule.name}: {comparison.task} has {comparison.n} item{'s' if comparison.n > 1 else ''} and no "
                "standard error, so nothing can be shown; ask more items"
            )
    return compared


def paired(comparison: Comparison) -> Paired:
    """Return a comparison as its test takes it, better counted positive."""
    counts = None
    if comparison.lost is not None and comparison.gained is not None and comparison.clusters is None:
        worse, better = comparison.lost, comparison.gained
        counts = (worse, better) if comparison.higher_is_better else (better, worse)
    return Paired(
        n=comparison.n,
        difference=comparison.gain,
        stderr=comparison.stderr or 0.0,
        counts=counts,
        df=max((comparison.clusters or comparison.n) - 1, 1),
        bounded=comparison.unit == UNIT_INTERVAL,
    )


def _ratio_test(ratio: Ratio, threshold: float, z_alpha: float) -> MarginTest:
    task = Paired(ratio.n, ratio.value - 1, ratio.stderr, None, ratio.n - 1, bounded=False)
    return margin_test([task], [1.0], threshold, z_alpha)


# ----------------------------------------------------------------------------------------------------------- verdict


def decide(
    policy: Policy, rules: Sequence[Rule], waivers: Sequence[WaiverEntry], checkpoint: str, today: date
) -> Outcome:
    """Decide on complete evidence.

    Args:
        checkpoint: Digest of the adapted checkpoint, which waivers name.
        today: The day on which waivers must not have expired.

    Raises:
        EvidenceError: Nothing is left to decide, or a rule has no evidence.
    """
    judged = judge_waivers(waivers, rules, checkpoint, today)
    excused = excuses(judged)
    asked = [position for position, rule in enumerate(rules) if rule.name not in excused]
    if not asked:
        raise EvidenceError("every rule of the policy is waived, so nothing was decided; let a waiver expire")
    z_alpha = z_of(policy.alpha)
    measured = [measure(rule, z_alpha) for rule in rules]
    p_fail = np.array([m.test.p_below for m in measured])
    p_fail[asked] = holm(p_fail[asked])
    outcomes = []
    for m, p in zip(measured, p_fail, strict=True):
        verdict: Verdict = "inconclusive"
        if m.test.z >= z_alpha:
            verdict = "pass"
        elif p <= policy.alpha:
            verdict = "fail"
        outcomes.append(
            outcome_of(m, verdict, z_alpha, excused.get(m.rule.name), p_pass=m.test.p_above, p_fail=float(p))
        )
    verdict = overall(outcome.verdict for outcome in outcomes if outcome.waived is None)
    return Outcome(verdict, tuple(outcomes), tuple(judged))


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of all rules together, given each one's that is not waived."""
    found = set(verdicts)
    if "fail" in found:
        return "fail"
    return "pass" if found == {"pass"} else "inconclusive"


def outcome_of(
    m: Measured,
    verdict: Verdict,
    z_alpha: float,
    waived: str | None,
    *,
    p_pass: float | None = None,
    p_fail: float | None = None,
    look: int | None = None,
) -> RuleOutcome:
    """Return what became of a rule, with what it would have needed if it is undecided."""
    found, counts = m.test, [task.counts for task in m.tasks]
    lost = sum(c[0] for c in counts if c) if counts and all(counts) else None
    gained = sum(c[1] for c in counts if c) if counts and all(counts) else None
    return RuleOutcome(
        rule=m.rule.name,
        verdict=verdict,
        estimate=found.difference,
        low=found.low,
        high=found.high,
        margin=m.rule.margin,
        n=m.n,
        needed_n=_needed(m, z_alpha) if verdict == "inconclusive" else None,
        resolvable_margin=_resolvable(m, z_alpha),
        test=_test_name(m),
        unit=m.rule.unit,
        lost=lost,
        gained=gained,
        p_pass=p_pass,
        p_fail=p_fail,
        degraded=found.high < 0,
        waived=waived,
        look=look,
    )


def _test_name(m: Measured) -> str:
    names = sorted({c.test for c in m.comparisons}) or ["t of the ratio"]
    return names[0] if len(m.comparisons) <= 1 else f"MOVER of {len(m.comparisons)} x {' and '.join(names)}"


def _variance(m: Measured, *, unchanged: bool = False) -> float:
    """Return the variance of the estimate; under no change, that of the same discordance around zero."""
    if m.rule.ratio is not None:
        return m.rule.ratio.stderr**2
    total = 0.0
    for share, c in zip(m.rule.shares, m.comparisons, strict=True):
        variance = (c.stderr or 0.0) ** 2
        total += share**2 * (variance + (c.gain**2 / c.n if unchanged else 0.0))
    return total


def _needed(m: Measured, z_alpha: float) -> int | None:
    """Return the items that would show the rule to hold in 80 % of cases, were the estimate the truth."""
    distance = m.test.difference - m.rule.threshold
    if distance <= 1e-6:  # at the threshold but for rounding: no number of items would do
        return None
    # Where no item has changed yet, the bound itself says how much is not known.
    error = math.sqrt(_variance(m)) or (m.test.difference - m.test.low) / z_alpha
    return max(m.n + 1, math.ceil(m.n * ((z_alpha + z_of(1 - POWER)) * error / distance) ** 2))


def _resolvable(m: Measured, z_alpha: float) -> float:
    margin = (z_alpha + z_of(1 - POWER)) * math.sqrt(_variance(m, unchanged=True))
    if m.rule.unit != UNIT_INTERVAL:
        return margin
    floor = sum((s * z_alpha**2 / (c.n + z_alpha**2)) ** 2 for s, c in zip(m.rule.shares, m.comparisons, strict=True))
    return min(1.0, max(margin, math.sqrt(floor)))


# ----------------------------------------------------------------------------------------------------------- waivers


def judge_waivers(
    entries: Sequence[WaiverEntry], rules: Sequence[Rule], checkpoint: str, today: date
) -> list[tuple[WaiverEntry, str]]:
    """Return each waiver with what became of it; only "applied" waives."""
    names = {rule.name for rule in rules}
    judged = []
    for entry in entries:
        waiver = entry.waiver
        if waiver is None:
            state = f"not understood: {entry.problem}"
        elif waiver.rule not in names:
            state = f"the policy has no rule {waiver.rule!r}"
        elif waiver.checkpoint != checkpoint:
            state = "for another checkpoint"
        elif waiver.expires < today:
            state = f"expired on {waiver.expires}"
        else:
            state = "applied"
        judged.append((entry, state))
    return judged


def excuses(judged: Iterable[tuple[WaiverEntry, str]]) -> dict[str, str]:
    """Return, by rule, why it is waived, who says so and until when."""
    return {
        entry.waiver.rule: f"{entry.waiver.reason} ({entry.waiver.owner}, until {entry.waiver.expires})"
        for entry, state in judged
        if entry.waiver is not None and state == "applied"
    }
