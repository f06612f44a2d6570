"""Comparisons and frontiers of the arms in a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalsvc.analysis import frontier
from evalsvc.analysis.compare import compare_tasks, compute_totals
from evalsvc.analysis.frontier import FrontierOptions
from evalsvc.analysis.levels import Levels, compare_levels, index_levels
from evalsvc.analysis.suite_gains import Candidate, Gains, measure_gains
from evalsvc.analysis.units import list_items
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.interchange.arms import NUMERICS as IMPORTED
from evalsvc.records.arms import Finding
from evalsvc.records.comparisons import FullComparison, Missing, RoleTotal
from evalsvc.records.frontier import Frontier
from evalsvc.records.scores import TaskScores
from evalsvc.stats.estimates import SMOOTH
from evalsvc.store.arms import Family, StoredArm, find_arm, find_base, find_rerun
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.runs import Runs
from evalsvc.store.scores import StoredResult
from evalsvc.store.store import Store

BATCH_ARMS = 16
"""Number of arms whose scores are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """The comparison of two arms on every task that both have.

    Attributes:
        missing: What either arm lacks of the other's suites and tasks.
        warnings: Findings about the compared suites, such as truncated prompts; only of a single comparison.
    """

    base: StoredArm
    adapted: StoredArm
    tasks: tuple[FullComparison, ...]
    roles: tuple[RoleTotal, ...]
    missing: tuple[Missing, ...] = ()
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What several arms have: scores of items on the base's plans, and levels.

    Attributes:
        rerun: Scores of the base's second run.
    """

    scores: Mapping[int, Sequence[TaskScores]]
    levels: Mapping[int, Levels]
    rerun: Sequence[TaskScores] = ()
    suites: Sequence[str] | None = None


def check_suites(store: Store, suites: Sequence[str] | None) -> None:
    """Check that a store has scores on suites.

    Raises:
        UsageError: It has none on one of them.
    """
    known = sorted({run.suite for run in store.runs() if run.state == "done" and run.part_of is None}) if suites else []
    for suite in suites or ():
        if suite not in known:
            raise UsageError(f"suite {suite!r}: has no scores; suites with scores: {', '.join(known) or 'none'}")


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


def compare_arms(
    store: Store,
    adapted: str,
    base: str | None = None,
    other_prompts: bool = False,
    suites: Sequence[str] | None = None,
) -> ArmComparison:
    """Compare an arm with its base, or with another arm.

    Args:
        other_prompts: Whether to pair by document where the prompts differ.
        suites: Only these; None for all that both arms have.

    Raises:
        UsageError: A name matches no arm, or several, or a suite has no scores.
        EvidenceError: The arms have no scores in common, or these cannot be compared.
    """
    check_suites(store, suites)
    arms = store.arms()
    chosen = find_arm(arms, adapted)
    reference = find_arm(arms, base) if base else find_base(arms, chosen)
    if reference.numerics != chosen.numerics:
        raise EvidenceError(
            f"{chosen.label} and {reference.label} were scored with different numerics "
            f"({chosen.numerics} and {reference.numerics}); submit both again"
        )
    return compare_pair(store, reference, chosen, other_prompts, suites)


def compare_pair(
    store: Store,
    base: StoredArm,
    adapted: StoredArm,
    other_prompts: bool = False,
    suites: Sequence[str] | None = None,
) -> ArmComparison:
    """Compare two arms; arguments and errors as of `compare_arms`."""
    (comparison,) = compare_many(store, base, [adapted], other_prompts, suites)
    if isinstance(comparison, EvidenceError):
        raise comparison
    return replace(comparison, warnings=_find_warnings(store, comparison))


def _find_warnings(store: Store, comparison: ArmComparison) -> tuple[Finding, ...]:
    """Return the findings about the compared suites: of both checkpoints and of their bases, which stand for them."""
    checkpoints = [comparison.base.checkpoint, comparison.adapted.checkpoint]
    digests = {digest for checkpoint in checkpoints for digest in (checkpoint.digest, checkpoint.parent)}
    concerned = {arm.checkpoint.digest: arm.checkpoint for arm in store.arms() if arm.checkpoint.digest in digests}
    suites = {task.suite for task in comparison.tasks}
    facts = CheckpointFacts(store.path)
    return tuple(
        finding
        for checkpoint in concerned.values()
        for finding in facts.findings(checkpoint)
        if finding.suite in suites
    )


def compare_many(
    store: Store,
    base: StoredArm,
    several: Sequence[StoredArm],
    other_prompts: bool = False,
    suites: Sequence[str] | None = None,
) -> Iterator[ArmComparison | EvidenceError]:
    """Yield the comparison of each arm, or the error; scores are read in batches of arms."""
    rerun = find_rerun(store.arms(), base)
    for start in range(0, len(several), BATCH_ARMS):
        part = several[start : start + BATCH_ARMS]
        numbers = [arm.number for arm in part]
        scores = store.task_scores(base.number, [*numbers, *([rerun.number] if rerun else [])], suites=suites)
        levels = index_levels(store.results([base.number, *numbers]))
        evidence = _Evidence(scores, levels, scores[rerun.number] if rerun else (), suites)
        for arm in part:
            try:
                yield _compare_evidence(store, base, arm, evidence, other_prompts)
            except EvidenceError as error:
                yield error


def _compare_evidence(
    store: Store, base: StoredArm, adapted: StoredArm, evidence: _Evidence, other_prompts: bool
) -> ArmComparison:
    base_scores, adapted_scores = (_drop_sampled(evidence.scores[arm.number]) for arm in (base, adapted))
    base_levels, adapted_levels = (
        {key: level for key, level in evidence.levels.get(arm.number, {}).items() if _is_chosen(level, evidence)}
        for arm in (base, adapted)
    )
    scored = {(task.suite, task.task) for task in adapted_scores}
    if any(key[:2] not in scored for key in adapted_levels):
        # The arm may have been scored on another plan of the suite: with some items missing, or with other prompts.
        own = _drop_sampled(store.task_scores(adapted.number, [], suites=evidence.suites)[adapted.number])
        adapted_scores += [task for task in own if (task.suite, task.task) not in scored]
    base_scores, adapted_scores = _pair_samples(base_scores, adapted_scores, other_prompts)
    with_items = {(task.suite, task.task): task.aggregation in SMOOTH for task in adapted_scores}
    with_items = {key: with_items[key] for task in base_scores if (key := (task.suite, task.task)) in with_items}
    levels = [
        compare_levels(level, adapted_levels[key])
        for key, level in base_levels.items()
        if level.primary and key in adapted_levels and not with_items.get(key[:2])
    ]
    tasks = compare_tasks(base_scores, adapted_scores, evidence.rerun, levels)
    if not tasks:
        raise EvidenceError(_explain_nothing(base, adapted, base_levels, adapted_levels, evidence))
    missing = _list_missing(base, adapted, tasks, base_levels, adapted_levels)
    return ArmComparison(base, adapted, tuple(tasks), tuple(compute_totals(tasks)), missing)


def _is_chosen(level: StoredResult, evidence: _Evidence) -> bool:
    """Whether a level belongs to the suites in question; of sampled answers the level is a placeholder."""
    return level.role != "diversity" and (evidence.suites is None or level.suite in evidence.suites)


def _drop_sampled(tasks: Sequence[TaskScores]) -> list[TaskScores]:
    """Return the tasks without those of sampled answers, whose scores are placeholders; see `evalsvc diversity`."""
    return [task for task in tasks if task.role != "diversity"]


def _explain_nothing(
    base: StoredArm, adapted: StoredArm, base_levels: Levels, adapted_levels: Levels, evidence: _Evidence
) -> str:
    where = f" on {', '.join(evidence.suites)}" if evidence.suites else ""
    for arm, levels in ((base, base_levels), (adapted, adapted_levels)):
        if not levels and any(task.role == "diversity" for task in evidence.scores[arm.number]):
            return (
                f"{arm.label} has only sampled answers{where}, which `evalsvc diversity {adapted.label}` compares; "
                f"submit {adapted.label} with a suite of another role to compare scores"
            )
        if not levels:
            return f"{arm.label} has no finished run{where}; see `evalsvc status`, and submit {adapted.label} again"
    suites = [", ".join(dict.fromkeys(key[0] for key in levels)) for levels in (base_levels, adapted_levels)]
    return (
        f"{adapted.label} and {base.label} have no task and metric in common{where}: {base.label} has {suites[0]}, "
        f"{adapted.label} has {suites[1]}; submit {adapted.label} with --suite for one of {base.label}'s suites"
    )


def _list_missing(
    base: StoredArm, adapted: StoredArm, tasks: Sequence[FullComparison], base_levels: Levels, adapted_levels: Levels
) -> tuple[Missing, ...]:
    """Return what each of two arms lacks of the other's: suites, or tasks of suites that it has in part."""
    compared = {(task.suite, task.task) for task in tasks}
    in_part = {suite for suite, _ in compared}
    missing = []
    for arm, levels in ((base, adapted_levels), (adapted, base_levels)):
        names = dict.fromkeys(
            f"{key[0]}/{key[1]}" if key[0] in in_part else key[0]
            for key, level in levels.items()
            if level.primary and key[:2] not in compared
        )
        if names:
            missing.append(Missing(arm.label, tuple(names)))
    return tuple(missing)


