"""Reads the evidence of a policy from a store: paired scores on its suites.

Evidence that is missing, unfinished, unpaired or stale is an error that names the next step, never a verdict.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalsvc.analysis.diversity_and_drift import compare_sampled
from evalsvc.analysis.units import list_items
from evalsvc.errors import EvidenceError
from evalsvc.gating import sequential
from evalsvc.gating.policy import Policy
from evalsvc.gating.rules import DiversityRatio, TaskPair
from evalsvc.harness.suites import find_changed_files, shipped_suites
from evalsvc.interchange.arms import NUMERICS as IMPORTED
from evalsvc.records.choices import Half
from evalsvc.records.scores import TaskScores
from evalsvc.stats.diversity import COLLAPSE
from evalsvc.store.arms import StoredArm
from evalsvc.store.runs import PlannedRun, Runs
from evalsvc.store.store import Store

Items = Mapping[sequential.Key, int]
"""Number of items of whole tasks, for interim looks."""
Scores = Mapping[int, Mapping[sequential.Key, TaskScores]]
"""Scores by arm, by suite and task."""
_BATCH_REQUESTS = 10_000_000
"""Number of requests whose scores are in memory at the same time; at least those of one arm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeRun:
    """A training run of a recipe, at the step that counts.

    Attributes:
        number: Number of the independent run, from 1; runs with the same number count as one.
        scores: Digest of its scores.
    """

    arm: str
    digest: str
    key: str
    seed: int | None
    step: int | None
    number: int
    scores: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The evidence of a decision.

    Attributes:
        sampled: Digests of the plans of the sampled answers behind `ratios`.
        incumbent: The arm that is served now, if the policy has a rule about it.
        against_incumbent: The pairs with the incumbent's scores in place of the base's.
        runs: The runs of a recipe, of which `adapted` stands for the mean; else empty.
        notes: What a reader must know about the runs of a recipe.
    """

    base: StoredArm
    adapted: StoredArm
    plans: tuple[PlannedRun, ...]
    pairs: tuple[TaskPair, ...]
    incumbent: StoredArm | None = None
    against_incumbent: tuple[TaskPair, ...] = ()
    ratios: tuple[DiversityRatio, ...] = ()
    sampled: tuple[str, ...] = ()
    runs: tuple[RecipeRun, ...] = ()
    notes: tuple[str, ...] = ()


def digest_scores(scores: TaskScores) -> str:
    """Return the digest of the scores of an arm on a task."""
    state = hashlib.sha256()
    for column in (scores.samples, scores.values, scores.weights):
        state.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    return state.hexdigest()[:32]


def gather(
    store: Store,
    policy: Policy,
    base: StoredArm,
    adapted: StoredArm,
    *,
    plans: Sequence[str] | None = None,
    items: Items | None = None,
    half: Half | None = None,
    sampled: Sequence[str] | None = None,
    incumbent: StoredArm | None = None,
) -> Evidence:
    """Return both arms' scores on the policy's suites, and the incumbent's if the policy has a rule about it.

    Args:
        plans: Digests of the plans to use; None for the newest whole plans.
        sampled: Digests of the plans of sampled answers; None for the newest.

    Raises:
        EvidenceError: A suite, run, task or item is missing, or the base or a suite is stale.
    """
    (evidence,) = gather_all(store, policy, base, [adapted], plans=plans, items=items, half=half, sampled=sampled)
    if isinstance(evidence, EvidenceError):
        raise evidence
    if incumbent is None:
        return evidence
    margins_only = policy.model_copy(update={"drift": None, "diversity": None})
    served = gather(store, margins_only, base, incumbent, plans=plans, items=items, half=half)
    adapted_pairs = {sequential.get_key(pair): pair for pair in evidence.pairs}
    against = tuple(_pair_with_incumbent(pair, adapted_pairs[sequential.get_key(pair)]) for pair in served.pairs)
    return replace(evidence, incumbent=incumbent, against_incumbent=against)


def _pair_with_incumbent(incumbent: TaskPair, adapted: TaskPair) -> TaskPair:
    """Return the adapted arm's scores with the incumbent's on the base's samples.

    Raises:
        EvidenceError: The incumbent lacks a sample.
    """
    samples = adapted.base.samples
    whole = TaskPair(incumbent.adapted, adapted.adapted, adapted.items)
    pair = whole.part(np.isin(incumbent.adapted.samples, samples))
    if len(pair.base.samples) != len(samples):
        raise EvidenceError(
            f"{pair.base.suite}/{pair.base.task}: the incumbent has scores on {len(pair.base.samples):,} of the base's "
            f"{len(samples):,} items; submit it again"
        )
    return pair


def gather_all(
    store: Store,
    policy: Policy,
    base: StoredArm,
    several: Sequence[StoredArm],
    *,
    plans: Sequence[str] | None = None,
    items: Items | None = None,
    half: Half | None = None,
    sampled: Sequence[str] | None = None,
) -> Iterator[Evidence | EvidenceError]:
    """Yield the evidence on each arm, or the error; scores are read in batches of arms."""
    in_order = policy.mode == "finite_pool"
    reader = _EvidenceReader.of(Runs(store.path), policy, base, several, plans, sampled, in_order=in_order)
    at_once = max(1, _BATCH_REQUESTS // max(1, sum(run.requests for run in reader.runs)))
    for start in range(0, len(several), at_once):
        part = several[start : start + at_once]
        comparable = [arm.number for arm in part if arm.number not in reader.errors]
        scores: Scores = {}
        if comparable:
            # Without `plans`, the chosen runs are on the newest plans, which the store uses by default.
            digests = None if plans is None else [run.digest for run in reader.runs]
            by_arm = store.task_scores(base.number, comparable, digests, policy.suites)
            scores = {arm: {(s.suite, s.task): s for s in tasks} for arm, tasks in by_arm.items()}
        for arm in part:
            try:
                if arm.number in reader.errors:
                    raise reader.errors[arm.number]
                pairs = _take_half(list(reader.pairs(base, arm, scores, items or {})), half)
                if policy.mode == "group_sequential":
                    pairs = place_units(pairs)
                ratios = _compute_ratios(store, base, arm, reader.sampled) if policy.diversity else ()
            except EvidenceError as error:
                yield error
            else:
                yield Evidence(
                    base=base, adapted=arm, plans=reader.runs, pairs=tuple(pairs), ratios=ratios, sampled=reader.sampled
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class _EvidenceReader:
    """Runs and sizes of the evidence, from one snapshot of the store.

    Attributes:
        runs: The base's runs, the same for every arm that can be compared.
        sampled: Digests of the plans of the sampled answers.
        errors: Why arms cannot be compared, by arm number.
        sizes: By suite, name, number of items and weight of each task.
        numbers: Digests of the samples by number, if the random order of single items is needed.
    """

    runs: tuple[PlannedRun, ...]
    sampled: tuple[str, ...]
    errors: dict[int, EvidenceError]
    sizes: dict[str, list[tuple[str, int, float]]]
    numbers: dict[int, str] | None

    @classmethod
    def of(
        cls,
        stored: Runs,
        policy: Policy,
        base: StoredArm,
        several: Sequence[StoredArm],
        plans: Sequence[str] | None,
        sampled: Sequence[str] | None,
        *,
        in_order: bool,
    ) -> _EvidenceReader:
        chosen: list[PlannedRun] = []
        errors: dict[int, EvidenceError] = {}
        rests_on: dict[int, tuple[str, ...]] = {}
        with stored.snapshot():
            runs: dict[int, list[PlannedRun]] = {arm.number: [] for arm in (base, *several)}
            for run in stored.of_arms(list(runs)):
                runs[run.arm].append(run)
            of_base = runs[base.number]
            for arm in several:
                both = [*of_base, *runs[arm.number]]
                try:
                    chosen = _choose_runs(policy, base, arm, both, plans)
                except EvidenceError as error:
                    errors[arm.number] = error
                else:
                    rests_on[arm.number] = (*(run.digest for run in chosen), *_choose_sampled_plans(both, policy))
            digests = [run.digest for run in chosen]
            sizes = stored.task_sizes(digests)
            numbers = stored.sample_digests(digests) if in_order else None
            files = {} if plans is not None else {key: stored.files(key) for key in set(rests_on.values())}
        stale = {key: _stale(of_suites) for key, of_suites in files.items()}
        for arm in several:
            if problem := stale.get(rests_on.get(arm.number, ())):
                label = arm.checkpoint.label
                errors[arm.number] = EvidenceError(f"{problem}; submit {label} again, or add --evaluate")
        answers = _choose_sampled_plans(of_base, policy) if sampled is None else tuple(sampled)
        return cls(runs=tuple(chosen), sampled=answers, errors=errors, sizes=sizes, numbers=numbers)

    def pairs(self, base: StoredArm, adapted: StoredArm, scores: Scores, items: Items) -> Iterator[TaskPair]:
        """Yield the paired scores of an arm, task by task.

        Raises:
            EvidenceError: Some are missing.
        """
        again = f"submit {adapted.checkpoint.label} again"
        for suite, tasks in self.sizes.items():
            for task, count, _ in tasks:
                here, there = (scores[arm.number].get((suite, task)) for arm in (base, adapted))
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
                    places = np.array([sequential.draw_place(self.numbers[int(s)]) for s in here.samples])
                yield TaskPair(here, there, items.get((suite, task), count), places)


def _choose_runs(
    policy: Policy, base: StoredArm, adapted: StoredArm, runs: Sequence[PlannedRun], plans: Sequence[str] | None
) -> list[PlannedRun]:
    """Return the base's runs to use, from both arms' runs, oldest plan first.

    Raises:
        EvidenceError: One is missing or unfinished.
    """
    if plans is not None:
        named = {run.suite: run for run in runs if run.arm == base.number and run.digest in plans}
        return [named[suite] for suite in policy.suites if suite in named]
    return [_choose_newest(runs, suite, base, adapted) for suite in policy.suites]


def _stale(files: Mapping[str, Sequence[tuple[str, str]]]) -> str | None:
    """Return the first suite whose files changed, with the change; None if there is none.

    Args:
        files: Path and digest of each file, by suite.
    """
    problems = ((suite, find_changed_files(of_suite)) for suite, of_suite in files.items())
    return next((f"suite {suite!r}: {problem}" for suite, problem in problems if problem), None)


def _choose_sampled_plans(runs: Sequence[PlannedRun], policy: Policy) -> tuple[str, ...]:
    """Return the digests of the plans of sampled answers: of each suite the newest finished plan."""
    sampled = [run for run in runs if run.role == "diversity" and run.state == "done" and run.part_of is None]
    return tuple({run.suite: run.digest for run in sampled}.values()) if policy.diversity else ()


def _compute_ratios(
    store: Store, base: StoredArm, adapted: StoredArm, plans: Sequence[str]
) -> tuple[DiversityRatio, ...]:
    """Return the diversity ratios to the base by every measure of collapse.

    Raises:
        EvidenceError: The two arms' sampled answers cannot be compared.
    """
    sampled = store.sampled_answers(base.number, [adapted.number], plans)
    if not sampled[base.number]:
        return ()
    return tuple(
        DiversityRatio(suite=f"{t.suite}/{t.task}/{r.measure}", metric=r.measure, values=r.kept)
        for t in compare_sampled(sampled[base.number], sampled[adapted.number])
        for r in t.ratios
        if r.measure in COLLAPSE
    )


def _choose_newest(runs: Sequence[PlannedRun], suite: str, base: StoredArm, adapted: StoredArm) -> PlannedRun:
    """Return the base's run on the newest version of a suite, if both arms have finished it."""
    label, of_base = adapted.checkpoint.label, base.checkpoint.label
    whole = [run for run in runs if run.suite == suite and run.part_of is None]
    base_runs = [run for run in whole if run.arm == base.number]
    is_imported = base.numerics == IMPORTED.key()
    if not base_runs:
        advice = _advise_suite(suite, label, {run.suite for run in runs}, is_imported)
        raise EvidenceError(f"suite {suite!r}: is in the policy, and {of_base} has no scores on it; {advice}")
    newest = base_runs[-1]
    of_adapted = [run for run in whole if run.arm == adapted.number]
    adapted_run = next((run for run in of_adapted if run.plan == newest.plan), None)
    if is_imported and of_adapted and adapted_run is not of_adapted[-1]:
        raise EvidenceError(
            f"suite {suite!r}: {label} was imported with other items or clusters than {of_base}; import both under "
            "another suite name, from tables with the same items"
        )
    if any(run.plan > newest.plan for run in whole):
        raise EvidenceError(
            f"suite {suite!r}: {label} was scored on a newer version than {of_base}, whose scores are stale; "
            f"submit {label} again, which scores its base alongside"
        )
    if adapted_run is None:
        remedy = f"{'import' if is_imported else 'submit'} {label} again"
        raise EvidenceError(f"suite {suite!r}: {label} has no scores on its newest version; {remedy}")
    for who, run in ((of_base, newest), (label, adapted_run)):
        if run.state != "done":
            raise EvidenceError(
                f"suite {suite!r}: the run of {who} is {run.state}, with {run.answered:,} of {run.requests:,} requests "
                f"answered; see `evalsvc status`: wait for it, or submit {label} again if it has stopped"
            )
    return newest


