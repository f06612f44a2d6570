"""Reads from the store: short transactions on the live file, results cached until the store changes.

Every function takes a `State`, which names the store and identifies its contents: `now()` changes with the file,
`finished_state()` only when a run finishes, so that nothing expensive is computed again while a run is active. A page
reads a single state, and is therefore consistent. All sessions get the same objects: do not modify them.
"""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from evalsvc.analysis import stored, stored_claims, training_runs
from evalsvc.analysis.claims import DecidedClaim, TrainingRun
from evalsvc.analysis.frontier import (
    ROLES,
    ArmPositions,
    AxisGains,
    FrontierOptions,
    build_axis,
    build_positions,
    compare_methods,
    find_frontier,
)
from evalsvc.analysis.stored import ArmComparison
from evalsvc.analysis.suite_gains import Gains
from evalsvc.analysis.trajectory import Trajectory
from evalsvc.errors import EvidenceError
from evalsvc.gating.advisor import Advice, Terms, advise
from evalsvc.records.arms import Checkpoint, Finding
from evalsvc.records.frontier import EqualLevels, Frontier
from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Role
from evalsvc.records.weight_changes import WeightChange
from evalsvc.settings import default_db
from evalsvc.stats.regression import Line
from evalsvc.store import arms as arms_module
from evalsvc.store.arms import Family, StoredArm
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.decisions import Decisions, Record
from evalsvc.store.items import AnsweredRequest, FailedRequest, Filter, ItemPage, StoredItems
from evalsvc.store.runs import StoredRun
from evalsvc.store.store import Store

WAIT = 10.0
"""Seconds that a page waits for a process that writes to the store."""

MANY = 10_000
"""From this many scores read at once, they are excluded from garbage collection, which would be slower than a page."""

KEPT = 128
"""Cached results per function."""


class State(NamedTuple):
    """A snapshot of a store.

    Attributes:
        stamps: Values that change when the store does.
    """

    path: str
    stamps: tuple[str, ...]

    @property
    def store(self) -> Kept:
        """The store itself."""
        return _open_kept(self)


Scores = dict[tuple[int, int], tuple[object, list[TaskScores]]]
"""(base, arm) -> the finished runs of both at the time of reading, and the arm's scores."""


class Kept(Store):
    """The store at one state: its arms are read once, and an arm's scores only if it has finished a run since."""

    def __init__(self, path: Path, scores: Scores) -> None:
        super().__init__(path, WAIT)
        self._scores = scores
        self._gains: dict[int, dict[int, dict[str, float]]] = {}
        self._known = super().arms()
        runs: dict[int, list[object]] = defaultdict(list)
        for run in super().runs():
            if run.state == "done":
                runs[run.arm.number].append((run.run, run.updated))
        self._finished = runs

    def arms(self) -> list[StoredArm]:
        """Return all arms, oldest first."""
        return self._known

    def mean_gains(self, base: int) -> dict[int, dict[str, float]]:
        """Return mean gains as `Store.mean_gains` does."""
        if base not in self._gains:
            self._gains[base] = super().mean_gains(base)
        return self._gains[base]

    def task_scores(
        self,
        base: int,
        arms: Sequence[int],
        plans: Sequence[str] | None = None,
        suites: Sequence[str] | None = None,
    ) -> dict[int, list[TaskScores]]:
        """Return scores as `Store.task_scores` does."""
        if plans is not None:
            return super().task_scores(base, arms, plans, suites)
        numbers = list(dict.fromkeys((base, *arms)))
        marks = {arm: (self._finished[base], self._finished[arm]) for arm in numbers}
        cached = {arm: self._scores.get((base, arm)) for arm in numbers}
        outdated = [arm for arm in numbers if (previous := cached[arm]) is None or previous[0] != marks[arm]]
        if outdated:
            fresh = super().task_scores(base, outdated)
            previous = cached[base]
            if previous is not None and _same(previous[1], fresh[base]):
                fresh[base] = previous[1]  # comparisons are cached under this very object
            elif previous is not None:  # the base has finished another run meanwhile
                fresh = super().task_scores(base, numbers)
            self._scores.update({(base, arm): (marks[arm], tasks) for arm, tasks in fresh.items()})
            if sum(map(len, fresh.values())) > MANY:
                gc.collect()
                gc.freeze()
        scores = {arm: self._scores[base, arm][1] for arm in numbers}
        if suites is None:
            return scores
        return {arm: [task for task in tasks if task.suite in suites] for arm, tasks in scores.items()}


