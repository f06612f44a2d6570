"""Sampled answers and token drift of stored arms, compared with their base."""

from __future__ import annotations

from dataclasses import dataclass

from evalsvc.analysis.claims import DecidedClaim, decide_drift_claim
from evalsvc.analysis.diversity_and_drift import TaskDiversity, TaskDrift, compare_sampled, summarise_drift
from evalsvc.analysis.stored_claims import explain_missing_drift, load_claim_runs
from evalsvc.errors import EvidenceError
from evalsvc.store.arms import Family, StoredArm, find_arm, find_base
from evalsvc.store.store import Store


def compare_diversity(store: Store, adapted: str) -> list[TaskDiversity]:
    """Compare an arm's sampled answers to open prompts with its base's.

    Raises:
        UsageError: The name matches no arm, or several.
        EvidenceError: There are no sampled answers, or they cannot be compared.
    """
    arms = store.arms()
    chosen = find_arm(arms, adapted)
    base = find_base(arms, chosen)
    sampled = store.sampled_answers(base.number, [chosen.number])
    if not sampled[base.number]:
        raise EvidenceError(
            f"{base.label} has no sampled answers; submit {chosen.label} with a suite of role diversity"
        )
    return compare_sampled(sampled[base.number], sampled[chosen.number])


@dataclass(frozen=True, slots=True)
class ArmDrift:
    """An arm's token drift and its forgetting.

    Attributes:
        tasks: Empty if there is no drift, for the reason `refusal`.
    """

    arm: StoredArm
    tasks: tuple[TaskDrift, ...]
    forgetting: float | None
    refusal: str | None = None


def load_drift(store: Store, family: Family) -> tuple[list[ArmDrift], DecidedClaim]:
    """Return the drift of a base's arms, and the claim that it predicts their forgetting.

    Raises:
        EvidenceError: No arm has drift; with the reason, if an arm was scored on texts.
    """
    runs = load_claim_runs(store, family)
    tokens = store.drifts([arm.number for arm in family.arms])
    forgetting = {arm.number: run.forgetting for arm, run in runs}
    refusals = explain_missing_drift(store, family, tokens)
    drifts = [
        ArmDrift(arm, tuple(summarise_drift(tokens[arm.number])), forgetting.get(arm.number), refusals.get(arm.number))
        for arm in family.arms
        if tokens[arm.number] or arm.number in refusals
    ]
    if drifts and all(drift.refusal for drift in drifts):
        more = f" (and {len(drifts) - 1} more arms)" if len(drifts) > 1 else ""
        raise EvidenceError(f"{drifts[0].arm.label}: {drifts[0].refusal}{more}")
    if not drifts:
        raise EvidenceError(
            f"no arm of {family.base.label} has drift; submit one with a suite of role drift whose tasks "
            "are texts (loglikelihood_rolling)"
        )
    about = f"arms of {family.base.label}"
    return drifts, decide_drift_claim([run for _, run in runs], about)[0]
