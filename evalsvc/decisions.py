"""Decide on the evidence in a store, keep the decision with all that it rests on, and verify kept decisions.

A decision record is JSON: digests of base, checkpoint, suites and policy, versions, seeds, the input of every test, the
rules' outcomes, waivers and looks. It is kept in the store, chained to the last one of its base, and as a file in the
folder `<store>.decisions`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from evalsvc import __version__, gate, looks
from evalsvc.collapse import diversity_of
from evalsvc.errors import EvalsvcError, EvidenceError, PolicyError
from evalsvc.gate import Outcome, Ratio, Rule, TaskPair
from evalsvc.ledger import Attempt, Ledger, PlannedRun, Record
from evalsvc.policies import Policy, TaskSize, check_possible
from evalsvc.records import TaskScores, as_dict, digest
from evalsvc.service import base_of, find_arm
from evalsvc.stats.diversity import WORSE_WHEN
from evalsvc.stats.multiplicity import holm
from evalsvc.stats.paired import LEVEL
from evalsvc.store import Store, StoredArm
from evalsvc.suites import changed

SCHEMA = 1
SHOWN_ITEMS = 5
Half = Literal["select", "confirm"]
Items = Mapping[looks.Key, int]
"""Items of whole tasks, where evidence is not complete."""
_AT_ONCE = 64
"""Arms whose scores are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a checkpoint may be promoted.

    Attributes:
        checkpoint, base: Labels, names, paths or digests of arms.
        batch: Whether to correct for all candidates that were tried on the same suites.
        half: Only look at one seeded half of every task's items: one to choose on, the other to confirm with.
    """

    checkpoint: str
    policy: Policy
    base: str | None = None
    batch: bool = False
    half: Half | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be answered, before anything is scored."""
        mode = self.policy.mode
        if self.half and mode != "fixed":
            raise PolicyError(f"mode {mode}: halves are for mode fixed; take one of the two out")
        if self.batch and mode == "group_sequential":
            raise PolicyError("a batch is corrected by p-values, which mode group_sequential has none of; use another")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a decision rests on."""

    base: StoredArm
    adapted: StoredArm
    plans: tuple[PlannedRun, ...]
    pairs: tuple[TaskPair, ...]
    ratios: tuple[Ratio, ...] = ()


@dataclass(frozen=True, slots=True)
class LostItem:
    """An item that the base got right and the checkpoint does not."""

    suite: str
    task: str
    doc: str
    target: str
    base: float
    adapted: float


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision as it was kept.

    Attributes:
        warnings: What its reader should know of earlier attempts.
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
    """Decide, and keep the decision.

    Args:
        fraction: Share of the items that has been asked so far, in the looks' order.
        plans: Digests of the plans that hold them; None takes the newest whole ones.
        items: How many items the whole tasks have, if that is less than all.

    Raises:
        UsageError: A name means no arm, or the policy can never be met.
        EvidenceError: Evidence is missing, incomplete or not comparable; nothing was decided then.
    """
    evidence, outcome = judged(store, question, fraction=fraction, plans=plans, items=items)
    ledger = Ledger(store.path)
    key = _evidence_key(evidence, question.half)
    others = _others(ledger.attempts(key), evidence.adapted.checkpoint.digest)
    mine = p_pass(outcome)
    batch = None
    if question.batch:
        batch = _batch(others, mine)
        if outcome.verdict == "pass" and batch["adjusted"] > question.policy.alpha:
            outcome = replace(outcome, verdict="inconclusive")
    now = datetime.now(UTC)
    record = ledger.append(
        _record(question, evidence, outcome, now, fraction=fraction, items=items, batch=batch), key, mine
    )
    return Decision(
        outcome,
        record,
        _write(store.path, record),
        lost_items(store, evidence, outcome),
        _warnings(outcome, others, question),
    )


def judged(
    store: Store,
    question: Question,
    *,
    fraction: float = 1.0,
    plans: Sequence[str] | None = None,
    items: Items | None = None,
    today: date | None = None,
) -> tuple[Evidence, Outcome]:
    """Return what a decision would rest on and be, without keeping it.

    Raises:
        UsageError: A name means no arm, or the policy can never be met.
        EvidenceError: Evidence is missing, incomplete or not comparable.
    """
    policy = question.policy
    arms = store.arms()
    adapted = find_arm(arms, question.checkpoint)
    base = find_arm(arms, question.base) if question.base else base_of(arms, adapted)
    if base.digest == adapted.digest:
        raise EvidenceError(f"{base.checkpoint.label} is the base itself: name the checkpoint that should replace it")
    if base.numerics != adapted.numerics:
        raise EvidenceError(
            f"{adapted.checkpoint.label} and {base.checkpoint.label} were scored under different numerics; submit both"
        )
    evidence = gather(store, policy, base, adapted, plans=plans, items=items, half=question.half)
    return evidence, judge(policy, evidence, fraction, today or datetime.now(UTC).date())


def judge(policy: Policy, evidence: Evidence, fraction: float, today: date) -> Outcome:
    """Return the outcome of a policy on evidence.

    Raises:
        EvidenceError: Evidence is missing, incomplete or not comparable.
        PolicyError: The policy can never be met by so few items.
    """
    rules = gate.rules_of(policy, evidence.pairs, evidence.ratios)
    check_possible(policy, _sizes(evidence.pairs))
    arguments: tuple[Policy, list[Rule], Any, str, date] = (
        policy,
        rules,
        policy.waiver_entries(),
        evidence.adapted.checkpoint.digest,
        today,
    )
    return gate.decide(*arguments) if policy.mode == "fixed" else looks.decide(*arguments, fraction)


def _sizes(pairs: Sequence[TaskPair]) -> dict[str, tuple[TaskSize, ...]]:
    found: dict[str, tuple[TaskSize, ...]] = {}
    for pair in pairs:
        size = TaskSize(pair.base.task, pair.items, pair.base.weight)
        found[pair.base.suite] = (*found.get(pair.base.suite, ()), size)
    return found


# ---------------------------------------------------------------------------------------------------------- evidence


def gather(
    store: Store,
    policy: Policy,
    base: StoredArm,
    adapted: StoredArm,
    *,
    plans: Sequence[str] | None = None,
    items: Items | None = None,
    half: Half | None = None,
) -> Evidence:
    """Return both arms' scores on the policy's suites.

    Raises:
        EvidenceError: A suite, run, task or item is missing, or the base or a suite is stale.
    """
    (found,) = gather_all(store, policy, base, [adapted], plans=plans, items=items, half=half)
    if isinstance(found, EvidenceError):
        raise found
    return found


def gather_all(
    store: Store,
    policy: Policy,
    base: StoredArm,
    several: Sequence[StoredArm],
    *,
    plans: Sequence[str] | None = None,
    items: Items | None = None,
    half: Half | None = None,
) -> Iterator[Evidence | EvidenceError]:
    """Yield the evidence on each of several arms, or why there is none; scores are read some arms at a time."""
    ledger = Ledger(store.path)
    runs: dict[int, list[PlannedRun]] = {}
    for run in ledger.runs([base.number, *(arm.number for arm in several)]):
        runs.setdefault(run.arm, []).append(run)
    stale: dict[tuple[str, ...], str | None] = {}
    for start in range(0, len(several), _AT_ONCE):
        part = several[start : start + _AT_ONCE]
        chosen: dict[int, list[PlannedRun] | EvidenceError] = {}
        alike: dict[tuple[str, ...], list[int]] = {}
        for arm in part:
            try:
                found = _chosen(ledger, policy, base, arm, runs, plans, stale)
            except EvidenceError as error:
                chosen[arm.number] = error
                continue
            chosen[arm.number] = found
            alike.setdefault(tuple(run.digest for run in found), []).append(arm.number)
        read = {key: _Read.of(store, ledger, base, numbers, key, policy, half) for key, numbers in alike.items()}
        for arm in part:
            mine = chosen[arm.number]
            if isinstance(mine, EvidenceError):
                yield mine
                continue
            try:
                pairs = read[tuple(run.digest for run in mine)].pairs(base, arm, items or {}, half)
                ratios = _ratios(store, base, arm) if policy.diversity else ()
            except EvidenceError as error:
                yield error
            else:
                yield Evidence(base, arm, tuple(mine), tuple(pairs), ratios)


def _chosen(
    ledger: Ledger,
    policy: Policy,
    base: StoredArm,
    adapted: StoredArm,
    runs: Mapping[int, Sequence[PlannedRun]],
    plans: Sequence[str] | None,
    stale: dict[tuple[str, ...], str | None],
) -> list[PlannedRun]:
    """Return the base's runs that count for an arm.

    Args:
        runs: By arm, oldest plan first.
        stale: By plans, which of their suites has changed on disk; what is not known yet is found out, and kept there.

    Raises:
        EvidenceError: One is missing, unfinished or stale.
    """
    of_base, own = runs.get(base.number, ()), runs.get(adapted.number, ())
    if plans is not None:
        named = {run.suite: run for run in of_base if run.digest in plans}
        return [named[suite] for suite in policy.suites if suite in named]
    chosen = [_newest([*of_base, *own], suite, base, adapted) for suite in policy.suites]
    sampled = {
        run.suite: run
        for run in (*of_base, *own)
        if policy.diversity and run.role == "diversity" and run.state == "done"
    }
    key = tuple(run.digest for run in (*chosen, *sampled.values()))
    if key not in stale:
        problems = ((suite, changed(files)) for suite, files in ledger.files(key).items())
        stale[key] = next((f"suite {suite!r}: {problem}" for suite, problem in problems if problem), None)
    if problem := stale[key]:
        raise EvidenceError(f"{problem}; submit {adapted.checkpoint.label} again, or add --evaluate")
    return chosen


@dataclass(frozen=True, slots=True)
class _Read:
    """Scores of a base and of some arms on the same plans.

    Attributes:
        scores: By arm, by suite and task.
        sizes: By suite, task, number of items and weight of each of its tasks.
        numbers: Digests of the samples by number, where a seeded order of the items matters.
    """

    scores: dict[int, dict[looks.Key, TaskScores]]
    sizes: dict[str, list[tuple[str, int, float]]]
    numbers: dict[int, str] | None

    @classmethod
    def of(
        cls,
        store: Store,
        ledger: Ledger,
        base: StoredArm,
        arms: Sequence[int],
        plans: Sequence[str],
        policy: Policy,
        half: Half | None,
    ) -> _Read:
        scores = store.task_scores(base.number, arms, list(plans))
        return cls(
            {arm: {(s.suite, s.task): s for s in found} for arm, found in scores.items()},
            ledger.sizes(plans),
            ledger.sample_digests(list(plans)) if policy.mode != "fixed" or half else None,
        )

    def pairs(self, base: StoredArm, adapted: StoredArm, items: Items, half: Half | None) -> Iterator[TaskPair]:
        """Yield the paired scores of an arm, task by task.

        Raises:
            EvidenceError: Some are missing.
        """
        again = f"submit {adapted.checkpoint.label} again"
        for suite, tasks in self.sizes.items():
            for task, count, _ in tasks:
                here, there = (self.scores[arm.number].get((suite, task)) for arm in (base, adapted))
                if here is None or there is None:
                    label = (base if here is None else adapted).checkpoint.label
                    raise EvidenceError(f"{suite}/{task}: {label} has no scores; {again}")
                if len(here.samples) != count:
                    raise EvidenceError(
                        f"{suite}/{task}: {base.checkpoint.label} has scores on {len(here.samples)} of {count} items; "
                        f"{again}"
                    )
                places = None
                if self.numbers is not None:
                    places = np.array([looks.place(self.numbers[int(s)]) for s in here.samples])
                pair = TaskPair(here, there, items.get((suite, task), count), places)
                yield _halved(pair, half) if half else pair


def _ratios(store: Store, base: StoredArm, adapted: StoredArm) -> tuple[Ratio, ...]:
    """Return what is left of the base's diversity, by every measure that falls when answers collapse.

    Raises:
        EvidenceError: The two arms' sampled answers cannot be compared.
    """
    sampled = store.sampled(base.number, [adapted.number])
    if not sampled[base.number]:
        return ()
    return tuple(
        Ratio(
            f"{t.suite}/{t.task}/{r.measure}", r.measure, r.ratio, _stderr(r.ratio, r.low, r.high, r.prompts), r.prompts
        )
        for t in diversity_of(sampled[base.number], sampled[adapted.number])
        for r in t.ratios
        if WORSE_WHEN[r.measure] == "lower" and r.ratio is not None and r.low is not None and r.high is not None
    )


def _stderr(ratio: float, low: float, high: float, prompts: int) -> float:
    """Return a ratio's standard error by the wider side of its interval, so that a skewed one is not taken for narrow.

    Where no prompt differs, resampling cannot tell how many others would: that of as many pairs without a discordant
    one then, by the end of Tango's interval for them, z^2 / (n + z^2).
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return max(ratio - low, high - ratio) / z or z / (prompts + z**2)


