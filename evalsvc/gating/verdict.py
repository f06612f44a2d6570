"""Verdicts on complete evidence. Pure: no I/O, no database.

* **pass** if every rule that is not waived is shown to hold: an intersection-union test, which needs no correction for
  the number of rules (Berger 1982);
* **fail** if some rule is shown not to hold, after Holm's correction over all rules;
* **inconclusive** otherwise, with the number of units needed; also where the base has nothing to lose on most items.

Rules that cannot be tested raise EvidenceError, never a verdict. `sequential` decides at interim looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from evalsvc.errors import EvidenceError
from evalsvc.gating.candidates import Candidate
from evalsvc.gating.measure import (
    MeasuredRule,
    compute_needed_runs,
    compute_needed_units,
    compute_smallest_margin,
    is_lost,
    measure_rule,
    name_rule_units,
    name_test,
)
from evalsvc.gating.policy import Policy, WaiverEntry
from evalsvc.gating.rules import Rule, RuleKind
from evalsvc.gating.waivers import describe_waivers, judge_waivers
from evalsvc.stats.margins import z_of
from evalsvc.stats.multiplicity import bonferroni, holm

Verdict = Literal["pass", "fail", "inconclusive"]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 3, "inconclusive": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOutcome:
    """The outcome of a rule.

    Attributes:
        rule: Its name: kind/suite, kind/suite/task, "retention/group", "exchange" or "diversity/suite/task/measure".
        suite, task: Suite and task of the rule; None for several suites, all tasks, or sampled answers.
        threshold: The value that the estimate must exceed, in its unit.
        estimate: Adapted minus base, positive is better; for diversity the ratio minus 1; for exchange the mean gain on
            retention suites plus `margin` times that on learning suites.
        low, high: Ends of its interval, each a one-sided bound at the candidate's alpha.
        n: Number of items.
        units: Number of independent units of evidence.
        unit_of_evidence: What these are: "items", "documents" of several items, "clusters" or "prompts".
        needed_n: Units needed to show that the rule holds, if the estimate were true; None if the rule is decided, or
            more would not change it.
        resolvable_margin: Smallest margin that these units resolve with 80 % power for an unchanged checkpoint, in the
            rule's unit, also where `margin` is an exchange rate.
        p_pass, p_fail: One-sided p-values, the second after Holm; None in mode group_sequential, where bounds decide.
        degraded: Whether the loss is significant, whatever the margin, after Bonferroni's correction over all rules.
        blind_spots: Tasks on which the base has nothing to lose (for learning: to gain), as "SUITE/TASK at chance".
        is_blind: Whether these are more than half of the items, and not allowed by the policy, so that it cannot pass.
        waived: Reason, owner and expiry of the waiver, if the rule is waived.
        look: Number of the interim look that decided, if there were several.
        run_gains: Of a recipe the gain of each independent run, whose mean is the estimate; else empty.
        needed_runs: As `needed_n`, of a recipe: runs needed on the same items.
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
    units: int
    unit_of_evidence: str
    needed_n: int | None
    resolvable_margin: float
    test: str
    unit: str
    lost: int | None
    gained: int | None
    p_pass: float | None
    p_fail: float | None
    degraded: bool
    blind_spots: tuple[str, ...] = ()
    is_blind: bool = False
    waived: str | None = None
    look: int | None = None
    run_gains: tuple[float, ...] = ()
    needed_runs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InterimLook:
    """One interim look: number of items used, number of all items (`of`), and the verdict."""

    number: int
    fraction: float
    items: int
    of: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A verdict with the outcomes of all rules.

    Attributes:
        waivers: Each waiver with its state, such as "applied" or "expired on ...".
        candidate: Which candidate on its evidence the checkpoint is, and the level of its tests; None if it was tested
            at the policy's level.
    """

    verdict: Verdict
    rules: tuple[RuleOutcome, ...]
    waivers: tuple[tuple[WaiverEntry, str], ...]
    looks: tuple[InterimLook, ...] = ()
    candidate: Candidate | None = None

    @property
    def exit_code(self) -> int:
        """0, 3 or 4."""
        return EXIT_CODES[self.verdict]

    @property
    def is_degraded(self) -> bool:
        """Whether the loss of any rule is significant."""
        return any(rule.degraded for rule in self.rules)


# ----------------------------------------------------------------------------------------------------------- verdict


def decide(
    policy: Policy, rules: Sequence[Rule], waivers: Sequence[WaiverEntry], checkpoint: str, today: date
) -> Outcome:
    """Decide on complete evidence.

    Args:
        checkpoint: Digest of the adapted checkpoint, which waivers refer to.
        today: The date for the expiry of waivers.

    Raises:
        EvidenceError: All rules are waived, or a rule has no evidence.
    """
    judged = judge_waivers(waivers, rules, checkpoint, today)
    waived = describe_waivers(judged)
    tested = [position for position, rule in enumerate(rules) if rule.name not in waived]
    if not tested:
        raise EvidenceError("every rule of the policy is waived, so nothing was decided; remove a waiver")
    z_alpha, z_loss = z_of(policy.alpha), z_of(bonferroni(policy.alpha, len(tested)))
    measured = [measure_rule(rule, z_alpha) for rule in rules]
    p_fail = np.array([m.test.p_below for m in measured])
    p_fail[tested] = holm(p_fail[tested])
    outcomes = []
    for m, p in zip(measured, p_fail, strict=True):
        verdict: Verdict = "inconclusive"
        if m.test.z >= z_alpha and not m.rule.is_blind:
            verdict = "pass"
        elif p <= policy.alpha:
            verdict = "fail"
        outcomes.append(
            build_outcome(m, verdict, z_alpha, z_loss, waived.get(m.rule.name), p_pass=m.test.p_above, p_fail=float(p))
        )
    verdict = combine_verdicts(outcome.verdict for outcome in outcomes if outcome.waived is None)
    return Outcome(verdict=verdict, rules=tuple(outcomes), waivers=tuple(judged))


def combine_verdicts(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the overall verdict, given the verdicts of all rules that are not waived."""
    distinct = set(verdicts)
    if "fail" in distinct:
        return "fail"
    return "pass" if distinct == {"pass"} else "inconclusive"