def _same(first: Sequence[TaskScores], second: Sequence[TaskScores]) -> bool:
    return len(first) == len(second) and all(
        (a.suite, a.task) == (b.suite, b.task) and a.is_aligned(b) for a, b in zip(first, second, strict=True)
    )


@st.cache_resource(show_spinner=False, max_entries=4)
def _scores(path: str) -> Scores:
    return {}


@st.cache_resource(show_spinner=False, max_entries=2)
def _open_kept(state: State) -> Kept:
    return Kept(Path(state.path), _scores(state.path))


def now() -> State:
    """Return the store's state by its file: it changes with every write."""
    path = default_db()
    stamps = []
    for file in (path, path.with_name(path.name + ".wal")):
        if file.exists():
            status = file.stat()
            stamps += [str(status.st_mtime_ns), str(status.st_size)]
    return State(str(path), tuple(stamps))


def finished_state() -> State:
    """Return the store's state by its finished runs.

    Raises:
        StoreError: The store does not exist, or cannot be read.
    """
    return _read_finished(now())


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _read_finished(state: State) -> State:
    return State(state.path, StoredItems(Path(state.path), WAIT).fingerprint())


def unique_names(arms: list[StoredArm]) -> dict[str, StoredArm]:
    """Return arms by label; equal labels are extended by the start of the digest."""
    labels = Counter(arm.label for arm in arms)
    return {
        arm.label if labels[arm.label] == 1 else f"{arm.label} ({arm.checkpoint.digest[7:19]})": arm for arm in arms
    }


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def families(state: State) -> dict[str, Family]:
    """Return every base that has adapted arms, with these arms, by name."""
    groups = arms_module.group_families(state.store.arms())
    named = unique_names([family.base for family in groups])
    return dict(zip(named, groups, strict=True))


@st.cache_resource(show_spinner="Computing gains", max_entries=2)
def _gains(state: State, base: str) -> Gains:
    return stored.load_gains(state.store, families(state)[base])


@st.cache_resource(show_spinner=False, max_entries=4)
def _axis(state: State, base: str, role: Role, only: tuple[str, ...]) -> AxisGains:
    return build_axis(_gains(state, base), role, only or None)


@st.cache_resource(show_spinner=False, max_entries=4)
def _plane(state: State, base: str, only: tuple[str, ...]) -> ArmPositions:
    roles = suites(state, base)
    learning, forgetting = (
        _axis(state, base, role, tuple(suite for suite in only if roles.get(suite) == role)) for role in ROLES
    )
    return build_positions(_gains(state, base), learning, forgetting)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def frontier(state: State, base: str, axes: tuple[str, ...], only: tuple[str, ...]) -> Frontier:
    """Return the frontier of a base on some suites; for a role without any of them, on all suites of that role."""
    return find_frontier(_plane(state, base, only), FrontierOptions(axes))


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def equal_levels(state: State, base: str, axes: tuple[str, ...], only: tuple[str, ...]) -> EqualLevels:
    """Return the methods of a frontier, compared at equal learning and at equal forgetting."""
    return compare_methods(_plane(state, base, only), FrontierOptions(axes))


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def suites(state: State, base: str) -> dict[str, str]:
    """Return the suites that a base has finished, with their roles."""
    arm = families(state)[base].base
    runs = {run.suite: run.role for run in state.store.runs() if run.arm.number == arm.number and run.state == "done"}
    return {suite: str(role) for suite, role in runs.items()}


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def compare_arms(state: State, base: str, adapted: str, reference: str | None = None) -> ArmComparison:
    """Compare an arm with its base, or with another arm of it."""
    family = families(state)[base]
    named = unique_names([family.base, *family.arms])
    return stored.compare_pair(state.store, named[reference] if reference else family.base, named[adapted])


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def page_of_items(state: State, base: int, adapted: int, query: Filter, offset: int, limit: int) -> ItemPage:
    """Return a page of items that two arms were both scored on."""
    return StoredItems(Path(state.path), WAIT).page(base, adapted, query, offset, limit)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def list_requests(state: State, sample: int, base: int, adapted: int) -> list[AnsweredRequest]:
    """Return an item's requests with both arms' answers."""
    return StoredItems(Path(state.path), WAIT).list_requests(sample, base, adapted)