def _newest(runs: Sequence[PlannedRun], suite: str, base: StoredArm, adapted: StoredArm) -> PlannedRun:
    """Return the base's run on the newest version of a suite, if both arms have finished it."""
    label, of_base = adapted.checkpoint.label, base.checkpoint.label
    whole = [run for run in runs if run.suite == suite and run.part_of is None]
    mine = [run for run in whole if run.arm == base.number]
    if not mine:
        raise EvidenceError(
            f"suite {suite!r}: the policy asks for it, and {of_base} was never scored on it; "
            f"evalsvc submit {label} --suite {suite}"
        )
    newest = mine[-1]
    if any(run.plan > newest.plan for run in whole):
        raise EvidenceError(
            f"suite {suite!r}: {label} was scored on a newer version than {of_base}, whose scores are stale; "
            f"submit {label} again, which scores its base alongside"
        )
    theirs = next((run for run in whole if run.arm == adapted.number and run.plan == newest.plan), None)
    if theirs is None:
        raise EvidenceError(f"suite {suite!r}: {label} was not scored on its newest version; submit {label} again")
    for who, run in ((of_base, newest), (label, theirs)):
        if run.state != "done":
            raise EvidenceError(
                f"suite {suite!r}: the run of {who} is {run.state}, with {run.answered:,} of {run.requests:,} requests "
                f"answered; submit {label} again to resume"
            )
    return newest


