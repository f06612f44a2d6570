"""What is asked of a store beyond one comparison: training runs, published levels, collapse, drift, claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalsvc.claims import Card, Run, cards, kinds_of, predicts
from evalsvc.collapse import TaskDiversity, TaskDrift, diversity_of, drift_of, why_no_drift
from evalsvc.compare import UNIT_INTERVAL
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.evidence import Sampled, TokenDrift
from evalsvc.matrices import Matrix
from evalsvc.records import Comparison, Role, RoleTotal
from evalsvc.service import Compared, Family, base_of, compared_all, families, find_arm, find_family
from evalsvc.stats.paired import t_interval
from evalsvc.stats.regression import Line
from evalsvc.store import Store, StoredArm, StoredResult
from evalsvc.trajectory import MARGIN, UNPAIRED, Change, Trajectory, trajectory


def followed(
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
            found.append(_followed(store, arms, members, margin))
        except EvidenceError as error:
            problems.append(error)
    if problems and not found:
        raise problems[0]
    for problem in problems:
        note(f"left out: {problem}")
    return found


def _followed(store: Store, arms: Sequence[StoredArm], members: Sequence[StoredArm], margin: float) -> Trajectory:
    # One way of serving for all steps: the usual one, if any step was scored so.
    serving = min((arm.serving for arm in members), key=lambda serving: serving.words)
    newest = {arm.checkpoint.step or 0: arm for arm in members if arm.serving == serving}
    steps = sorted(newest)
    first = newest[steps[0]]
    if first.checkpoint.parent is None:
        base, steps = first, steps[1:]
    else:
        base = base_of(arms, first)
    found: list[tuple[int, str, Sequence[Comparison]]] = []
    incomplete: list[str] = []
    each = _compared(store, base, [newest[step] for step in steps])
    for step, tasks in zip(steps, each, strict=True):
        label = newest[step].label
        if isinstance(tasks, EvidenceError):
            incomplete.append(label)
        else:
            found.append((step, label, tasks))
    made = trajectory(first.checkpoint.trajectory or first.label, first.checkpoint.method, base.label, found, margin)
    return replace(made, incomplete=tuple(incomplete))


def _compared(
    store: Store, base: StoredArm, arms: Sequence[StoredArm]
) -> Iterator[Sequence[Comparison] | EvidenceError]:
    """Yield every arm's tasks against the base's: item by item, or as published if the base has no items."""
    if store.task_scores(base.number, [])[base.number]:
        for one in compared_all(store, base, arms):
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


def claims(store: Store, base: str | None = None, margin: float = MARGIN) -> list[Card]:
    """Return the claims that the stored arms and matrices have to do with, decided.

    Raises:
        UsageError: No arm has that name.
        EvidenceError: The store has nothing to decide a claim with.
    """
    return decided(studied(store, base), margin)


@dataclass(frozen=True, slots=True)
class Studied:
    """What claims are decided on: training runs at their last step, and checkpoints with drift."""

    runs: tuple[Run, ...]
    checkpoints: tuple[Run, ...]
    about: str


def studied(store: Store, base: str | None = None) -> list[Studied]:
    """Return the stored arms and matrices as claims need them, whatever the margin; raises as `claims` does."""
    matrices = [] if base else store.matrices()
    found = [_of_family(store, family) for family in (families(store) if base is None else [find_family(store, base)])]
    for tasks in dict.fromkeys(matrix.tasks for matrix in matrices):
        runs = tuple(_matrix_run(matrix) for matrix in matrices if matrix.tasks == tasks)
        found.append(Studied(runs, (), f"matrices over {', '.join(tasks)}"))
    return found


def decided(found: Sequence[Studied], margin: float = MARGIN) -> list[Card]:
    """Decide every claim; raises as `claims` does."""
    made = [card for one in found for card in cards(one.runs, one.checkpoints, one.about, margin)]
    if not made:
        raise EvidenceError(
            "the store has no adapted arm and no matrix to decide a claim with; submit or import some first"
        )
    return made


def _of_family(store: Store, family: Family) -> Studied:
    checkpoints = _checkpoints(store, family)
    last: dict[str, tuple[StoredArm, Run]] = {}
    for arm, run in checkpoints:
        seen = last.get(run.name)
        if seen is None or (arm.checkpoint.step or 0) >= (seen[0].checkpoint.step or 0):
            last[run.name] = arm, run
    runs = tuple(run for _, run in last.values())
    return Studied(runs, tuple(run for _, run in checkpoints), f"arms of {family.base.label}")


def diversity(store: Store, adapted: str) -> list[TaskDiversity]:
    """Compare an arm's sampled answers to open prompts with its base's.

    Raises:
        UsageError: The name means no arm, or several.
        EvidenceError: There are no sampled answers, or they cannot be compared.
    """
    arms = store.arms()
    chosen = find_arm(arms, adapted)
    base = base_of(arms, chosen)
    sampled = store.sampled(base.number, [chosen.number])
    if not sampled[base.number]:
        raise EvidenceError(
            f"{base.label} has no sampled answers; submit {chosen.label} with a suite of role diversity"
        )
    return diversity_of(sampled[base.number], sampled[chosen.number])


@dataclass(frozen=True, slots=True)
class Drifted:
    """How far an arm moved from its base, and what it forgot.

    Attributes:
        tasks: Empty where `refusal` says why no drift is known.
    """

    arm: StoredArm
    tasks: tuple[TaskDrift, ...]
    forgetting: float | None
    refusal: str | None = None


def drifted(store: Store, family: Family) -> tuple[list[Drifted], Card]:
    """Return the drift of a base's arms, and whether it predicts what they forgot.

    Raises:
        EvidenceError: No arm has drift; says why, where one was scored on texts.
    """
    runs = _checkpoints(store, family)
    tokens = store.drifts([arm.number for arm in family.arms])
    forgot = {arm.number: run.forgetting for arm, run in runs}
    refused = _without_drift(store, family, tokens)
    found = [
        Drifted(arm, tuple(drift_of(tokens[arm.number])), forgot.get(arm.number), refused.get(arm.number))
        for arm in family.arms
        if tokens[arm.number] or arm.number in refused
    ]
    if found and all(one.refusal for one in found):
        more = f" (and {len(found) - 1} arms more)" if len(found) > 1 else ""
        raise EvidenceError(f"{found[0].arm.label}: {found[0].refusal}{more}")
    if not found:
        raise EvidenceError(
            f"no arm of {family.base.label} has drift; submit one with a suite of role drift whose tasks "
            "are texts (loglikelihood_rolling)"
        )
    about = f"arms of {family.base.label}"
    return found, predicts([run for _, run in runs], about)[0]


def drift_line(store: Store, family: Family) -> tuple[list[Run], Card, Line | None]:
    """Return a base's checkpoints with drift and forgetting, the claim about them, and the straight line behind it."""
    runs = [run for _, run in _checkpoints(store, family)]
    return runs, *predicts(runs, f"arms of {family.base.label}")


