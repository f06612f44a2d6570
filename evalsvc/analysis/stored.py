"""Comparisons and frontiers of the arms in a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalsvc.analysis import frontier
from evalsvc.analysis.compare import compare_tasks, compute_totals
from evalsvc.analysis.frontier import FrontierOptions
from evalsvc.analysis.suite_gains import Candidate, Gains, measure_gains
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.comparisons import FullComparison, RoleTotal
from evalsvc.records.frontier import Frontier
from evalsvc.records.scores import TaskScores
from evalsvc.store.arms import Family, StoredArm, find_arm, find_base, find_rerun
from evalsvc.store.scores import StoredResult
from evalsvc.store.store import Store

_BATCH_ARMS = 16
"""Number of arms whose scores are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """The comparison of two arms on every task of the base."""

    base: StoredArm
    adapted: StoredArm
    tasks: tuple[FullComparison, ...]
    roles: tuple[RoleTotal, ...]


def read_results(store: Store, arm: str | None = None, suite: str | None = None) -> list[StoredResult]:
    """Return the scores of all arms and suites, or of one.

    Raises:
        UsageError: No arm or several match the name, or the suite has no scores.
    """
    number = find_arm(store.arms(), arm).number if arm else None
    scores = [score for score in store.results() if number in (None, score.arm.number)]
    suites = sorted({score.suite for score in scores})
    if suite is not None and suite not in suites:
        raise UsageError(f"suite {suite!r}: has no scores; suites with scores: {', '.join(suites) or 'none'}")
    return [score for score in scores if suite in (None, score.suite)]


def compare_arms(store: Store, adapted: str, base: str | None = None, other_prompts: bool = False) -> ArmComparison:
    """Compare an arm with its base, or with another arm.

    Args:
        other_prompts: Whether to pair by document where the prompts differ.

    Raises:
        UsageError: A name matches no arm, or several.
        EvidenceError: Scores are missing or cannot be compared.
    """
    arms = store.arms()
    chosen = find_arm(arms, adapted)
    reference = find_arm(arms, base) if base else find_base(arms, chosen)
    if reference.numerics != chosen.numerics:
        raise EvidenceError(
            f"{chosen.label} and {reference.label} were scored with different numerics "
            f"({chosen.numerics} and {reference.numerics}); submit both again"
        )
    return compare_pair(store, reference, chosen, other_prompts)


def compare_pair(store: Store, base: StoredArm, adapted: StoredArm, other_prompts: bool = False) -> ArmComparison:
    """Compare two arms; arguments as in `compare_arms`.

    Raises:
        EvidenceError: Scores are missing or cannot be compared.
    """
    (comparison,) = compare_many(store, base, [adapted], other_prompts)
    if isinstance(comparison, EvidenceError):
        raise comparison
    return comparison


def compare_many(
    store: Store, base: StoredArm, several: Sequence[StoredArm], other_prompts: bool = False
) -> Iterator[ArmComparison | EvidenceError]:
    """Yield the comparison of each arm, or the error; scores are read in batches of arms."""
    rerun = find_rerun(store.arms(), base)
    for start in range(0, len(several), _BATCH_ARMS):
        part = several[start : start + _BATCH_ARMS]
        numbers = [*(arm.number for arm in part), *([rerun.number] if rerun else [])]
        scores = store.task_scores(base.number, numbers)
        for arm in part:
            try:
                comparison = _compare_scores(
                    store, base, arm, scores, scores[rerun.number] if rerun else (), other_prompts
                )
            except EvidenceError as error:
                yield error
            else:
                yield comparison


