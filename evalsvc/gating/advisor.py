"""Which way of adapting is enough: from the cheapest kind upwards, the first arm that learns and does not forget.

Every arm is judged as a gate would judge it, by learning and retention rules, and no decision is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from evalsvc.errors import EvalsvcError, EvidenceError
from evalsvc.gating.decisions import judge
from evalsvc.gating.evidence import Evidence, gather_all
from evalsvc.gating.policy import LearningRule, Policy, RetentionRule
from evalsvc.gating.verdict import Outcome, RuleOutcome
from evalsvc.records.arms import Checkpoint
from evalsvc.records.methods import find_group
from evalsvc.store.arms import Family, StoredArm
from evalsvc.store.store import Store

THOROUGH = 20
"""So many arms are judged in full; of further ones those whose means alone are short of what is asked are not."""


RUNGS = ("base", "icl", "rag", "merged", "peft", "full", "cpt", "other")
"""Groups of methods in order of what they cost as a rule; last, methods of no known group."""
ALWAYS_LISTED = frozenset(RUNGS) - {"merged", "other"}
"""Groups that are listed also where there is no arm of them: one could still try them."""


def find_rung(checkpoint: Checkpoint) -> str:
    """Return which of the `RUNGS` a checkpoint belongs to."""
    return find_group(checkpoint.method, is_adapter=checkpoint.is_adapter) or "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is asked of an arm.

    Attributes:
        learning, retention: Names of suites: the mean gain on each of the first must exceed `min_gain`, the mean loss
            on each of the second must stay below `margin`.
    """

    learning: tuple[str, ...]
    retention: tuple[str, ...]
    min_gain: float = 0.0
    margin: float = 0.02
    alpha: float = 0.05

    def policy(self) -> Policy:
        """Return the terms as a policy."""
        return Policy(
            version=1,
            alpha=self.alpha,
            learning=LearningRule(suites=self.learning, min_gain=self.min_gain) if self.learning else None,
            retention=tuple(RetentionRule(suite=suite, margin=self.margin) for suite in self.retention),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedArm:
    """What became of one arm, or of a kind of which there is none.

    Attributes:
        verdict: "pass", "fail", "inconclusive", "short" (a mean alone is short of what is asked, and the rest was not
            judged), "no evidence", "no arm", or "not needed".
        decided_by: The test that decided: of a pass the rule that came closest to its threshold, else the first that
            does not pass.
        reason: The same in words, or why there is no evidence.
    """

    rung: str
    arm: str | None
    digest: str | None
    verdict: str
    decided_by: RuleOutcome | None
    reason: str


@dataclass(frozen=True, slots=True)
class Advice:
    """The arms that were judged, in order, and the one to take, if any passes."""

    tried: tuple[TriedArm, ...]
    chosen: TriedArm | None


def order_by_cost(arms: Sequence[StoredArm]) -> list[StoredArm]:
    """Return arms by kind, and within one by GPU-hours, then by training step: the fewer the cheaper."""

    def cost(arm: StoredArm) -> tuple[int, float, int, str]:
        hours = arm.checkpoint.cost.gpu_hours
        unknown = float("inf") if hours is None else hours
        return RUNGS.index(find_rung(arm.checkpoint)), unknown, arm.checkpoint.step or 0, arm.label

    return sorted(arms, key=cost)


def advise(store: Store, family: Family, terms: Terms) -> Advice:
    """Judge a base's arms from the cheapest upwards until one passes.

    Raises:
        UsageError: The terms can never be met.
        PolicyError: A suite has too few items for the margin.
    """
    policy = terms.policy()
    tried: list[TriedArm] = [_judge_base(family, terms)]
    chosen = tried[0] if tried[0].verdict == "pass" else None
    arms = order_by_cost([arm for arm in family.arms if find_rung(arm.checkpoint) != "base"])
    gains = store.mean_gains(family.base.number) if len(arms) > THOROUGH else {}
    shortfalls = {arm.number: _find_shortfall(terms, gains.get(arm.number, {})) for arm in arms[THOROUGH:]}
    evidence = gather_all(store, policy, family.base, [arm for arm in arms if shortfalls.get(arm.number) is None])
    by_rung = {rung: list(group) for rung, group in groupby(arms, lambda arm: find_rung(arm.checkpoint))}
    for rung in RUNGS[1:]:
        members = by_rung.get(rung, [])
        if not members and rung in ALWAYS_LISTED:
            tried.append(_skip(rung, None, "no arm", "the store has none of this kind"))
        for arm in members:
            shortfall = shortfalls.get(arm.number)
            if chosen is not None:
                tried.append(_skip(rung, arm, "not needed", f"{chosen.arm} is cheaper and passes"))
            elif shortfall is not None:
                tried.append(_skip(rung, arm, "short", shortfall))
            else:
                tried.append(_judge_arm(policy, arm, next(evidence)))
                chosen = tried[-1] if tried[-1].verdict == "pass" else None
    return Advice(tuple(tried), chosen)


def _skip(rung: str, arm: StoredArm | None, verdict: str, reason: str) -> TriedArm:
    """Return an arm, or a kind without an arm, on which no rule was tested."""
    return TriedArm(
        rung=rung,
        arm=arm.label if arm else None,
        digest=arm.checkpoint.digest if arm else None,
        verdict=verdict,
        decided_by=None,
        reason=reason,
    )


def _judge_base(family: Family, terms: Terms) -> TriedArm:
    """Judge the base itself: it forgot nothing and learned nothing, by definition."""
    asks = bool(terms.learning)
    reason = "its gain is 0 by definition, and a gain is asked for" if asks else "nothing is asked but to keep"
    digest = family.base.checkpoint.digest
    return TriedArm(
        rung="base",
        arm=family.base.label,
        digest=digest,
        verdict="fail" if asks else "pass",
        decided_by=None,
        reason=reason,
    )


def _find_shortfall(terms: Terms, gains: Mapping[str, float]) -> str | None:
    """Return on which suite an arm's mean gain is short of what is asked; None if on none that is known."""
    asked = [("learning", suite, terms.min_gain) for suite in terms.learning]
    asked += [("retention", suite, -terms.margin) for suite in terms.retention]
    for what, suite, least in asked:
        if suite in gains and gains[suite] <= least:
            return f"{what}/{suite}: {gains[suite]:+.3f}, and more than {least:+g} is asked"
    return None


def _judge_arm(policy: Policy, arm: StoredArm, evidence: Evidence | EvidenceError) -> TriedArm:
    rung, digest = find_rung(arm.checkpoint), arm.checkpoint.digest
    try:
        if isinstance(evidence, EvidenceError):
            raise evidence
        outcome = judge(policy, evidence, 1.0, datetime.now(UTC).date())
    except EvalsvcError as error:
        return _skip(rung, arm, "no evidence", str(error))
    rule = _find_deciding_rule(outcome)
    reason = (
        f"{rule.rule}: {rule.estimate:+.3f} [{rule.low:+.3f}, {rule.high:+.3f}], margin {rule.margin:g}, {rule.test}"
    )
    return TriedArm(rung=rung, arm=arm.label, digest=digest, verdict=outcome.verdict, decided_by=rule, reason=reason)


def _find_deciding_rule(outcome: Outcome) -> RuleOutcome:
    order = {"fail": 0, "inconclusive": 1, "pass": 2}
    return min(outcome.rules, key=lambda rule: (order[rule.verdict], -(rule.p_pass or 0.0)))