def _halved(pair: TaskPair, half: Half) -> TaskPair:
    assert pair.places is not None
    ranks = np.argsort(np.argsort(pair.places, kind="stable"), kind="stable")
    first = ranks < (len(ranks) + 1) // 2
    mask = first if half == "select" else ~first
    if not mask.any():
        raise EvidenceError(f"{pair.base.suite}/{pair.base.task}: has too few items to be halved")
    return replace(pair.part(mask), items=int(mask.sum()))


def lost_items(store: Store, evidence: Evidence, outcome: Outcome) -> tuple[LostItem, ...]:
    """Return the items that were lost most, of the tasks that lost most and are not waived."""
    if outcome.verdict == "pass" and not outcome.degraded:
        return ()
    kept = {rule.rule.split("/")[1] for rule in outcome.rules if rule.rule.startswith("retention/")}
    waived = {rule.rule for rule in outcome.rules if rule.waived}
    losing = [
        pair
        for pair in sorted(evidence.pairs, key=lambda pair: pair.comparison.gain)
        if pair.base.suite in kept
        and pair.comparison.gain < 0
        and f"retention/{pair.base.suite}/{pair.base.task}" not in waived
    ]
    each = SHOWN_ITEMS if len(losing) == 1 else (SHOWN_ITEMS + 1) // 2
    found = [lost for pair in losing for lost in _losses(pair)[:each]][:SHOWN_ITEMS]
    texts = Ledger(store.path).items([sample for _, sample, _, _ in found]) if found else {}
    return tuple(
        LostItem(pair.base.suite, pair.base.task, texts[sample].doc, texts[sample].target, base, adapted)
        for pair, sample, base, adapted in found
    )


