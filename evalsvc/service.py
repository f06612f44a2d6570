"""What people and dashboards ask of a store: arms by name, comparisons, the frontier. Imports nothing that scores."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evalsvc import frontier
from evalsvc.compare import compare, totals
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.frontier import Wish
from evalsvc.gains import Candidate, Gains, measure
from evalsvc.points import Frontier
from evalsvc.records import FullComparison, RoleTotal, Serving, TaskScores
from evalsvc.store import Store, StoredArm

_AT_ONCE = 16
"""Arms whose scores are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two arms, compared on every task of the base."""

    base: StoredArm
    adapted: StoredArm
    tasks: tuple[FullComparison, ...]
    roles: tuple[RoleTotal, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A base arm and the arms that were adapted from it, under the same numerics."""

    base: StoredArm
    arms: tuple[StoredArm, ...]


def find_arm(arms: Sequence[StoredArm], text: str) -> StoredArm:
    """Return the arm that a user means by a label, name, path or the beginning of a digest.

    Raises:
        UsageError: None or several are meant; the message lists them.
    """
    path, prefix = str(Path(text).expanduser().resolve()), text.removeprefix("sha256:")
    meanings: tuple[Callable[[StoredArm], bool], ...] = (
        lambda arm: arm.label == text,
        lambda arm: arm.checkpoint.name == text,
        lambda arm: arm.checkpoint.path == path and not arm.checkpoint.is_prompted,
        lambda arm: len(text) >= 4 and arm.checkpoint.digest.removeprefix("sha256:").startswith(prefix),
    )
    for meant in meanings:
        found = [arm for arm in arms if meant(arm) and not arm.is_rerun]
        # The same checkpoint under newer numerics replaces its older self; as usual served it stands for all others.
        newest = {arm.checkpoint.digest: arm for arm in sorted(found, key=lambda arm: not arm.serving.words)}
        if len(newest) == 1:
            return next(iter(newest.values()))
        if newest:
            listed = ", ".join(f"{a.label} ({a.checkpoint.digest[7:19]})" for a in newest.values())
            raise UsageError(f"arm {text!r}: means {len(newest)} arms: {listed}; give a label or a digest")
    near = difflib.get_close_matches(text, [arm.label for arm in arms], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `evalsvc status`"
    raise UsageError(f"arm {text!r}: the store has none of that name, path or digest; {hint}")


def base_of(arms: Sequence[StoredArm], adapted: StoredArm) -> StoredArm:
    """Return the arm that an arm is held against: its base under the same numerics and quantisation.

    What quantising itself does to a base is shown against the base as it is.

    Raises:
        EvidenceError: It has no base, or the base was scored otherwise.
    """
    checkpoint, quantisation = adapted.checkpoint, adapted.serving.quantisation
    parent = checkpoint.parent
    if parent is None and quantisation is not None:
        parent, quantisation = checkpoint.digest, None
    if parent is None:
        raise EvidenceError(f"{adapted.label} is a base: there is nothing to compare it with; name an adapted arm")
    found = [arm for arm in arms if arm.checkpoint.digest == parent]
    same = [arm for arm in found if arm.numerics == adapted.numerics and arm.serving == Serving(False, quantisation)]
    if not same:
        reason = "was scored under other numerics or quantisation" if found else "is not in the store"
        label = adapted.label
        raise EvidenceError(f"the base of {label} {reason}; submit {label} again, which scores its base alongside")
    return same[-1]


def rerun_of(arms: Sequence[StoredArm], base: StoredArm) -> StoredArm | None:
    """Return the second run of a base under the same numerics, if it had one."""
    key = json.loads(base.numerics)
    for arm in reversed(arms):
        if arm.checkpoint.digest == base.checkpoint.digest and arm.serving == base.serving:
            numerics = json.loads(arm.numerics)
            if numerics.pop("rerun", 0) and numerics == key:
                return arm
    return None


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


def _is_child(arm: StoredArm, base: StoredArm) -> bool:
    """Whether `base_of` holds an arm against this base, of those with the base's digest and numerics."""
    if arm.checkpoint.digest == base.checkpoint.digest:
        return arm != base and not base.serving.words
    return arm.serving.quantisation == base.serving.quantisation


def families(store: Store) -> list[Family]:
    """Return every base that has adapted arms, with the newest numerics under which it has any."""
    kin: dict[tuple[str, str], list[StoredArm]] = defaultdict(list)
    for arm in store.arms():
        kin[arm.checkpoint.parent or arm.checkpoint.digest, arm.numerics].append(arm)
    found: dict[str, Family] = {}
    for members in kin.values():
        for base in (arm for arm in members if arm.checkpoint.parent is None):
            children = tuple(arm for arm in members if _is_child(arm, base))
            if children:
                found[base.checkpoint.digest + base.serving.words] = Family(base, children)
    return list(found.values())


def find_family(store: Store, base: str | None = None) -> Family:
    """Return the family of a base; without a name, the only one.

    Raises:
        UsageError: There are several, or none of that name.
        EvidenceError: No base in the store has adapted arms.
    """
    known = families(store)
    if base is not None:
        wanted = find_arm(store.arms(), base)
        for family in known:
            if (family.base.checkpoint.digest, family.base.serving) == (wanted.checkpoint.digest, wanted.serving):
                return family
        raise EvidenceError(f"{base}: nothing in the store was adapted from it; submit an adapted checkpoint")
    if not known:
        raise EvidenceError(
            "the store has no adapted checkpoint yet: evalsvc submit CHECKPOINT --base BASE --suite SUITE"
        )
    if len(known) > 1:
        names = ", ".join(family.base.label for family in known)
        raise UsageError(f"the store has {len(known)} bases ({names}); choose one with --base")
    return known[0]


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
