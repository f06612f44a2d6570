"""Training runs in a store, step by step: paired by item, or from published results without items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from evalsvc.analysis.stored import check_suites, compare_many
from evalsvc.analysis.trajectory import MARGIN, Trajectory, build_trajectory, check_margin
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.comparisons import Comparison, Missing
from evalsvc.store.arms import StoredArm, find_base
from evalsvc.store.store import Store


def follow_runs(
    store: Store,
    name: str | None = None,
    margin: float = MARGIN,
    base: str | None = None,
    note: Callable[[str], None] = lambda _: None,
    suites: Sequence[str] | None = None,
) -> list[Trajectory]:
    """Return training runs step by step; runs with the same name and different bases are separate runs.

    Steps are paired by item with their base. Published results without items are compared without pairing; without a
    base, with their first step. Of a run's tasks, those are shown that most of its steps have.

    Args:
        name: Only runs of this name; None for all.
        base: Digest of the base; None for any.
        note: Called with the reason why a run or a step is left out.
        suites: Only these; None for all.

    Raises:
        UsageError: No run has that name, a suite has no scores, or the margin is no number of at least 0.
        EvidenceError: No run has steps with scores that can be compared.
    """
    check_margin(margin)
    check_suites(store, suites)
    arms = [arm for arm in store.arms() if not arm.is_rerun]
    runs: dict[tuple[str | None, str], list[StoredArm]] = {}
    for arm in arms:
        if arm.checkpoint.trajectory and base in (None, arm.checkpoint.parent):
            runs.setdefault((arm.checkpoint.parent, arm.checkpoint.trajectory), []).append(arm)
    chosen = [members for (_, run), members in runs.items() if name in (None, run)]
    if name is not None and not chosen:
        known = ", ".join(dict.fromkeys(run for _, run in runs)) or "none yet: submit a folder with checkpoint-* inside"
        raise UsageError(f"trajectory {name!r}: the store has no training run of that name ({known})")
    trajectories, problems = [], []
    for members in chosen:
        try:
            trajectories.append(_follow_run(store, arms, members, margin, suites, note))
        except EvidenceError as error:
            problems.append(error)
    if problems and not trajectories:
        raise problems[0]
    for problem in problems:
        note(f"left out: {problem}")
    return trajectories


def _follow_run(
    store: Store,
    arms: Sequence[StoredArm],
    members: Sequence[StoredArm],
    margin: float,
    suites: Sequence[str] | None,
    note: Callable[[str], None],
) -> Trajectory:
    # All steps with the same serving; unquantised and unmerged, if a step has such an arm.
    serving = min((arm.serving for arm in members), key=lambda serving: serving.words)
    newest = {arm.checkpoint.step or 0: arm for arm in members if arm.serving == serving}
    steps = sorted(newest)
    first = newest[steps[0]]
    if first.checkpoint.parent is None:
        base, steps = first, steps[1:]
    else:
        base = find_base(arms, first)
    compared: list[tuple[int, str, Sequence[Comparison]]] = []
    problems: dict[str, str] = {}
    comparisons = compare_many(store, base, [newest[step] for step in steps], suites=suites)
    for step, comparison in zip(steps, comparisons, strict=True):
        label = newest[step].label
        if isinstance(comparison, EvidenceError):
            problems[label] = str(comparison)
        else:
            compared.append((step, label, comparison.tasks))
    if not compared:
        reason = next(iter(problems.values()), "the only step is the base of the others")
        raise EvidenceError(f"trajectory {first.checkpoint.trajectory}: has no step to show: {reason}")
    for label, reason in problems.items():
        note(f"left out: {label}: {reason}")
    trajectory = build_trajectory(
        first.checkpoint.trajectory or first.label, first.checkpoint.method, base.label, compared, margin
    )
    without_scores = [Missing(newest[step].label, ()) for step in steps if newest[step].label in problems]
    missing = (*trajectory.missing, *without_scores)
    return replace(trajectory, incomplete=tuple(entry.arm for entry in missing), missing=missing)