def _compare_scores(
    store: Store,
    base: StoredArm,
    adapted: StoredArm,
    scores: Mapping[int, Sequence[TaskScores]],
    rerun: Sequence[TaskScores],
    other_prompts: bool,
) -> ArmComparison:
    base_scores, adapted_scores = scores[base.number], scores[adapted.number]
    if not base_scores:
        raise EvidenceError(f"{base.label} has no finished run; submit it again to resume")
    scored = {(task.suite, task.task) for task in adapted_scores}
    if any((task.suite, task.task) not in scored for task in base_scores):
        # The arm may have been scored on another plan of the suite: with some items missing, or with other prompts.
        own = store.task_scores(adapted.number, [])[adapted.number]
        adapted_scores = [*adapted_scores, *(task for task in own if (task.suite, task.task) not in scored)]
    base_scores, adapted_scores = _pair_samples(store, base_scores, adapted_scores, other_prompts)
    tasks = compare_tasks(base_scores, adapted_scores, rerun)
    return ArmComparison(base, adapted, tuple(tasks), tuple(compute_totals(tasks)))


def _pair_samples(
    store: Store, base: Sequence[TaskScores], adapted: Sequence[TaskScores], other_prompts: bool
) -> tuple[list[TaskScores], list[TaskScores]]:
    """Return scores whose samples can be paired: by prompt, or by document with `other_prompts`.

    Raises:
        EvidenceError: Prompts of the same documents differ, and `other_prompts` is false.
    """
    adapted_scores = {(task.suite, task.task): task for task in adapted}
    base_scores = list(base)
    for i, task in enumerate(base):
        key = task.suite, task.task
        counterpart = adapted_scores.get(key)
        if counterpart is None or task.is_aligned(counterpart):
            continue
        only_base, only_adapted = (
            np.setdiff1d(task.samples, counterpart.samples),
            np.setdiff1d(counterpart.samples, task.samples),
        )
        documents = np.intersect1d(store.documents(only_base), store.documents(only_adapted))
        if len(documents) and not other_prompts:
            raise EvidenceError(
                f"{task.suite}/{task.task}: {len(documents)} of {len(task.samples)} documents have different "
                "prompts; submit both with the same suite and template, or use --other-prompts to pair by document"
            )
        if len(documents):
            base_scores[i], adapted_scores[key] = (_number_by_document(store, scores) for scores in (task, counterpart))
    return base_scores, list(adapted_scores.values())


def _number_by_document(store: Store, scores: TaskScores) -> TaskScores:
    """Return scores with samples numbered by document; of equal documents only the first is used."""
    documents, first = np.unique(store.documents(scores.samples), return_index=True)
    return replace(
        scores,
        samples=documents,
        values=scores.values[first],
        weights=None if scores.weights is None else scores.weights[first],
        clusters=None if scores.clusters is None else scores.clusters[first],
        answers=None if scores.answers is None else scores.answers[first],
        invalid=None if scores.invalid is None else scores.invalid[first],
        confidence=None if scores.confidence is None else scores.confidence[first],
    )


def load_frontier(store: Store, family: Family, options: FrontierOptions = FrontierOptions()) -> Frontier:  # noqa: B008 (frozen)
    """Compute the frontier of a base and its arms.

    Raises:
        EvidenceError: The base lacks scores on a domain or general suite, or samples differ.
    """
    return frontier.find_frontier(load_positions(store, family), options)


def load_positions(store: Store, family: Family) -> frontier.ArmPositions:
    """Compute learning and forgetting of the arms of a base.

    Raises:
        EvidenceError: The base lacks scores on a domain or general suite, or samples differ.
    """
    gains = load_gains(store, family)
    return frontier.build_positions(gains, *(frontier.build_axis(gains, role) for role in frontier.ROLES))


def load_gains(store: Store, family: Family) -> Gains:
    """Compute the gains of the arms of a base on every suite.

    Raises:
        EvidenceError: Samples differ.
    """
    scores = store.task_scores(family.base.number, [arm.number for arm in family.arms])
    base, *arms = (Candidate(arm.label, arm.checkpoint, scores[arm.number]) for arm in (family.base, *family.arms))
    return measure_gains(base, arms)
