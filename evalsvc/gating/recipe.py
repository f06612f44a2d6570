"""Gathers the evidence on a recipe: the training runs of one configuration with different seeds.

A recipe is named by a shell pattern over the names of training runs. Of each run the last finished step is used. Runs
that are not independent (`analysis.independent_runs`) count as one, and at least three must be. The scores of a recipe
are the means over its independent runs; the variance between them is part of every test (`measure.measure_spread`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import reduce

import numpy as np

from evalsvc.analysis.claims import SEEDS
from evalsvc.analysis.independent_runs import IndependentRun, RunIdentity, merge_dependent_runs
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.gating.evidence import Evidence, RecipeRun, digest_scores, gather_all
from evalsvc.gating.policy import Policy
from evalsvc.gating.rules import DiversityRatio, TaskPair
from evalsvc.interchange.arms import NUMERICS as IMPORTED
from evalsvc.records.arms import Checkpoint
from evalsvc.records.digests import digest, join_digests
from evalsvc.records.scores import TaskScores
from evalsvc.stats.ratios import PairedValues
from evalsvc.store.arms import Family, StoredArm, find_family, group_families
from evalsvc.store.store import Store


def gather_recipe(store: Store, policy: Policy, name: str, base: str | None = None) -> Evidence:
    """Return the evidence on a recipe: the mean over its independent runs, each at its last finished step.

    Args:
        name: Shell pattern over the names of training runs, such as "lora-*".
        base: The base of the runs; only needed if runs of several bases match.

    Raises:
        UsageError: No run or runs of several bases match.
        EvidenceError: Evidence of a run is missing or not comparable, or fewer than three runs are independent.
    """
    family, left_out = _find_runs(store.arms(), name, base)
    steps: dict[tuple[str, int | None], list[StoredArm]] = {}
    # Of a checkpoint with several arms one is used: not the merged one, if there is another.
    by_checkpoint = {arm.checkpoint.digest: arm for arm in sorted(family.arms, key=lambda arm: not arm.serving.merged)}
    for arm in sorted(by_checkpoint.values(), key=lambda arm: (-(arm.checkpoint.step or 0), arm.number)):
        steps.setdefault(arm.run, []).append(arm)
    runs = sorted(steps.values(), key=lambda arms: (arms[0].checkpoint.seed or 0, arms[0].number))
    evidence = average_evidence(name, family.base, _gather_last_steps(store, policy, family.base, runs))
    return replace(evidence, notes=(*left_out, *evidence.notes))


def gather_runs(
    store: Store,
    policy: Policy,
    name: str,
    base: StoredArm,
    arms: Sequence[StoredArm],
    *,
    plans: Sequence[str],
    sampled: Sequence[str] | None,
) -> Evidence:
    """Return the evidence on a recipe with these runs, for the verification of a decision.

    Raises:
        EvidenceError: Evidence of a run is missing or not comparable, or fewer than three runs are independent.
    """
    runs = []
    for evidence in gather_all(store, policy, base, arms, plans=plans, sampled=sampled):
        if isinstance(evidence, EvidenceError):
            raise evidence
        runs.append(evidence)
    return average_evidence(name, base, runs)


def _find_runs(arms: Sequence[StoredArm], name: str, base: str | None) -> tuple[Family, list[str]]:
    """Return a base with the arms of the runs that match and have a seed, and why others are left out."""
    family = _match_runs(arms, name, base)
    methods = sorted({arm.checkpoint.method for arm in family.arms})
    if len(methods) > 1:
        raise UsageError(
            f"recipe {name!r}: matches runs of the methods {', '.join(methods)}; a recipe is one configuration: give a "
            "narrower pattern"
        )
    usable = {arm.run for arm in family.arms}
    others = {
        arm.run: arm.run[0]
        for arm in arms
        if arm.run not in usable
        and arm.checkpoint.parent == family.base.checkpoint.digest
        and fnmatchcase(arm.run[0], name)
    }
    verb = "import" if family.base.numerics == IMPORTED.key() else "submit"
    left_out = [
        f"{run} was scored with other numerics or quantisation, and is left out; submit it again"
        for run in dict.fromkeys(others.values())
    ]
    left_out += [
        f"{arm.label} has no recorded seed, and is left out; {verb} it again with --seed"
        for arm in sorted(family.arms, key=lambda arm: arm.label)
        if arm.checkpoint.seed is None
    ]
    kept = tuple(arm for arm in family.arms if arm.checkpoint.seed is not None)
    if (count := len({arm.run for arm in kept})) < SEEDS:
        raise EvidenceError(_explain_too_few(name, count, left_out))
    return Family(family.base, kept), left_out


def _match_runs(arms: Sequence[StoredArm], name: str, base: str | None) -> Family:
    """Return a base with the arms of the runs that match.

    Raises:
        UsageError: No run or runs of several bases match.
    """
    families = group_families(arms) if base is None else [find_family(arms, base)]
    matching = [
        Family(family.base, matched)
        for family in families
        if (matched := tuple(arm for arm in family.arms if fnmatchcase(arm.run[0], name)))
    ]
    if not matching:
        known = ", ".join(sorted({arm.run[0] for family in families for arm in family.arms})) or "none yet"
        raise UsageError(f"recipe {name!r}: matches no training run; training runs: {known}")
    if len(matching) > 1:
        bases = ", ".join(family.base.label for family in matching)
        raise UsageError(f"recipe {name!r}: matches runs of {len(matching)} bases ({bases}); choose one with --base")
    return matching[0]


def _explain_too_few(name: str, count: int, reasons: Sequence[str]) -> str:
    runs = "1 independent run" if count == 1 else f"{count} independent runs"
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return (
        f"recipe {name!r}: has {runs}, needs at least {SEEDS}, each trained with its own recorded seed (--seed of "
        f"submit, of import lm-eval, or the column of import items){why}"
    )


def _gather_last_steps(
    store: Store, policy: Policy, base: StoredArm, runs: Sequence[Sequence[StoredArm]]
) -> list[Evidence]:
    """Return the evidence on the last finished step of every run.

    Args:
        runs: The arms of each run, the last step first.

    Raises:
        EvidenceError: No step of a run can be compared; the reason is the last step's.
    """
    gathered: dict[int, Evidence] = {}
    first_error: dict[int, EvidenceError] = {}
    step = 0
    while left := [n for n in range(len(runs)) if n not in gathered]:
        for n in left:
            if step == len(runs[n]):
                raise first_error[n]
        for n, evidence in zip(left, gather_all(store, policy, base, [runs[n][step] for n in left]), strict=True):
            if isinstance(evidence, EvidenceError):
                first_error.setdefault(n, evidence)
            else:
                gathered[n] = evidence
        step += 1
    return [gathered[n] for n in range(len(runs))]


# -------------------------------------------------------------------------------------------------------------- means


def average_evidence(name: str, base: StoredArm, runs: Sequence[Evidence]) -> Evidence:
    """Return the mean of the evidence on several runs; runs that are not independent are averaged first.

    Raises:
        EvidenceError: Fewer than three runs are independent, or they have no samples or measures in common.
    """
    independent = merge_dependent_runs([_identify(evidence) for evidence in runs])
    reasons = tuple(reason for run in independent for reason in run.reasons)
    if len(independent) < SEEDS:
        raise EvidenceError(_explain_too_few(name, len(independent), reasons))
    number_of = {member: number for number, run in enumerate(independent, start=1) for member in run.members}
    tasks = [{(pair.base.suite, pair.base.task): pair for pair in evidence.pairs} for evidence in runs]
    ratios = [{ratio.suite: ratio for ratio in evidence.ratios} for evidence in runs]
    if len({frozenset(of_run) for of_run in ratios}) > 1:
        raise EvidenceError(
            f"recipe {name!r}: the runs were sampled on different suites or measures; submit them again"
        )
    first = runs[0]
    return replace(
        first,
        adapted=_name_arm(name, base, runs),
        pairs=tuple(_average_pairs([of_run[key] for of_run in tasks], independent) for key in tasks[0]),
        ratios=tuple(_average_ratios([of_run[key] for of_run in ratios], independent) for key in ratios[0]),
        runs=tuple(_describe_run(evidence, number_of[n]) for n, evidence in enumerate(runs)),
        notes=(*reasons, *_note_steps(runs)),
    )


def _identify(evidence: Evidence) -> RunIdentity:
    checkpoint = evidence.adapted.checkpoint
    return RunIdentity(
        label=evidence.adapted.label,
        method=checkpoint.method,
        seed=checkpoint.seed,
        folder=checkpoint.run_folder,
        scores={
            (pair.base.suite, pair.base.task): (pair.adapted.samples, pair.adapted.values)
            for pair in evidence.pairs
            if pair.base.role != "diversity"  # the score is a placeholder
        },
    )


def _describe_run(evidence: Evidence, number: int) -> RecipeRun:
    arm = evidence.adapted
    return RecipeRun(
        arm=arm.label,
        digest=arm.checkpoint.digest,
        key=arm.digest,
        seed=arm.checkpoint.seed,
        step=arm.checkpoint.step,
        number=number,
        scores=digest(*(digest_scores(pair.adapted) for pair in evidence.pairs)),
    )


def _note_steps(runs: Sequence[Evidence]) -> list[str]:
    steps = sorted({evidence.adapted.checkpoint.step or 0 for evidence in runs})
    if len(steps) == 1:
        return []
    return [f"the runs' last finished steps differ: {', '.join(map(str, steps))}"]


def _name_arm(name: str, base: StoredArm, runs: Sequence[Evidence]) -> StoredArm:
    """Return a recipe as an arm, for decision records: its digest and key are those of its runs together."""
    arms = [evidence.adapted for evidence in runs]
    checkpoint = Checkpoint(
        digest=join_digests(["recipe"], sorted(arm.checkpoint.digest for arm in arms)),
        name=name,
        path="",
        method=arms[0].checkpoint.method,
        tokenizer=arms[0].checkpoint.tokenizer,
        parent=base.checkpoint.digest,
    )
    key = digest("recipe", *sorted(arm.digest for arm in arms))
    return StoredArm(number=0, digest=key, checkpoint=checkpoint, numerics=base.numerics)


def _average_pairs(pairs: Sequence[TaskPair], independent: Sequence[IndependentRun]) -> TaskPair:
    """Return one task of all runs, on the samples that all have."""
    members = [pair.adapted for pair in pairs]
    if fault := next((scores.fault for scores in members if scores.fault), None):
        raise EvidenceError(f"{members[0].suite}/{members[0].task}: {fault}")
    samples = members[0].samples
    if not all(scores.is_aligned(members[0]) for scores in members):
        samples = reduce(np.intersect1d, [scores.samples for scores in members])
    members = [scores.take(np.searchsorted(scores.samples, samples)) for scores in members]
    runs = [_average_scores([members[n] for n in run.members]) for run in independent]
    return replace(pairs[0], adapted=_average_scores(runs), runs=tuple(runs))


def _average_scores(several: Sequence[TaskScores]) -> TaskScores:
    """Return the mean of aligned scores, which has no answers."""
    values = np.mean([scores.values for scores in several], axis=0)
    return replace(several[0], values=values, answers=None, invalid=None, confidence=None)


def _average_ratios(ratios: Sequence[DiversityRatio], independent: Sequence[IndependentRun]) -> DiversityRatio:
    """Return one ratio of all runs, from the means of their values per prompt.

    Where a measure is not defined on the same number of prompts for all runs it has no mean, and is defined on none.
    """
    if len({ratio.n for ratio in ratios}) > 1:
        return replace(ratios[0], values=PairedValues(np.empty(0), np.empty(0)))
    runs = [_average_values([ratios[n].values for n in run.members]) for run in independent]
    values = _average_values(runs)
    return replace(ratios[0], values=values, runs=tuple(run.ratio for run in runs) if values.is_testable else ())


def _average_values(several: Sequence[PairedValues]) -> PairedValues:
    return PairedValues(*(np.mean(of_arm, axis=0) for of_arm in zip(*several, strict=True)))
