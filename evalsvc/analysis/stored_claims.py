"""Claims about adaptation, tested on the arms and matrices in a store."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalsvc.analysis.claims import (
    SEEDS,
    DecidedClaim,
    TrainingRun,
    decide_claims,
    decide_drift_claim,
    take_last_steps,
)
from evalsvc.analysis.compare import UNIT_INTERVAL, compute_totals
from evalsvc.analysis.diversity_and_drift import compare_sampled
from evalsvc.analysis.independent_runs import RunScores
from evalsvc.analysis.shared import find_shared
from evalsvc.analysis.stored import BATCH_ARMS, ArmComparison, check_suites, compare_many
from evalsvc.analysis.trajectory import MARGIN, ChangeEstimate, check_margin
from evalsvc.errors import EvidenceError
from evalsvc.records.arms import why_no_drift
from evalsvc.records.comparisons import RoleTotal
from evalsvc.records.matrices import Matrix
from evalsvc.records.methods import list_kinds
from evalsvc.records.scores import identify_answer
from evalsvc.records.vocabulary import Role
from evalsvc.stats.regression import Line
from evalsvc.store.arms import Family, StoredArm, find_family, group_families
from evalsvc.store.scores import SampledAnswers, TokenDrift
from evalsvc.store.store import Store


def decide_stored_claims(
    store: Store, base: str | None = None, margin: float = MARGIN, suites: Sequence[str] | None = None
) -> list[DecidedClaim]:
    """Test all claims that apply to the arms and matrices in a store.

    Args:
        suites: Only these; None for those that most training runs share.

    Raises:
        UsageError: No arm has that name, a suite has no scores, or the margin is no number of at least 0.
        EvidenceError: The store has no adapted arm and no matrix.
    """
    return decide_claim_evidence(load_claim_evidence(store, base, suites), margin)


@dataclass(frozen=True, slots=True)
class ClaimEvidence:
    """Input of claims: training runs at their last step, and checkpoints with drift."""

    runs: tuple[TrainingRun, ...]
    checkpoints: tuple[TrainingRun, ...]
    about: str


def load_claim_evidence(
    store: Store, base: str | None = None, suites: Sequence[str] | None = None
) -> list[ClaimEvidence]:
    """Return the stored arms and matrices as input of claims; arguments and errors as of `decide_stored_claims`."""
    check_suites(store, suites)
    matrices = [] if base else store.matrices()
    evidence = [
        _load_family(store, family, suites)
        for family in (group_families(store.arms()) if base is None else [find_family(store.arms(), base)])
    ]
    for tasks in dict.fromkeys(matrix.tasks for matrix in matrices):
        runs = tuple(_summarise_matrix(matrix) for matrix in matrices if matrix.tasks == tasks)
        evidence.append(ClaimEvidence(runs, (), f"matrices over {', '.join(tasks)}"))
    return evidence


def decide_claim_evidence(evidence: Sequence[ClaimEvidence], margin: float = MARGIN) -> list[DecidedClaim]:
    """Test every claim; raises as `decide_stored_claims`."""
    check_margin(margin)
    cards = [card for part in evidence for card in decide_claims(part.runs, part.checkpoints, part.about, margin)]
    if not cards:
        raise EvidenceError("the store has no adapted arm and no matrix to test claims on; submit or import some first")
    return cards


def _load_family(store: Store, family: Family, suites: Sequence[str] | None) -> ClaimEvidence:
    checkpoints = tuple(run for _, run in load_claim_runs(store, family, suites))
    return ClaimEvidence(take_last_steps(checkpoints), checkpoints, f"arms of {family.base.label}")


def fit_drift_line(store: Store, family: Family) -> tuple[list[TrainingRun], DecidedClaim, Line | None]:
    """Return a base's checkpoints with drift and forgetting, the claim about them, and the fitted line."""
    runs = [run for _, run in load_claim_runs(store, family)]
    return runs, *decide_drift_claim(runs, f"arms of {family.base.label}")


def explain_missing_drift(store: Store, family: Family, tokens: Mapping[int, Sequence[TokenDrift]]) -> dict[int, str]:
    """Return, by arm number, why arms that were scored on texts have no drift."""
    scored = {run.arm.number for run in store.runs() if run.state == "done" and run.role == "drift" and not run.part_of}
    return {
        arm.number: why_no_drift(arm.checkpoint, family.base.checkpoint)
        for arm in family.arms
        if arm.number in scored
        and not tokens[arm.number]
        and arm.checkpoint.parent is not None
        and not arm.checkpoint.is_prompted
    }


def load_claim_runs(
    store: Store, family: Family, suites: Sequence[str] | None = None
) -> list[tuple[StoredArm, TrainingRun]]:
    """Return the arms that claims use: of every training run the last step with a comparison, and steps with drift."""
    # Of a checkpoint with several arms, only one is used: not the merged one, if there is another.
    by_checkpoint = {arm.checkpoint.digest: arm for arm in sorted(family.arms, key=lambda arm: not arm.serving.merged)}
    order = [arm.number for arm in by_checkpoint.values()]
    sampled, tokens = store.sampled_answers(family.base.number, order), store.drifts(order)
    no_drift = explain_missing_drift(store, replace(family, arms=tuple(by_checkpoint.values())), tokens)
    with_drift = {*no_drift, *(number for number in order if tokens[number])}
    compared_arms = list(
        _share_suites(list(_compare_last_steps(store, family.base, list(by_checkpoint.values()), with_drift, suites)))
    )
    scores = _load_run_scores(store, family.base, [arm for arm, _ in compared_arms], sampled, suites)
    runs = {
        arm.number: (
            arm,
            replace(
                _summarise_run(arm, compared),
                scores=scores.get(arm.number, {}),
                diversity=_mean_unique_ratio(sampled[family.base.number], sampled[arm.number]),
                drift=_mean_drift(tokens[arm.number]),
                no_drift=no_drift.get(arm.number),
            ),
        )
        for arm, compared in compared_arms
    }
    return [runs[number] for number in order if number in runs]