def _losses(pair: TaskPair) -> list[tuple[TaskPair, int, float, float]]:
    """Return the samples that an adapted arm lost, worst first, with both arms' scores."""
    samples, ours, theirs = np.intersect1d(pair.base.samples, pair.adapted.samples, return_indices=True)
    base, adapted = pair.base.values[ours], pair.adapted.values[theirs]
    gain = adapted - base if pair.base.higher_is_better else base - adapted
    order = np.argsort(gain, kind="stable")
    return [(pair, int(samples[n]), float(base[n]), float(adapted[n])) for n in order[: (gain < 0).sum()]]


# ------------------------------------------------------------------------------------------------------------ record


def _record(
    question: Question,
    evidence: Evidence,
    outcome: Outcome,
    now: datetime,
    *,
    fraction: float,
    items: Items | None,
    batch: Record | None,
) -> Record:
    base, adapted = evidence.base, evidence.adapted
    return {
        "schema": SCHEMA,
        "kind": "evalsvc decision",
        "decided": now.isoformat(timespec="seconds"),
        "base": _arm(base),
        "checkpoint": _arm(adapted),
        "numerics": json.loads(adapted.numerics),
        "policy": {"digest": question.policy.digest(), "content": question.policy.model_dump(mode="json")},
        "suites": [suite_record(run) for run in evidence.plans],
        "packages": _packages(),
        "seeds": {"order": looks.SEED},
        "half": question.half,
        "fraction": fraction,
        "items": [[suite, task, count] for (suite, task), count in (items or {}).items()],
        **decided(evidence, outcome),
        "batch": batch,
    }


