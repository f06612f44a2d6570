"""What people and dashboards ask of a store: arms by name, comparisons, the frontier. Imports nothing that scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalsvc.analysis import frontier
from evalsvc.analysis.compare import compare, totals
from evalsvc.analysis.frontier import Wish
from evalsvc.analysis.suite_gains import Candidate, Gains, measure
from evalsvc.errors import EvidenceError
from evalsvc.records.comparisons import FullComparison, RoleTotal
from evalsvc.records.frontier import Frontier
from evalsvc.records.scores import TaskScores
from evalsvc.store.arms import Family, StoredArm, base_of, find_arm, rerun_of
from evalsvc.store.store import Store

_AT_ONCE = 16
"""Arms whose scores are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two arms, compared on every task of the base."""

    base: StoredArm
    adapted: StoredArm
    tasks: tuple[FullComparison, ...]
    roles: tuple[RoleTotal, ...]


def compared(store: Store, adapted: str, base: str | None = None, other_prompts: bool = False) -> Compared:
    """Compare an arm with its base, or with another arm.

    Args:
        other_prompts: Whether the same documents may have been asked with other prompts.

    Raises:
        UsageError: A name means no arm, or several.
        EvidenceError: Scores are missing or cannot be compared.
    """
    arms = store.arms()
    chosen = find_arm(arms, adapted)
    reference = find_arm(arms, base) if base else base_of(arms, chosen)
    if reference.numerics != chosen.numerics:
        raise EvidenceError(
            f"{chosen.label} and {reference.label} were scored under different numerics "
            f"({chosen.numerics} and {reference.numerics}); submit both again"
        )
    return compared_arms(store, reference, chosen, other_prompts)


def compared_arms(store: Store, base: StoredArm, adapted: StoredArm, other_prompts: bool = False) -> Compared:
    """Compare two arms; arguments as in `compared`.

    Raises:
        EvidenceError: Scores are missing or cannot be compared.
    """
    (found,) = compared_all(store, base, [adapted], other_prompts)
    if isinstance(found, EvidenceError):
        raise found
    return found


def compared_all(
    store: Store, base: StoredArm, several: Sequence[StoredArm], other_prompts: bool = False
) -> Iterator[Compared | EvidenceError]:
    """Yield the comparison of each of several arms, or why there is none; scores are read some arms at a time."""
    rerun = rerun_of(store.arms(), base)
    for start in range(0, len(several), _AT_ONCE):
        part = several[start : start + _AT_ONCE]
        wanted = [*(arm.number for arm in part), *([rerun.number] if rerun else [])]
        scores = store.task_scores(base.number, wanted)
        for arm in part:
            try:
                found = _compared(store, base, arm, scores, scores[rerun.number] if rerun else (), other_prompts)
            except EvidenceError as error:
                yield error
            else:
                yield found


def _compared(
    store: Store,
    base: StoredArm,
    adapted: StoredArm,
    scores: Mapping[int, Sequence[TaskScores]],
    rerun: Sequence[TaskScores],
    other_prompts: bool,
) -> Compared:
    ours, theirs = scores[base.number], scores[adapted.number]
    if not ours:
        raise EvidenceError(f"{base.label} has no finished run; submit it again to resume")
    have = {(task.suite, task.task) for task in theirs}
    if any((task.suite, task.task) not in have for task in ours):
        # The arm may have done the suite under another plan: with some items missing, or with other prompts.
        own = store.task_scores(adapted.number, [])[adapted.number]
        theirs = [*theirs, *(task for task in own if (task.suite, task.task) not in have)]
    ours, theirs = _paired(store, ours, theirs, other_prompts)
    tasks = compare(ours, theirs, rerun)
    return Compared(base, adapted, tuple(tasks), tuple(totals(tasks)))


def _paired(
    store: Store, base: Sequence[TaskScores], adapted: Sequence[TaskScores], other_prompts: bool
) -> tuple[list[TaskScores], list[TaskScores]]:
    """Return scores whose samples can be paired: the same prompts, or declared to be others.

    Raises:
        EvidenceError: The same documents were asked with other prompts, and nobody said so.
    """
    theirs = {(task.suite, task.task): task for task in adapted}
    ours = list(base)
    for i, task in enumerate(base):
        key = task.suite, task.task
        other = theirs.get(key)
        if other is None or task.aligned(other):
            continue
        lone, others_lone = np.setdiff1d(task.samples, other.samples), np.setdiff1d(other.samples, task.samples)
        differ = np.intersect1d(store.documents(lone), store.documents(others_lone))
        if len(differ) and not other_prompts:
            raise EvidenceError(
                f"{task.suite}/{task.task}: {len(differ)} of {len(task.samples)} documents were asked with other "
                "prompts; submit both with the same suite and template, or say --other-prompts to pair by document"
            )
        if len(differ):
            ours[i], theirs[key] = (_by_document(store, scores) for scores in (task, other))
    return ours, list(theirs.values())


def _by_document(store: Store, scores: TaskScores) -> TaskScores:
    """Return scores whose samples are numbered by document; of equal documents the first stays."""
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


def placed(store: Store, family: Family, wish: Wish = Wish()) -> Frontier:  # noqa: B008 (frozen)
    """Place a base and its arms on the plane of learning and forgetting.

    Raises:
        EvidenceError: The base lacks scores on a domain or general suite, or samples differ.
    """
    return frontier.placed(plane(store, family), wish)


def plane(store: Store, family: Family) -> frontier.Plane:
    """Measure what the arms of a base learned and forgot.

    Raises:
        EvidenceError: The base lacks scores on a domain or general suite, or samples differ.
    """
    found = gains(store, family)
    return frontier.plane(found, *(frontier.axis(found, role) for role in frontier.ROLES))


def gains(store: Store, family: Family) -> Gains:
    """Measure what the arms of a base gained on every suite.

    Raises:
        EvidenceError: Samples differ.
    """
    scores = store.task_scores(family.base.number, [arm.number for arm in family.arms])
    base, *arms = (Candidate(arm.label, arm.checkpoint, scores[arm.number]) for arm in (family.base, *family.arms))
    return measure(base, arms)
