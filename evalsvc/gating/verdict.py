"""Rules with their evidence in, a verdict out. Pure: no I/O, no database.

* **pass** if every rule that is not waived is shown to hold: an intersection-union test, so that no correction for many
  rules is needed (Berger 1982);
* **fail** if some rule is shown not to hold after Holm's correction over all of them;
* **inconclusive** otherwise, with the items that would have been needed.

What cannot be evaluated raises EvidenceError and is never a verdict. `sequential` decides while
evidence still comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from evalsvc.errors import EvidenceError
from evalsvc.gating.measure import MeasuredRule, items_needed, measure_rule, name_test, smallest_margin
from evalsvc.gating.policy import Policy, WaiverEntry
from evalsvc.gating.rules import Rule, RuleKind
from evalsvc.gating.waivers import describe_waivers, judge_waivers
from evalsvc.stats.margins import z_of
from evalsvc.stats.multiplicity import holm

Verdict = Literal["pass", "fail", "inconclusive"]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 3, "inconclusive": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOutcome:
    """What became of a rule.

    Attributes:
        rule: Its name: kind/suite, kind/suite/task, "retention/group" or "diversity/suite/task/measure".
        suite, task: What it is about; None for a rule about all of them together, or about sampled answers.
        threshold: What the estimate must exceed, in its unit.
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
    kind: RuleKind
    suite: str | None
    task: str | None
    verdict: Verdict
    threshold: float
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


@dataclass(frozen=True, slots=True, kw_only=True)
class InterimLook:
    """One look at growing evidence: items of both arms seen, of all, and the verdict then."""

    number: int
    fraction: float
    items: int
    of: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCorrection:
    """A candidate's p-value among those of all that were tried on the same suites.

    Attributes:
        others: The other candidates' p-values, by checkpoint digest.
        p: Of the whole policy: the largest of its rules'.
        adjusted: The same after Holm's correction over all candidates.
    """

    others: Mapping[str, float]
    p: float
    adjusted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A verdict with its reasons.

    Attributes:
        waivers: What became of each waiver: applied, expired, for another checkpoint, not understood.
        batch: The correction for all candidates, if one was asked for; `batch.correct_for_batch` makes it.
    """

    verdict: Verdict
    rules: tuple[RuleOutcome, ...]
    waivers: tuple[tuple[WaiverEntry, str], ...]
    looks: tuple[InterimLook, ...] = ()
    batch: BatchCorrection | None = None

    @property
    def exit_code(self) -> int:
        """0, 3 or 4."""
        return EXIT_CODES[self.verdict]

    @property
    def is_degraded(self) -> bool:
        """Whether a rule's loss is real."""
        return any(rule.degraded for rule in self.rules)

    @property
    def is_blocked_by_batch(self) -> bool:
        """Whether all rules pass, and only the correction for all candidates keeps the policy from passing."""
        return self.verdict != "pass" and all(rule.verdict == "pass" or rule.waived for rule in self.rules)


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
    waived = describe_waivers(judged)
    tested = [position for position, rule in enumerate(rules) if rule.name not in waived]
    if not tested:
        raise EvidenceError("every rule of the policy is waived, so nothing was decided; let a waiver expire")
    z_alpha = z_of(policy.alpha)
    measured = [measure_rule(rule, z_alpha) for rule in rules]
    p_fail = np.array([m.test.p_below for m in measured])
    p_fail[tested] = holm(p_fail[tested])
    outcomes = []
    for m, p in zip(measured, p_fail, strict=True):
        verdict: Verdict = "inconclusive"
        if m.test.z >= z_alpha:
            verdict = "pass"
        elif p <= policy.alpha:
            verdict = "fail"
        outcomes.append(
            build_outcome(m, verdict, z_alpha, waived.get(m.rule.name), p_pass=m.test.p_above, p_fail=float(p))
        )
    verdict = combine_verdicts(outcome.verdict for outcome in outcomes if outcome.waived is None)
    return Outcome(verdict=verdict, rules=tuple(outcomes), waivers=tuple(judged))


def combine_verdicts(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of all rules together, given each one's that is not waived."""
    distinct = set(verdicts)
    if "fail" in distinct:
        return "fail"
    return "pass" if distinct == {"pass"} else "inconclusive"


def build_outcome(
    m: MeasuredRule,
    verdict: Verdict,
    z_alpha: float,
    waived: str | None,
    *,
    p_pass: float | None = None,
    p_fail: float | None = None,
    look: int | None = None,
) -> RuleOutcome:
    """Return what became of a rule, with what it would have needed if it is undecided."""
    test, counts = m.test, [task.counts for task in m.tasks]
    lost = sum(c[0] for c in counts if c) if counts and all(counts) else None
    gained = sum(c[1] for c in counts if c) if counts and all(counts) else None
    return RuleOutcome(
        rule=m.rule.name,
        kind=m.rule.kind,
        suite=m.rule.suite,
        task=m.rule.task,
        verdict=verdict,
        threshold=m.rule.threshold,
        estimate=test.difference,
        low=test.low,
        high=test.high,
        margin=m.rule.margin,
        n=m.n,
        needed_n=items_needed(m, z_alpha) if verdict == "inconclusive" else None,
        resolvable_margin=smallest_margin(m, z_alpha),
        test=name_test(m),
        unit=m.rule.unit,
        lost=lost,
        gained=gained,
        p_pass=p_pass,
        p_fail=p_fail,
        degraded=test.high < 0,
        waived=waived,
        look=look,
    )