def _read_scores(state: State, family: Family, trajectory: str | None = None) -> None:
    """Read the scores of a family, or of one training run, in one query: almost as fast as for one arm."""
    numbers = [arm.number for arm in family.arms if trajectory in (None, arm.checkpoint.trajectory)]
    state.store.task_scores(family.base.number, numbers)


@st.cache_resource(show_spinner="Comparing every step with the base", max_entries=KEPT)
def trajectory(state: State, base: str, name: str, margin: float) -> Trajectory:
    """Return the trajectory of a base's training run."""
    family = families(state)[base]
    _read_scores(state, family, name)
    return training_runs.follow_runs(state.store, name, margin, family.base.checkpoint.digest)[0]


@st.cache_resource(show_spinner="Comparing the steps that have drift scores", max_entries=KEPT)
def drift(state: State, base: str) -> tuple[list[TrainingRun], DecidedClaim, Line | None]:
    """Return the checkpoints of a base with their drift, the claim about it, and the regression of forgetting on it."""
    _read_scores(state, families(state)[base])
    return stored_claims.fit_drift_line(state.store, families(state)[base])


@st.cache_resource(show_spinner="Comparing the last step of every training run", max_entries=KEPT)
def _load_claim_evidence(state: State) -> list[stored_claims.ClaimEvidence]:
    for family in families(state).values():
        _read_scores(state, family)
    return stored_claims.load_claim_evidence(state.store)


def claims(state: State, margin: float) -> list[DecidedClaim]:
    """Return all decided claims; empty if the store has no evidence."""
    try:
        return stored_claims.decide_claim_evidence(_load_claim_evidence(state), margin)
    except EvidenceError:
        return []


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def decisions(state: State) -> list[Record]:
    """Return all decision records, oldest first within each base."""
    kept = Decisions(Path(state.path), WAIT)
    bases = dict.fromkeys(arm.checkpoint.digest for arm in state.store.arms() if arm.checkpoint.parent is None)
    return [record for base in bases for record in kept.chain(base)]


@st.cache_resource(show_spinner="Evaluating arms, cheapest first", max_entries=KEPT)
def advice(state: State, base: str, terms: Terms) -> Advice:
    """Return the cheapest adaptation of a base that passes."""
    return advise(state.store, families(state)[base], terms)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def runs(state: State) -> list[StoredRun]:
    """Return all runs, oldest first."""
    return state.store.runs()


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def failures(state: State, arm: int, plan: str) -> list[FailedRequest]:
    """Return the failed requests of a run, with reasons."""
    return StoredItems(Path(state.path), WAIT).failures(arm, plan)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def checkpoints(state: State) -> list[Checkpoint]:
    """Return all checkpoints, oldest first."""
    return list({arm.checkpoint.digest: arm.checkpoint for arm in state.store.arms()}.values())


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def dossier(state: State, checkpoint: Checkpoint) -> tuple[WeightChange | None, list[Finding]]:
    """Return a checkpoint's weight change, None if it was never computed, and its findings."""
    dossiers = CheckpointFacts(Path(state.path), WAIT)
    return dossiers.change(checkpoint), dossiers.findings(checkpoint)