def _pair_samples(
    base: Sequence[TaskScores], adapted: Sequence[TaskScores], other_prompts: bool
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
            list_items(scores).documents[~np.isin(scores.samples, others.samples)]
            for scores, others in ((task, counterpart), (counterpart, task))
        )
        documents = np.intersect1d(only_base, only_adapted)
        if len(documents) and not other_prompts:
            raise EvidenceError(
                f"{task.suite}/{task.task}: {len(documents)} of {len(task.samples)} documents have different "
                "prompts; submit both with the same suite and template, or use --other-prompts to pair by document"
            )
        if len(documents):
            base_scores[i], adapted_scores[key] = map(_number_by_document, (task, counterpart))
    return base_scores, list(adapted_scores.values())


def _number_by_document(scores: TaskScores) -> TaskScores:
    """Return scores with samples numbered by document; of equal documents only the first is used."""
    documents, first = np.unique(list_items(scores).documents, return_index=True)
    return replace(scores.take(first), samples=documents)


def load_frontier(
    store: Store,
    family: Family,
    options: FrontierOptions = FrontierOptions(),  # noqa: B008 (frozen)
    suites: Sequence[str] | None = None,
) -> Frontier:
    """Compute the frontier of a base and its arms; arguments and errors as of `load_positions`."""
    return frontier.find_frontier(load_positions(store, family, suites), options)