def _without_drift(store: Store, family: Family, tokens: Mapping[int, Sequence[TokenDrift]]) -> dict[int, str]:
    """Return, by arm, why there is no drift of those that were scored on texts."""
    scored = {run.arm.number for run in store.runs() if run.state == "done" and run.role == "drift" and not run.part_of}
    return {
        arm.number: why_no_drift(arm.checkpoint, family.base.checkpoint)
        for arm in family.arms
        if arm.number in scored
        and not tokens[arm.number]
        and arm.checkpoint.parent is not None
        and not arm.checkpoint.is_prompted
    }


def _checkpoints(store: Store, family: Family) -> list[tuple[StoredArm, Run]]:
    """Return what claims rest on: of every training run the last step that can be compared, and steps with drift."""
    # A checkpoint that is served in several ways is still one: merged arms stand back.
    once = {arm.checkpoint.digest: arm for arm in sorted(family.arms, key=lambda arm: not arm.serving.merged)}
    order = [arm.number for arm in once.values()]
    sampled, tokens = store.sampled(family.base.number, order), store.drifts(order)
    refused = _without_drift(store, replace(family, arms=tuple(once.values())), tokens)
    drifted = {*refused, *(number for number in order if tokens[number])}
    found = {
        arm.number: (
            arm,
            replace(
                _run_facts(arm, compared),
                diversity=_unique(sampled[family.base.number], sampled[arm.number]),
                drift=_drift(tokens[arm.number]),
                no_drift=refused.get(arm.number),
            ),
        )
        for arm, compared in _last_compared(store, family.base, list(once.values()), drifted)
    }
    return [found[number] for number in order if number in found]


