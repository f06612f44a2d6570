"""Decides on the evidence in a store, and stores the decision.

A decision record is JSON: digests of base, checkpoint, suites and policy, versions, seeds, the input of every test, the
rules' outcomes, waivers and interim looks. It is stored in the store, chained to the last one of its base, and as a
file in the folder `<store>.decisions`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from evalsvc import __version__
from evalsvc.analysis.units import list_items
from evalsvc.errors import EvalsvcError, EvidenceError, PolicyError
from evalsvc.gating import sequential, verdict
from evalsvc.gating.candidates import Candidate, at_level
from evalsvc.gating.evidence import Evidence, Items, digest_scores, gather
from evalsvc.gating.ledger import find_candidate, read_records
from evalsvc.gating.policy import Policy, TaskSize, check_possible
from evalsvc.gating.recipe import gather_recipe
from evalsvc.gating.rules import DiversityRatio, Rule, TaskPair, build_rules
from evalsvc.gating.verdict import Outcome
from evalsvc.records.choices import Half
from evalsvc.records.digests import digest
from evalsvc.records.direction import orient
from evalsvc.records.serialise import replace_non_finite, to_plain
from evalsvc.records.vocabulary import Ints
from evalsvc.store.arms import StoredArm, find_arm, find_base
from evalsvc.store.decisions import Decisions, Record
from evalsvc.store.items import StoredItems
from evalsvc.store.runs import PlannedRun
from evalsvc.store.store import Store

SCHEMA = 1
STATISTICS = 2
"""Raised when bounds or p-values are computed in another way, so that older decisions are not held against new ones."""
SHOWN_ITEMS = 5
KIND, RECIPE_KIND = "evalsvc decision", "evalsvc recipe decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whether a checkpoint may be promoted.

    Attributes:
        checkpoint, base: Labels, names, paths or digests of arms.
        batch_size: Number of candidates that will be tested on the same evidence, declared before the first.
        half: Use only one seeded half of every task's items: "select" to select, "confirm" to confirm a checkpoint.
        incumbent: Label, name, path or digest of the arm that is served now.
        is_recipe: Whether `checkpoint` is a shell pattern over the names of training runs, whose mean is judged.
    """

    checkpoint: str
    policy: Policy
    base: str | None = None
    batch_size: int | None = None
    half: Half | None = None
    incumbent: str | None = None
    is_recipe: bool = False

    def __post_init__(self) -> None:
        """Refuse options that exclude each other, before anything is scored."""
        mode = self.policy.mode
        if self.half and mode != "fixed":
            raise PolicyError(f"mode {mode}: --half needs mode fixed; remove --half, or set mode: fixed")
        if self.is_recipe and (self.half or self.incumbent or mode != "fixed"):
            option = "--half" if self.half else "--incumbent" if self.incumbent else f"mode {mode}"
            raise PolicyError(
                f"{option}: a recipe is decided against its base, on all items, in mode fixed; leave out {option} or "
                "--recipe"
            )
        if self.incumbent and mode != "fixed":
            raise PolicyError(f"mode {mode}: --incumbent needs mode fixed; remove it, or set mode: fixed")
        if self.incumbent and not self.policy.incumbent:
            raise PolicyError(
                f"--incumbent {self.incumbent}: the policy has no rule about it; add incumbent: {{margin: 0.02}} to it"
            )
        if self.policy.incumbent and self.is_recipe:
            raise PolicyError(
                "a recipe is decided against its base; remove incumbent from the policy, or leave out --recipe"
            )
        if self.policy.incumbent and not self.incumbent:
            raise PolicyError("the policy has an incumbent rule; name the arm that is served now with --incumbent")
        if self.batch_size is not None and self.batch_size < 1:
            raise PolicyError(f"--batch-size {self.batch_size}: must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LostItem:
    """An item with a lower score in the checkpoint than in the base."""

    suite: str
    task: str
    doc: str
    target: str
    base: float
    adapted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision as stored.

    Attributes:
        warnings: Waivers that do not apply, and notes on the runs of a recipe.
    """

    outcome: Outcome
    record: Record
    path: Path
    lost: tuple[LostItem, ...]
    warnings: tuple[str, ...]


def decide(
    store: Store,
    question: Question,
    *,
    fraction: float = 1.0,
    plans: Sequence[str] | None = None,
    items: Items | None = None,
) -> Decision:
    """Decide, and store the decision.

    Args:
        fraction: Share of the items that is scored so far, in the order of the interim looks.
        plans: Digests of the plans with these items; None for the newest whole plans.
        items: Number of items of the whole tasks, if not all are scored.

    Raises:
        UsageError: A name matches no arm, or the policy cannot be met.
        EvidenceError: Evidence is missing, incomplete or not comparable; nothing was decided.
    """
    evidence = _gather_question(store, question, plans=plans, items=items)
    decisions = Decisions(store.path)
    record = None
    while record is None:  # another decision may come in between: then the candidates are counted again
        chain = decisions.chain(evidence.base.checkpoint.digest)
        outcome = _judge_in_turn(store, question, evidence, chain, fraction)
        record = decisions.append(
            _build_decision_record(question, evidence, outcome, datetime.now(UTC), fraction=fraction, items=items),
            _evidence_key(evidence, question.half),
            chain[-1]["digest"] if chain else None,
        )
    return Decision(
        outcome=outcome,
        record=record,
        path=_write(store.path, record),
        lost=list_lost_items(store, evidence, outcome),
        warnings=(
            *(f"waiver {entry.text}: {state}" for entry, state in outcome.waivers if state != "applied"),
            *evidence.notes,
        ),
    )


def judge_question(
    store: Store,
    question: Question,
    *,
    fraction: float = 1.0,
    plans: Sequence[str] | None = None,
    items: Items | None = None,
) -> Outcome:
    """Return the outcome of a decision, without storing it.

    Raises:
        UsageError: A name matches no arm, or the policy cannot be met.
        EvidenceError: Evidence is missing, incomplete or not comparable.
    """
    evidence = _gather_question(store, question, plans=plans, items=items)
    chain = read_records(store, evidence.base.checkpoint.digest)
    return _judge_in_turn(store, question, evidence, chain, fraction)


def _gather_question(store: Store, question: Question, *, plans: Sequence[str] | None, items: Items | None) -> Evidence:
    """Return the evidence of a question.

    Raises:
        UsageError: A name matches no arm.
        EvidenceError: Evidence is missing, incomplete or not comparable.
    """
    if question.is_recipe:
        return gather_recipe(store, question.policy, question.checkpoint, question.base)
    arms = store.arms()
    adapted = find_arm(arms, question.checkpoint)
    base = find_arm(arms, question.base) if question.base else find_base(arms, adapted)
    if base.digest == adapted.digest:
        raise EvidenceError(f"{base.checkpoint.label} is the base itself; name an adapted checkpoint")
    if base.numerics != adapted.numerics:
        raise EvidenceError(
            f"{adapted.checkpoint.label} and {base.checkpoint.label} were scored with different numerics; submit both "
            "again"
        )
    incumbent = find_arm(arms, question.incumbent) if question.incumbent else None
    if incumbent is not None:
        _check_incumbent(incumbent, base, adapted)
    return gather(
        store, question.policy, base, adapted, plans=plans, items=items, half=question.half, incumbent=incumbent
    )


def _check_incumbent(incumbent: StoredArm, base: StoredArm, adapted: StoredArm) -> None:
    label = incumbent.checkpoint.label
    if incumbent.digest == adapted.digest:
        raise EvidenceError(f"--incumbent {label}: is the checkpoint itself; name the arm that is served now")
    if incumbent.numerics != base.numerics:
        raise EvidenceError(f"--incumbent {label}: was scored with other numerics; submit it again")


def _judge_in_turn(
    store: Store, question: Question, evidence: Evidence, chain: Sequence[Record], fraction: float
) -> Outcome:
    """Return the outcome at the level of the candidate, given all decisions about arms of its base, oldest first."""
    suites = {run.part_of or run.digest: run.suite for run in evidence.plans}
    documents: dict[str, list[Ints]] = {}
    for pair in evidence.pairs:
        documents.setdefault(pair.base.suite, []).append(list_items(pair.base).documents)
    candidate = find_candidate(
        store,
        question.policy,
        chain,
        base=evidence.base.digest,
        adapted=evidence.adapted.digest,
        plans=suites | dict.fromkeys(evidence.sampled, "sampled answers"),
        documents=documents,
        half=question.half,
        batch_size=question.batch_size,
    )
    return judge(question.policy, evidence, fraction, datetime.now(UTC).date(), candidate)


def judge(
    policy: Policy, evidence: Evidence, fraction: float, today: date, candidate: Candidate | None = None
) -> Outcome:
    """Return the outcome of a policy on evidence.

    Args:
        candidate: Which candidate the arm is, and its level; None to test it at the policy's level.

    Raises:
        EvidenceError: Evidence is missing, incomplete or not comparable.
        PolicyError: The policy cannot be met with so few items.
    """
    policy = policy if candidate is None else at_level(policy, candidate)
    rules = build_rules(policy, evidence.pairs, evidence.ratios, evidence.against_incumbent)
    check_possible(policy, _sizes(evidence.pairs))
    arguments: tuple[Policy, list[Rule], Any, str, date] = (
        policy,
        rules,
        policy.waiver_entries(),
        evidence.adapted.checkpoint.digest,
        today,
    )
    outcome = verdict.decide(*arguments) if policy.mode == "fixed" else sequential.decide(*arguments, fraction)
    return replace(outcome, candidate=candidate)


def _sizes(pairs: Sequence[TaskPair]) -> dict[str, tuple[TaskSize, ...]]:
    sizes: dict[str, tuple[TaskSize, ...]] = {}
    for pair in pairs:
        of = list_items(pair.base) if len(pair.base.samples) == pair.items else None  # None at an interim look
        size = TaskSize(pair.base.task, pair.items, pair.base.weight, of)
        sizes[pair.base.suite] = (*sizes.get(pair.base.suite, ()), size)
    return sizes


def list_lost_items(store: Store, evidence: Evidence, outcome: Outcome) -> tuple[LostItem, ...]:
    """Return the items with the largest losses, of the tasks with the largest losses that are not waived."""
    if outcome.verdict == "pass" and not outcome.is_degraded:
        return ()
    retention = [rule for rule in outcome.rules if rule.kind == "retention"]
    kept = {rule.suite for rule in retention}
    waived = {(rule.suite, rule.task) for rule in retention if rule.waived}
    losing = [
        pair
        for pair in sorted(evidence.pairs, key=lambda pair: pair.comparison.gain)
        if pair.base.suite in kept and pair.comparison.gain < 0 and (pair.base.suite, pair.base.task) not in waived
    ]
    per_task = SHOWN_ITEMS if len(losing) == 1 else (SHOWN_ITEMS + 1) // 2
    losses = [lost for pair in losing for lost in _losses(pair)[:per_task]][:SHOWN_ITEMS]
    texts = StoredItems(store.path).texts([sample for _, sample, _, _ in losses]) if losses else {}
    return tuple(
        LostItem(
            suite=pair.base.suite,
            task=pair.base.task,
            doc=texts[sample].doc,
            target=texts[sample].target,
            base=base,
            adapted=adapted,
        )
        for pair, sample, base, adapted in losses
    )


def _losses(pair: TaskPair) -> list[tuple[TaskPair, int, float, float]]:
    """Return the samples that the adapted arm lost, the largest loss first, with both arms' scores."""
    samples, in_base, in_adapted = np.intersect1d(pair.base.samples, pair.adapted.samples, return_indices=True)
    base, adapted = pair.base.values[in_base], pair.adapted.values[in_adapted]
    gain = orient(adapted - base, pair.base.higher_is_better)
    order = np.argsort(gain, kind="stable")
    return [(pair, int(samples[n]), float(base[n]), float(adapted[n])) for n in order[: (gain < 0).sum()]]


# ------------------------------------------------------------------------------------------------------------ record


def _build_decision_record(
    question: Question,
    evidence: Evidence,
    outcome: Outcome,
    now: datetime,
    *,
    fraction: float,
    items: Items | None,
) -> Record:
    base, adapted = evidence.base, evidence.adapted
    return {
        "schema": SCHEMA,
        "kind": RECIPE_KIND if evidence.runs else KIND,
        "statistics": STATISTICS,
        "decided": now.isoformat(timespec="seconds"),
        "base": _arm(base),
        "checkpoint": _arm(adapted),
        "incumbent": None if evidence.incumbent is None else _arm(evidence.incumbent),
        "numerics": json.loads(adapted.numerics),
        "policy": {"digest": question.policy.digest(), "content": question.policy.model_dump(mode="json")},
        "suites": [suite_record(run) for run in evidence.plans],
        "sampled": list(evidence.sampled),
        "packages": _packages(),
        "seeds": {"order": sequential.SEED},
        "half": question.half,
        "fraction": fraction,
        "items": [[suite, task, count] for (suite, task), count in (items or {}).items()],
        **describe_decision(evidence, outcome),
        "candidate": None if outcome.candidate is None else asdict(outcome.candidate),
    }


def describe_decision(evidence: Evidence, outcome: Outcome) -> Record:
    """Return the part of a record that `verify` recomputes; numbers that JSON does not have are None."""
    content: Record = {"runs": [asdict(run) for run in evidence.runs]} if evidence.runs else {}
    content |= {
        "inputs": describe_inputs(evidence),
        "incumbent_inputs": [_describe_input(pair) for pair in evidence.against_incumbent],
        "ratios": [_describe_ratio(ratio) for ratio in evidence.ratios],
        "rules": [asdict(rule) for rule in outcome.rules],
        "waivers": [{"waiver": json.loads(entry.text), "state": state} for entry, state in outcome.waivers],
        "looks": [asdict(look) for look in outcome.looks],
        "verdict": outcome.verdict,
        "exit_code": outcome.exit_code,
        "degraded": outcome.is_degraded,
    }
    return dict(replace_non_finite(content)[0])


def describe_inputs(evidence: Evidence) -> list[Record]:
    """Return the entries of a record's tasks."""
    return [_describe_input(pair) for pair in evidence.pairs]


def _describe_ratio(ratio: DiversityRatio) -> Record:
    """Return a record's entry of a diversity ratio."""
    of = ratio.values
    value, stderr = (of.ratio, of.stderr) if of.is_testable else (None, None)
    return {"suite": ratio.suite, "metric": ratio.metric, "value": value, "stderr": stderr, "n": ratio.n}


def _arm(arm: StoredArm) -> Record:
    return {"arm": arm.checkpoint.label, "digest": arm.checkpoint.digest, "key": arm.digest}


def suite_record(run: PlannedRun) -> Record:
    """Return a suite's entry in a decision record."""
    return {
        "suite": run.suite,
        "role": run.role,
        "digest": run.suite_digest,
        "plan": run.digest,
        "part_of": run.part_of,
    }


def _describe_input(pair: TaskPair) -> Record:
    comparison = to_plain(pair.comparison)
    return {
        **comparison,
        "items": pair.items,
        "scores": digest_scores(pair.base),
        "adapted_scores": digest_scores(pair.adapted),
    }


def _packages() -> dict[str, str]:
    versions = {"evalsvc": __version__}
    for name in ("numpy", "scipy", "lm-eval", "torch", "transformers", "peft"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _write(store: Path, record: Record) -> Path:
    folder = store.with_name(store.name + ".decisions")
    path = folder / f"{record['digest'][:16]}.json"
    try:
        folder.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvalsvcError(
            f"decision {path}: cannot be written: {error.strerror}; the decision is in the store"
        ) from error
    return path


def _evidence_key(evidence: Evidence, half: Half | None) -> str:
    """Return the digest of base and suite versions."""
    suites = sorted(run.part_of or run.digest for run in evidence.plans)
    return digest("evidence", evidence.base.digest, half or "", *suites)
