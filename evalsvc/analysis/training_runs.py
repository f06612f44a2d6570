"""Training runs in a store, step by step: paired by item, or from published results without items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from evalsvc.analysis.compare import UNIT_INTERVAL
from evalsvc.analysis.stored import compare_many
from evalsvc.analysis.trajectory import MARGIN, UNPAIRED, Trajectory, build_trajectory, check_margin
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.comparisons import Comparison
from evalsvc.stats.paired import t_interval
from evalsvc.store.arms import StoredArm, find_base
from evalsvc.store.scores import StoredResult
from evalsvc.store.store import Store


def follow_runs(
    store: Store,
    name: str | None = None,
    margin: float = MARGIN,
    base: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> list[Trajectory]:
    """Return training runs step by step; runs with the same name and different bases are separate runs.

    Steps are paired by item with their base. Published results without items are compared without pairing; without a
    base, with their first step.

    Args:
        name: Only runs of this name; None for all.
        base: Digest of the base; None for any.
        note: Called with the reason why a run is left out.

    Raises:
        UsageError: No run has that name, or the margin is no number of at least 0.
        EvidenceError: No run has steps with scores that can be compared.
    """
    check_margin(margin)
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
            trajectories.append(_follow_run(store, arms, members, margin))
        except EvidenceError as error:
            problems.append(error)
    if problems and not trajectories:
        raise problems[0]
    for problem in problems:
        note(f"left out: {problem}")
    return trajectories


def _follow_run(store: Store, arms: Sequence[StoredArm], members: Sequence[StoredArm], margin: float) -> Trajectory:
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
    incomplete: list[str] = []
    comparisons = _compare_steps(store, base, [newest[step] for step in steps])
    for step, tasks in zip(steps, comparisons, strict=True):
        label = newest[step].label
        if isinstance(tasks, EvidenceError):
            incomplete.append(label)
        else:
            compared.append((step, label, tasks))
    trajectory = build_trajectory(
        first.checkpoint.trajectory or first.label, first.checkpoint.method, base.label, compared, margin
    )
    return replace(trajectory, incomplete=tuple(incomplete))


def _compare_steps(
    store: Store, base: StoredArm, arms: Sequence[StoredArm]
) -> Iterator[Sequence[Comparison] | EvidenceError]:
    """Yield every arm's comparisons with the base: by item, or from published results if the base has no items."""
    if store.task_scores(base.number, [])[base.number]:
        for comparison in compare_many(store, base, arms):
            yield comparison if isinstance(comparison, EvidenceError) else comparison.tasks
        return
    published = store.results()
    for arm in arms:
        try:
            tasks = compare_published(published, base, arm)
        except EvidenceError as error:
            yield error
        else:
            yield tasks


def compare_published(results: Sequence[StoredResult], base: StoredArm, adapted: StoredArm) -> list[Comparison]:
    """Compare published results: without items there is no pairing, and the two variances are added.

    Raises:
        EvidenceError: The adapted arm lacks a task.
    """
    base_results, adapted_results = (
        {(r.suite, r.task, r.metric, r.filter): r for r in results if r.arm.number == arm.number and r.primary}
        for arm in (base, adapted)
    )
    missing = [f"{key[0]}/{key[1]}" for key in base_results if key not in adapted_results]
    if missing or not base_results:
        names = ", ".join(missing[:3]) or "every task"
        raise EvidenceError(f"{adapted.label} has no results on {names}; import or submit it again")
    comparisons = []
    for key, before in base_results.items():
        after = adapted_results[key]
        stderr = low = high = None
        if before.stderr is not None and after.stderr is not None:
            stderr = math.hypot(before.stderr, after.stderr)
            low, high = t_interval(after.value - before.value, stderr, math.inf)
        is_score = 0 <= before.value <= 1 and 0 <= after.value <= 1 and before.higher_is_better
        comparisons.append(
            Comparison(
                suite=before.suite,
                role=before.role,
                task=before.task,
                metric=before.metric,
                filter=before.filter,
                n=before.n,
                base=before.value,
                adapted=after.value,
                difference=after.value - before.value,
                low=low,
                high=high,
                lost=None,
                gained=None,
                test=UNPAIRED,
                unit=UNIT_INTERVAL if is_score else before.metric,
                higher_is_better=before.higher_is_better,
                weight=1.0,
                stderr=stderr,
            )
        )
    return comparisons
