"""Finds the cheapest arm that learns and does not forget.

Arms are judged in order of cost, by learning and retention rules as in a gate; no decision is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from evalsvc.errors import EvalsvcError, EvidenceError
from evalsvc.gating.decisions import judge
from evalsvc.gating.evidence import Evidence, gather_all
from evalsvc.gating.policy import Policy, parse_policy
from evalsvc.gating.verdict import Outcome, RuleOutcome
from evalsvc.records.arms import Checkpoint
from evalsvc.records.methods import find_group
from evalsvc.store.arms import Family, StoredArm
from evalsvc.store.store import Store

MAX_JUDGED = 20
"""Arms that are judged in full; a further arm is only judged if its mean gains alone do not rule it out."""


GROUPS_BY_COST = ("base", "icl", "rag", "merged", "peft", "full", "cpt", "other")
"""Groups of methods by their usual cost, cheapest first; methods of no known group come last."""
ALWAYS_LISTED = frozenset(GROUPS_BY_COST) - {"merged", "other"}
"""Groups that are listed even if the store has no arm of them, because they could be tried."""


def find_cost_group(checkpoint: Checkpoint) -> str:
    """Return the entry of `GROUPS_BY_COST` that a checkpoint belongs to."""
    return find_group(checkpoint.method, is_adapter=checkpoint.is_adapter) or "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The criteria that an arm must meet.

    Attributes:
        learning: Names of suites on each of which the mean gain must exceed `min_gain`.
        retention: Names of suites on each of which the mean loss must stay below `margin`.
    """

    learning: tuple[str, ...]
    retention: tuple[str, ...]
    min_gain: float = 0.0
    margin: float = 0.02
    alpha: float = 0.05

    def policy(self) -> Policy:
        """Return the criteria as a policy.

        Raises:
            PolicyError: A number is out of range.
        """
        content: dict[str, Any] = {
            "version": 1,
            "alpha": self.alpha,
            "retention": [{"suite": suite, "margin": self.margin} for suite in self.retention],
        }
        if self.learning:
            content["learning"] = {"suites": list(self.learning), "min_gain": self.min_gain}
        return parse_policy(content, "criteria")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedArm:
    """The verdict on one arm, or on a group of methods without an arm.

    Attributes:
        rung: The group of methods, one of `GROUPS_BY_COST`.
        verdict: "pass", "fail", "inconclusive", "short" (a mean gain alone rules it out, nothing was tested), "no
            evidence", "no arm", or "not needed".
        decided_by: The deciding rule: for a pass the rule closest to its threshold, else the first that does not pass.
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
    """All arms in order of cost, and the cheapest that passes, if any."""

    arms: tuple[JudgedArm, ...]
    choice: JudgedArm | None


def order_by_cost(arms: Sequence[StoredArm]) -> list[StoredArm]:
    """Return arms by group of methods; within a group by GPU-hours, CPU-hours, training tokens, step and share trained.

    What is not known comes last.
    """

    def cost(arm: StoredArm) -> tuple[int, list[float], str]:
        checkpoint = arm.checkpoint
        spent = checkpoint.cost
        known = [spent.gpu_hours, spent.cpu_hours, spent.train_tokens, checkpoint.step or 0, spent.trainable_share]
        amounts = [float("inf") if amount is None else float(amount) for amount in known]
        return GROUPS_BY_COST.index(find_cost_group(checkpoint)), amounts, arm.label

    return sorted(arms, key=cost)


def advise(store: Store, family: Family, terms: Terms) -> Advice:
    """Judge a base's arms in order of cost until one passes.

    Raises:
        UsageError: No arm can meet the criteria.
        PolicyError: A suite has too few items for the margin.
        EvidenceError: There are no criteria.
    """
    if not (terms.learning or terms.retention):
        raise EvidenceError(
            f"{family.base.label} has no scores on a suite of role domain or general: there is nothing to judge arms "
            "by; submit one with such a suite"
        )
    policy = terms.policy()
    judged: list[JudgedArm] = [_judge_base(family, terms)]
    choice = judged[0] if judged[0].verdict == "pass" else None
    arms = order_by_cost([arm for arm in family.arms if find_cost_group(arm.checkpoint) != "base"])
    gains = store.mean_gains(family.base.number) if len(arms) > MAX_JUDGED else {}
    shortfalls = {arm.number: _find_shortfall(terms, gains.get(arm.number, {})) for arm in arms[MAX_JUDGED:]}
    evidence = gather_all(store, policy, family.base, [arm for arm in arms if shortfalls.get(arm.number) is None])
    by_group = {rung: list(group) for rung, group in groupby(arms, lambda arm: find_cost_group(arm.checkpoint))}
    for rung in GROUPS_BY_COST[1:]:
        members = by_group.get(rung, [])
        if not members and rung in ALWAYS_LISTED:
            judged.append(_skip(rung, None, "no arm", "the store has no arm of this group"))
        for arm in members:
            shortfall = shortfalls.get(arm.number)
            if choice is not None:
                judged.append(_skip(rung, arm, "not needed", f"{choice.arm} is cheaper and passes"))
            elif shortfall is not None:
                judged.append(_skip(rung, arm, "short", shortfall))
            else:
                judged.append(_judge_arm(policy, arm, next(evidence)))
                choice = judged[-1] if judged[-1].verdict == "pass" else None
    return Advice(tuple(judged), choice)


def _skip(rung: str, arm: StoredArm | None, verdict: str, reason: str) -> JudgedArm:
    """Return an arm, or a group without an arm, on which no rule was tested."""
    return JudgedArm(
        rung=rung,
        arm=arm.label if arm else None,
        digest=arm.checkpoint.digest if arm else None,
        verdict=verdict,
        decided_by=None,
        reason=reason,
    )


def _judge_base(family: Family, terms: Terms) -> JudgedArm:
    """Judge the base itself: its gain and loss are 0 by definition."""
    needs_gain = bool(terms.learning)
    reason = "its gain is 0 by definition, and a gain is required" if needs_gain else "only retention is required"
    digest = family.base.checkpoint.digest
    return JudgedArm(
        rung="base",
        arm=family.base.label,
        digest=digest,
        verdict="fail" if needs_gain else "pass",
        decided_by=None,
        reason=reason,
    )


def _find_shortfall(terms: Terms, gains: Mapping[str, float]) -> str | None:
    """Return the suite on which an arm's mean gain does not exceed the threshold, in words; None if there is none."""
    terms_by_suite = [("learning", suite, terms.min_gain) for suite in terms.learning]
    terms_by_suite += [("retention", suite, -terms.margin) for suite in terms.retention]
    for kind, suite, least in terms_by_suite:
        if suite in gains and gains[suite] <= least:
            return f"{kind}/{suite}: {gains[suite]:+.3f}, must exceed {least:+g}"
    return None


def _judge_arm(policy: Policy, arm: StoredArm, evidence: Evidence | EvidenceError) -> JudgedArm:
    rung, digest = find_cost_group(arm.checkpoint), arm.checkpoint.digest
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
    return JudgedArm(rung=rung, arm=arm.label, digest=digest, verdict=outcome.verdict, decided_by=rule, reason=reason)


def _find_deciding_rule(outcome: Outcome) -> RuleOutcome:
    order = {"fail": 0, "inconclusive": 1, "pass": 2}
    return min(outcome.rules, key=lambda rule: (order[rule.verdict], -(rule.p_pass or 0.0)))