def _advise_suite(suite: str, label: str, known: Collection[str], is_imported: bool) -> str:
    """Return what to do about a suite of the policy that the base has no scores on.

    Args:
        known: The suites that either arm has scores on.
    """
    shipped = set() if is_imported else {entry.name for entry in shipped_suites()}
    if suite in shipped:
        return f"run: evalsvc submit {label} --suite {suite}"
    if near := difflib.get_close_matches(suite, {*known, *shipped} - {suite}, n=1):
        return f"did you mean {near[0]}?"
    listed = f"suites with scores: {', '.join(sorted(known)) or 'none'}"
    if is_imported:
        return f"import its results under this suite ({listed})"
    return f"it is not a shipped suite: run evalsvc submit {label} --suite FILE.yaml, with its file ({listed})"


def place_units(pairs: Sequence[TaskPair]) -> list[TaskPair]:
    """Return the pairs with the places of their documents and clusters in the random order."""
    places = sequential.draw_unit_places([list_items(pair.base) for pair in pairs])
    return [replace(pair, places=of_task) for pair, of_task in zip(pairs, places, strict=True)]


def _take_half(pairs: list[TaskPair], half: Half | None) -> list[TaskPair]:
    """Return one half of every task's units, the same for all tasks that share a unit.

    Raises:
        EvidenceError: A task has too few.
    """
    if half is None:
        return pairs
    halves = []
    for pair, mask in zip(pairs, sequential.take_half([list_items(pair.base) for pair in pairs], half), strict=True):
        if not mask.any():
            raise EvidenceError(f"{pair.base.suite}/{pair.base.task}: has too few items for two halves; remove --half")
        halves.append(replace(pair.part(mask), items=int(mask.sum())))
    return halves