def decided(evidence: Evidence, outcome: Outcome) -> Record:
    """Return what can be recomputed of a decision."""
    return {
        "inputs": [_input(pair) for pair in evidence.pairs],
        "ratios": [asdict(ratio) for ratio in evidence.ratios],
        "rules": [asdict(rule) for rule in outcome.rules],
        "waivers": [{"waiver": json.loads(entry.text), "state": state} for entry, state in outcome.waivers],
        "looks": [asdict(look) for look in outcome.looks],
        "verdict": outcome.verdict,
        "exit_code": outcome.exit_code,
        "degraded": outcome.degraded,
    }


def _arm(arm: StoredArm) -> Record:
    return {"arm": arm.checkpoint.label, "digest": arm.checkpoint.digest, "key": arm.digest}


def suite_record(run: PlannedRun) -> Record:
    """Return what a record says of a suite."""
    return {
        "suite": run.suite,
        "role": run.role,
        "digest": run.suite_digest,
        "plan": run.digest,
        "part_of": run.part_of,
    }


def _input(pair: TaskPair) -> Record:
    comparison = as_dict(pair.comparison)
    return {
        **comparison,
        "items": pair.items,
        "scores": _scores_digest(pair.base),
        "adapted_scores": _scores_digest(pair.adapted),
    }


def _scores_digest(scores: TaskScores) -> str:
    state = hashlib.sha256()
    for column in (scores.samples, scores.values, scores.weights):
        state.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    return state.hexdigest()[:32]


def _packages() -> dict[str, str]:
    found = {"evalsvc": __version__}
    for name in ("numpy", "scipy", "lm-eval", "torch", "transformers", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _write(store: Path, record: Record) -> Path:
    folder = store.with_name(store.name + ".decisions")
    path = folder / f"{record['digest'][:16]}.json"
    try:
        folder.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvalsvcError(f"decision {path}: cannot be written: {error.strerror}; the store has it") from error
    return path


# ---------------------------------------------------------------------------------------------------- alpha ledger


def _evidence_key(evidence: Evidence, half: Half | None) -> str:
    """Return the name of base and suite versions: what several candidates can be tried on."""
    suites = sorted(run.part_of or run.digest for run in evidence.plans)
    return digest("evidence", evidence.base.digest, half or "", *suites)


def _others(attempts: Sequence[Attempt], checkpoint: str) -> list[Attempt]:
    """Return the last attempt of every other candidate."""
    return list({a.checkpoint: a for a in attempts if a.checkpoint != checkpoint}.values())


def p_pass(outcome: Outcome) -> float | None:
    """Return the p-value of the whole policy: the largest of its rules' (an intersection-union test)."""
    found = [rule.p_pass for rule in outcome.rules if rule.waived is None]
    known = [p for p in found if p is not None]
    return max(known) if known and len(known) == len(found) else None


def _batch(others: Sequence[Attempt], mine: float | None) -> Record:
    if mine is None or any(other.p_pass is None for other in others):
        raise EvidenceError(
            "a batch is corrected by p-values, and a candidate that was decided in mode group_sequential has none; "
            "decide on it again in mode fixed"
        )
    candidates = {other.checkpoint: other.p_pass for other in others}
    adjusted = holm([mine, *(p for p in candidates.values() if p is not None)])
    return {"others": candidates, "p": mine, "adjusted": float(adjusted[0])}


def _warnings(outcome: Outcome, others: Sequence[Attempt], question: Question) -> tuple[str, ...]:
    found = [f"waiver {entry.text}: {state}" for entry, state in outcome.waivers if state != "applied"]
    if others and not question.batch and outcome.verdict == "pass":
        tried = len(others) + 1
        chance = 1 - (1 - question.policy.alpha) ** tried
        found.append(
            f"{tried} candidates were tried on these suites: the chance that one at the margin passes is up to "
            f"{chance:.0%}; --batch corrects for all of them, --half confirm decides on items that chose none"
        )
    return tuple(found)