def _last_compared(
    store: Store, base: StoredArm, arms: Sequence[StoredArm], always: Container[int]
) -> Iterator[tuple[StoredArm, Compared]]:
    """Yield, compared, of every training run the last step that can be, and arms that are `always` asked."""
    left = sorted(arms, key=lambda arm: -(arm.checkpoint.step or 0))
    while left:
        last = {_run_name(arm): arm.number for arm in reversed(left)}
        asked = [arm for arm in left if arm.number == last[_run_name(arm)] or arm.number in always]
        answers = dict(zip((arm.number for arm in asked), compared_all(store, base, asked), strict=True))
        rest, reached = [], set()
        for arm in left:
            found = answers.get(arm.number)
            if isinstance(found, Compared):
                yield arm, found
                reached.add(_run_name(arm))
            elif found is None and _run_name(arm) not in reached:
                rest.append(arm)  # what came after it is unfinished, or was scored otherwise
        left = rest


def _run_name(arm: StoredArm) -> str:
    return arm.checkpoint.trajectory or arm.checkpoint.label


def _unique(base: Sequence[Sampled], adapted: Sequence[Sampled]) -> float | None:
    """Return the mean share of different answers, as a ratio to the base's; None where that cannot be told."""
    try:
        ratios = [task.ratios[0].ratio for task in diversity_of(base, adapted)] if adapted else []
    except EvidenceError:
        return None
    known = [ratio for ratio in ratios if ratio is not None]
    return float(np.mean(known)) if known else None


def _drift(tasks: Sequence[TokenDrift]) -> float | None:
    """Return mean KL per token on texts of the domain, else on general ones."""
    chosen = [task for task in tasks if task.role == "domain"] or list(tasks)
    return float(np.mean([task.kl.mean() for task in chosen])) if chosen else None


def _run_facts(arm: StoredArm, compared: Compared) -> Run:
    totals_of: dict[Role, RoleTotal] = {}
    for total in compared.roles:
        known = totals_of.get(total.role)
        if known is None or (total.tasks, total.unit == UNIT_INTERVAL) > (known.tasks, known.unit == UNIT_INTERVAL):
            totals_of[total.role] = total
    text = next((t for t in compared.roles if (t.role, t.unit) == ("drift", "bits_per_byte")), None)
    checkpoint = arm.checkpoint
    return Run(
        name=_run_name(arm),
        arm=arm.label,
        kinds=kinds_of(checkpoint.method, checkpoint.name),
        learning=totals_of["domain"].difference if "domain" in totals_of else None,
        forgetting=0.0 - totals_of["general"].difference if "general" in totals_of else None,
        text=None if text is None else 0.0 - text.difference,
        roles=tuple((role, Change(total.difference, total.low, total.high)) for role, total in totals_of.items()),
    )


def _matrix_run(matrix: Matrix) -> Run:
    summary = matrix.summary
    return Run(
        name=matrix.name,
        arm=matrix.name,
        kinds=kinds_of(matrix.method, matrix.name),
        learning=summary.la.value,
        forgetting=None if summary.forgetting is None else summary.forgetting.value,
    )