def _share_suites(compared: Sequence[tuple[StoredArm, ArmComparison]]) -> Iterator[tuple[StoredArm, ArmComparison]]:
    """Yield the comparisons of the arms that have the suites that most arms share, on these suites."""
    scored = [{(str(task.role), task.suite) for task in comparison.tasks} for _, comparison in compared]
    shared = find_shared([sorted(suites) for suites in scored])
    for (arm, comparison), suites in zip(compared, scored, strict=True):
        if suites.issuperset(shared):
            tasks = [task for task in comparison.tasks if (task.role, task.suite) in shared]
            yield arm, replace(comparison, tasks=tuple(tasks), roles=tuple(compute_totals(tasks)))


def _compare_last_steps(
    store: Store,
    base: StoredArm,
    arms: Sequence[StoredArm],
    always: Container[int],
    suites: Sequence[str] | None,
) -> Iterator[tuple[StoredArm, ArmComparison]]:
    """Yield the comparisons of every training run's last comparable step, and of the arms in `always`."""
    left = sorted(arms, key=lambda arm: -(arm.checkpoint.step or 0))
    while left:
        last = {arm.run: arm.number for arm in reversed(left)}
        candidates = [arm for arm in left if arm.number == last[arm.run] or arm.number in always]
        comparisons = dict(
            zip((arm.number for arm in candidates), compare_many(store, base, candidates, suites=suites), strict=True)
        )
        rest, reached = [], set()
        for arm in left:
            comparison = comparisons.get(arm.number)
            if isinstance(comparison, ArmComparison):
                yield arm, comparison
                reached.add(arm.run)
            elif comparison is None and arm.run not in reached:
                rest.append(arm)  # later steps are unfinished, or cannot be compared
        left = rest


def _load_run_scores(
    store: Store,
    base: StoredArm,
    arms: Sequence[StoredArm],
    sampled: Mapping[int, Sequence[SampledAnswers]],
    suites: Sequence[str] | None,
) -> dict[int, RunScores]:
    """Return, by arm number, the scores and sampled answers that tell copies of a run from independent runs.

    Of runs that are too few for a claim, nothing is read.
    """
    if len({arm.run for arm in arms}) < SEEDS:
        return {}
    scores: dict[int, RunScores] = {}
    for start in range(0, len(arms), BATCH_ARMS):
        part = [arm.number for arm in arms[start : start + BATCH_ARMS]]
        by_arm = store.task_scores(base.number, part, suites=suites)
        for number in part:
            tasks = by_arm[number] or store.task_scores(number, [], suites=suites)[number]
            # The score of a task of role diversity is a placeholder: what tells are its answers.
            items = {(t.suite, t.task): (t.samples, t.values) for t in tasks if t.role != "diversity"}
            for task in sampled[number]:
                answers = [identify_answer("\0".join(given)) for given in task.answers]
                items[task.suite, task.task] = task.samples, np.array(answers, dtype=np.float64)
            scores[number] = items
    return scores


def _mean_unique_ratio(base: Sequence[SampledAnswers], adapted: Sequence[SampledAnswers]) -> float | None:
    """Return unique@K as a share of the base's, mean over tasks; None if it cannot be computed."""
    try:
        tasks = compare_sampled(base, adapted) if adapted else []
    except EvidenceError:
        return None
    known = [r.ratio for task in tasks for r in task.ratios if r.measure == "unique" and r.ratio is not None]
    return float(np.mean(known)) if known else None


def _mean_drift(tasks: Sequence[TokenDrift]) -> float | None:
    """Return mean KL per token on domain texts, else on general texts."""
    chosen = [task for task in tasks if task.role == "domain"] or list(tasks)
    return float(np.mean([task.kl.mean() for task in chosen])) if chosen else None


def _summarise_run(arm: StoredArm, compared: ArmComparison) -> TrainingRun:
    totals_of: dict[Role, RoleTotal] = {}
    for total in compared.roles:
        known = totals_of.get(total.role)
        if known is None or (total.tasks, total.unit == UNIT_INTERVAL) > (known.tasks, known.unit == UNIT_INTERVAL):
            totals_of[total.role] = total
    text = next((t for t in compared.roles if (t.role, t.unit) == ("drift", "bits_per_byte")), None)
    checkpoint = arm.checkpoint
    name, seed = arm.run
    return TrainingRun(
        name=name,
        arm=arm.label,
        method=checkpoint.method,
        kinds=list_kinds(checkpoint.method, checkpoint.name, is_adapter=checkpoint.is_adapter),
        learning=totals_of["domain"].difference if "domain" in totals_of else None,
        forgetting=0.0 - totals_of["general"].difference if "general" in totals_of else None,
        text=None if text is None else 0.0 - text.difference,
        roles=tuple(
            (role, ChangeEstimate(total.difference, total.low, total.high)) for role, total in totals_of.items()
        ),
        step=checkpoint.step,
        seed=seed,
        folder=checkpoint.run_folder,
    )


def _summarise_matrix(matrix: Matrix) -> TrainingRun:
    summary = matrix.summary
    return TrainingRun(
        name=matrix.name,
        arm=matrix.name,
        method=matrix.method,
        kinds=list_kinds(matrix.method, matrix.name),
        learning=summary.la.value,
        forgetting=None if summary.forgetting is None else summary.forgetting.value,
        seed=matrix.seed,
        scores={("", ""): (np.arange(matrix.scores.size), matrix.scores.ravel())},
    )
