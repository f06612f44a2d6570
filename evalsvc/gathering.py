"""What a policy asks for, out of a store: paired scores on its suites, or why there are none.

Fails closed: whatever is missing, unfinished, unpaired or stale is an error that says what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from evalsvc import looks
from evalsvc.collapse import diversity_of
from evalsvc.errors import EvidenceError
from evalsvc.gate import Ratio, TaskPair
from evalsvc.ledger import Ledger, PlannedRun
from evalsvc.policies import Policy
from evalsvc.records import TaskScores
from evalsvc.stats.diversity import WORSE_WHEN
from evalsvc.stats.paired import LEVEL
from evalsvc.store import Store, StoredArm
from evalsvc.suites import changed

Half = Literal["select", "confirm"]
Items = Mapping[looks.Key, int]
"""Items of whole tasks, where evidence is not complete."""
Scores = Mapping[int, Mapping[looks.Key, TaskScores]]
"""Scores by arm, by suite and task."""
_AT_ONCE = 10_000_000
"""Requests whose scores are in memory at the same time, or those of one arm if it was asked more."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a decision rests on.

    Attributes:
        sampled: Digests of the plans whose sampled answers `ratios` are of.
    """

    base: StoredArm
    adapted: StoredArm
    plans: tuple[PlannedRun, ...]
    pairs: tuple[TaskPair, ...]
    ratios: tuple[Ratio, ...] = ()
    sampled: tuple[str, ...] = ()


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
) -> Evidence:
    """Return both arms' scores on the policy's suites.

    Args:
        plans: Digests of the plans that hold them; None takes the newest whole ones.
        sampled: Ditto, of sampled answers.

    Raises:
        EvidenceError: A suite, run, task or item is missing, or the base or a suite is stale.
    """
    (found,) = gather_all(store, policy, base, [adapted], plans=plans, items=items, half=half, sampled=sampled)
    if isinstance(found, EvidenceError):
        raise found
    return found


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
    """Yield the evidence on each of several arms, or why there is none; scores are read some arms at a time."""
    ledger = Ledger(store.path)
    runs: dict[int, list[PlannedRun]] = {}
    for run in ledger.runs([base.number, *(arm.number for arm in several)]):
        runs.setdefault(run.arm, []).append(run)
    stale: dict[tuple[str, ...], str | None] = {}
    asked: _Plans | None = None
    if sampled is None:
        sampled = list(
            {run.suite: run.digest for run in runs.get(base.number, ()) if _is_sampled(run, policy)}.values()
        )
    each = sum(run.requests for run in runs.get(base.number, ()) if run.suite in policy.suites)
    at_once = max(1, _AT_ONCE // max(1, each))
    for start in range(0, len(several), at_once):
        part = several[start : start + at_once]
        chosen: list[PlannedRun] = []  # the base's, and so the same for every arm that has them
        wrong: dict[int, EvidenceError] = {}
        for arm in part:
            try:
                chosen = _chosen(ledger, policy, base, arm, runs, plans, stale)
            except EvidenceError as error:
                wrong[arm.number] = error
        scores: Scores = {}
        able = [arm.number for arm in part if arm.number not in wrong]
        if able:
            digests = [run.digest for run in chosen]
            if asked is None:
                asked = _Plans.of(ledger, digests, in_order=policy.mode != "fixed" or half is not None)
            # What was chosen and not given are the newest plans, which is what a store reads by itself.
            read = store.task_scores(base.number, able, digests if plans is not None else None, policy.suites)
            scores = {arm: {(s.suite, s.task): s for s in found} for arm, found in read.items()}
        for arm in part:
            if asked is None or arm.number in wrong:
                yield wrong[arm.number]
                continue
            try:
                pairs = asked.pairs(base, arm, scores, items or {}, half)
                ratios = _ratios(store, base, arm, sampled) if policy.diversity else ()
            except EvidenceError as error:
                yield error
            else:
                yield Evidence(base, arm, tuple(chosen), tuple(pairs), ratios, tuple(sampled))


def _chosen(
    ledger: Ledger,
    policy: Policy,
    base: StoredArm,
    adapted: StoredArm,
    runs: Mapping[int, Sequence[PlannedRun]],
    plans: Sequence[str] | None,
    stale: dict[tuple[str, ...], str | None],
) -> list[PlannedRun]:
    """Return the base's runs that count for an arm.

    Args:
        runs: By arm, oldest plan first.
        stale: By plans, which of their suites has changed on disk; what is not known yet is found out, and kept there.

    Raises:
        EvidenceError: One is missing, unfinished or stale.
    """
    of_base, own = runs.get(base.number, ()), runs.get(adapted.number, ())
    if plans is not None:
        named = {run.suite: run for run in of_base if run.digest in plans}
        return [named[suite] for suite in policy.suites if suite in named]
    chosen = [_newest([*of_base, *own], suite, base, adapted) for suite in policy.suites]
    sampled = {run.suite: run for run in (*of_base, *own) if _is_sampled(run, policy)}
    key = tuple(run.digest for run in (*chosen, *sampled.values()))
    if key not in stale:
        problems = ((suite, changed(files)) for suite, files in ledger.files(key).items())
        stale[key] = next((f"suite {suite!r}: {problem}" for suite, problem in problems if problem), None)
    if problem := stale[key]:
        raise EvidenceError(f"{problem}; submit {adapted.checkpoint.label} again, or add --evaluate")
    return chosen


@dataclass(frozen=True, slots=True)
class _Plans:
    """What some plans ask.

    Attributes:
        sizes: By suite, task, number of items and weight of each of its tasks.
        numbers: Digests of the samples by number, where a seeded order of the items matters.
    """

    sizes: dict[str, list[tuple[str, int, float]]]
    numbers: dict[int, str] | None

    @classmethod
    def of(cls, ledger: Ledger, plans: Sequence[str], *, in_order: bool) -> _Plans:
        return cls(ledger.sizes(plans), ledger.sample_digests(list(plans)) if in_order else None)

    def pairs(
        self, base: StoredArm, adapted: StoredArm, scores: Scores, items: Items, half: Half | None
    ) -> Iterator[TaskPair]:
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
                    places = np.array([looks.place(self.numbers[int(s)]) for s in here.samples])
                pair = TaskPair(here, there, items.get((suite, task), count), places)
                yield _halved(pair, half) if half else pair


def _is_sampled(run: PlannedRun, policy: Policy) -> bool:
    return bool(policy.diversity) and run.role == "diversity" and run.state == "done" and run.part_of is None


def _ratios(store: Store, base: StoredArm, adapted: StoredArm, plans: Sequence[str]) -> tuple[Ratio, ...]:
    """Return what is left of the base's diversity, by every measure that falls when answers collapse.

    Raises:
        EvidenceError: The two arms' sampled answers cannot be compared.
    """
    sampled = store.sampled(base.number, [adapted.number], plans)
    if not sampled[base.number]:
        return ()
    return tuple(
        Ratio(
            f"{t.suite}/{t.task}/{r.measure}", r.measure, r.ratio, _stderr(r.ratio, r.low, r.high, r.prompts), r.prompts
        )
        for t in diversity_of(sampled[base.number], sampled[adapted.number])
        for r in t.ratios
        if WORSE_WHEN[r.measure] == "lower" and r.ratio is not None and r.low is not None and r.high is not None
    )


def _stderr(ratio: float, low: float, high: float, prompts: int) -> float:
    """Return a ratio's standard error by the wider side of its interval, so that a skewed one is not taken for narrow.

    Where no prompt differs, resampling cannot tell how many others would: that of as many pairs without a discordant
    one then, by the end of Tango's interval for them, z^2 / (n + z^2).
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return max(ratio - low, high - ratio) / z or z / (prompts + z**2)