def load_positions(store: Store, family: Family, suites: Sequence[str] | None = None) -> frontier.ArmPositions:
    """Compute learning and forgetting of the arms of a base.

    Args:
        suites: Only these; for a role without one of them, or if None, those that most arms share.

    Raises:
        UsageError: A suite has no scores.
        EvidenceError: The base lacks scores on a domain or general suite.
    """
    check_suites(store, suites)
    gains = load_gains(store, family)
    axes = []
    for role in frontier.ROLES:
        of_role = [gain.suite for gain in gains.suites if gain.role == role and gain.suite in (suites or ())]
        axes.append(frontier.build_axis(gains, role, of_role or None))
    positions = frontier.build_positions(gains, *axes)
    if not positions.missing:
        return positions
    outdated = _find_outdated(store, family)
    missing = (
        replace(entry, outdated=tuple(suite for suite in entry.lacks if suite in outdated.get(entry.arm, ())))
        for entry in positions.missing
    )
    return replace(positions, missing=tuple(missing))


def _find_outdated(store: Store, family: Family) -> dict[str, set[str]]:
    """Return, by label of an arm, the suites that it has finished, but not on the newest plan of its base."""
    runs = [
        run
        for run in Runs(store.path).of_arms([arm.number for arm in (family.base, *family.arms)])
        if run.state == "done" and run.part_of is None
    ]
    newest = {run.suite: run.plan for run in runs if run.arm == family.base.number}  # the oldest plan comes first
    outdated = {}
    for arm in family.arms:
        own = [run for run in runs if run.arm == arm.number and run.suite in newest]
        outdated[arm.label] = {run.suite for run in own} - {run.suite for run in own if run.plan == newest[run.suite]}
    return outdated


def load_gains(store: Store, family: Family) -> Gains:
    """Compute the gains of the arms of a base on every suite."""
    numbers = [arm.number for arm in family.arms]
    scores = store.task_scores(family.base.number, numbers)
    # An arm with items on another version of a suite than its base is not placed by its level there.
    is_imported = family.base.numerics == IMPORTED.key()
    levels = index_levels(store.results([family.base.number, *numbers])) if is_imported else {}
    base, *arms = (
        Candidate(arm.label, arm.checkpoint, scores[arm.number], levels.get(arm.number, {}))
        for arm in (family.base, *family.arms)
    )
    return measure_gains(base, arms)
