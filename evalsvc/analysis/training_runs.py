"""Training runs of a store, step by step: items paired where there are any, published levels where there are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from evalsvc.analysis.compare import UNIT_INTERVAL
from evalsvc.analysis.stored import compare_many
from evalsvc.analysis.trajectory import MARGIN, UNPAIRED, Trajectory, build_trajectory
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
    """Return training runs step by step; runs of one name from different bases are different ones.

    Items are paired where there are any; published results without items are compared without pairing, with the first
    step where they have no base.

    Args:
        name: The runs of this name; None: all.
        base: Digest of the base that they started from; None: any.
        note: Is told why a run is left out.

    Raises:
        UsageError: No run has that name.
        EvidenceError: No run can be followed: steps lack scores, or cannot be compared.
    """
    arms = [arm for arm in store.arms() if not arm.is_rerun]
    runs: dict[tuple[str | None, str], list[StoredArm]] = {}
    for arm in arms:
        if arm.checkpoint.trajectory and base in (None, arm.checkpoint.parent):
            runs.setdefault((arm.checkpoint.parent, arm.checkpoint.trajectory), []).append(arm)
    chosen = [members for (_, run), members in runs.items() if name in (None, run)]
    if name is not None and not chosen:
        known = ", ".join(dict.fromkeys(run for _, run in runs)) or "none yet: submit a folder with checkpoint-* inside"
        raise UsageError(f"trajectory {name!r}: the store has no training run of that name ({known})")
    found, problems = [], []
    for members in chosen:
        try:
            found.append(_follow_run(store, arms, members, margin))
        except EvidenceError as error:
            problems.append(error)
    if problems and not found:
        raise problems[0]
    for problem in problems:
        note(f"left out: {problem}")
    return found


def _follow_run(store: Store, arms: Sequence[StoredArm], members: Sequence[StoredArm], margin: float) -> Trajectory:
    # One way of serving for all steps: the usual one, if any step was scored so.
    serving = min((arm.serving for arm in members), key=lambda serving: serving.words)
    newest = {arm.checkpoint.step or 0: arm for arm in members if arm.serving == serving}
    steps = sorted(newest)
    first = newest[steps[0]]
    if first.checkpoint.parent is None:
        base, steps = first, steps[1:]
    else:
        base = find_base(arms, first)
    found: list[tuple[int, str, Sequence[Comparison]]] = []
    incomplete: list[str] = []
    each = _compare_steps(store, base, [newest[step] for step in steps])
    for step, tasks in zip(steps, each, strict=True):
        label = newest[step].label
        if isinstance(tasks, EvidenceError):
            incomplete.append(label)
        else:
            found.append((step, label, tasks))
    made = build_trajectory(
        first.checkpoint.trajectory or first.label, first.checkpoint.method, base.label, found, margin
    )
    return replace(made, incomplete=tuple(incomplete))


def _compare_steps(
    store: Store, base: StoredArm, arms: Sequence[StoredArm]
) -> Iterator[Sequence[Comparison] | EvidenceError]:
    """Yield every arm's tasks against the base's: item by item, or as published if the base has no items."""
    if store.task_scores(base.number, [])[base.number]:
        for one in compare_many(store, base, arms):
            yield one if isinstance(one, EvidenceError) else one.tasks
        return
    published = store.results()
    for arm in arms:
        try:
            found = compare_published(published, base, arm)
        except EvidenceError as error:
            yield error
        else:
            yield found


def compare_published(results: Sequence[StoredResult], base: StoredArm, adapted: StoredArm) -> list[Comparison]:
    """Compare published levels: without items there is no pairing, and the two standard errors add up.

    Raises:
        EvidenceError: The adapted arm lacks a task.
    """
    ours, theirs = (
        {(r.suite, r.task, r.metric, r.filter): r for r in results if r.arm.number == arm.number and r.primary}
        for arm in (base, adapted)
    )
    missing = [f"{key[0]}/{key[1]}" for key in ours if key not in theirs]
    if missing or not ours:
        what = ", ".join(missing[:3]) or "every task"
        raise EvidenceError(f"{adapted.label} has no results on {what}; import or submit it again")
    found = []
    for key, one in ours.items():
        other = theirs[key]
        stderr = low = high = None
        if one.stderr is not None and other.stderr is not None:
            stderr = math.hypot(one.stderr, other.stderr)
            low, high = t_interval(other.value - one.value, stderr, math.inf)
        bounded = 0 <= one.value <= 1 and 0 <= other.value <= 1 and one.higher_is_better
        found.append(
            Comparison(
                suite=one.suite,
                role=one.role,
                task=one.task,
                metric=one.metric,
                filter=one.filter,
                n=one.n,
                base=one.value,
                adapted=other.value,
                difference=other.value - one.value,
                low=low,
                high=high,
                lost=None,
                gained=None,
                test=UNPAIRED,
                unit=UNIT_INTERVAL if bounded else one.metric,
                higher_is_better=one.higher_is_better,
                weight=1.0,
                stderr=stderr,
            )
        )
    return found