def build_outcome(
    m: MeasuredRule,
    verdict: Verdict,
    z_alpha: float,
    z_loss: float,
    waived: str | None,
    *,
    p_pass: float | None = None,
    p_fail: float | None = None,
    look: int | None = None,
) -> RuleOutcome:
    """Return the outcome of a rule, with the items needed if it is inconclusive.

    Args:
        z_loss: Normal quantile at which a loss is significant.
    """
    test, is_blind = m.test, m.rule.is_blind
    needs_more = verdict == "inconclusive" and not is_blind
    seeing = m if (rule := m.rule.without_blind_spots()) is m.rule else measure_rule(rule, z_alpha)
    counts = [(c.lost, c.gained) if c.higher_is_better else (c.gained, c.lost) for c in m.comparisons]
    is_binary = bool(counts) and all(lost is not None for lost, _ in counts)
    lost = sum(lost or 0 for lost, _ in counts) if is_binary else None
    gained = sum(gained or 0 for _, gained in counts) if is_binary else None
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
        units=m.units,
        unit_of_evidence=name_rule_units(m),
        needed_n=compute_needed_units(seeing, z_alpha) if needs_more else None,
        resolvable_margin=compute_smallest_margin(seeing, z_alpha),
        test=name_test(m),
        unit=m.rule.unit,
        lost=lost,
        gained=gained,
        p_pass=p_pass,
        p_fail=p_fail,
        degraded=is_lost(m, z_loss),
        blind_spots=tuple(f"{spot.task} {spot.level}" for spot in m.rule.blind_spots),
        is_blind=is_blind,
        waived=waived,
        look=look,
        run_gains=m.rule.run_gains,
        needed_runs=compute_needed_runs(seeing, z_alpha) if needs_more else None,
    )