def _newest(runs: Sequence[PlannedRun], suite: str, base: StoredArm, adapted: StoredArm) -> PlannedRun:
    """Return the base's run on the newest version of a suite, if both arms have finished it."""
    label, of_base = adapted.checkpoint.label, base.checkpoint.label
    whole = [run for run in runs if run.suite == suite and run.part_of is None]
    mine = [run for run in whole if run.arm == base.number]
    if not mine:
        raise EvidenceError(
            f"suite {suite!r}: the policy asks for it, and {of_base} was never scored on it; "
            f"evalsvc submit {label} --suite {suite}"
        )
    newest = mine[-1]
    if any(run.plan > newest.plan for run in whole):
        raise EvidenceError(
            f"suite {suite!r}: {label} was scored on a newer version than {of_base}, whose scores are stale; "
            f"submit {label} again, which scores its base alongside"
        )
    theirs = next((run for run in whole if run.arm == adapted.number and run.plan == newest.plan), None)
    if theirs is None:
        raise EvidenceError(f"suite {suite!r}: {label} was not scored on its newest version; submit {label} again")
    for who, run in ((of_base, newest), (label, theirs)):
        if run.state != "done":
            raise EvidenceError(
                f"suite {suite!r}: the run of {who} is {run.state}, with {run.answered:,} of {run.requests:,} requests "
                f"answered; submit {label} again to resume"
            )
    return newest


def _halved(pair: TaskPair, half: Half) -> TaskPair:
    assert pair.places is not None
    first = looks.foremost(pair.places, (len(pair.places) + 1) // 2)
    mask = first if half == "select" else ~first
    if not mask.any():
        raise EvidenceError(f"{pair.base.suite}/{pair.base.task}: has too few items to be halved")
    return replace(pair.part(mask), items=int(mask.sum()))
