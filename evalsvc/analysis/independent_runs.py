"""Which training runs are independent of each other, for claims about methods and recipes. Pure: no I/O, no database.

Two runs count as one if they have equal scores on all items that both have (a copy, or the same checkpoint uploaded
again), if they are steps in one folder, whatever seeds are recorded for them, or if they have the same recorded seed
and the same method: the variance between runs comes from what their seeds change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evalsvc.records.vocabulary import Floats, Ints

RunScores = Mapping[tuple[str, str], tuple[Ints, Floats]]
"""By suite and task: sample numbers, increasing, and their scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """What tells one training run from another.

    Attributes:
        seed: The recorded seed of its training; None if none is recorded.
        folder: The folder of the run of which it is a step; None if it is none.
    """

    label: str
    method: str
    seed: int | None = None
    folder: str | None = None
    scores: RunScores = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class IndependentRun:
    """Training runs that count as one.

    Attributes:
        members: Their positions, the first of them first.
        reasons: Why they count as one, in words: one less than there are members.
    """

    members: tuple[int, ...]
    reasons: tuple[str, ...] = ()


def merge_dependent_runs(runs: Sequence[RunIdentity]) -> list[IndependentRun]:
    """Return the independent runs, in the order of their first members."""
    owners = list(range(len(runs)))
    reasons: list[tuple[int, str]] = []
    for position, run in enumerate(runs):
        for earlier in range(position):
            if owners[earlier] == owners[position] or (reason := _why_same(runs[earlier], run)) is None:
                continue
            reasons.append((position, f"{run.label} counts as one run with {runs[earlier].label}: {reason}"))
            first, second = sorted((owners[earlier], owners[position]))
            owners = [first if owner == second else owner for owner in owners]
    return [
        IndependentRun(
            tuple(position for position, owner in enumerate(owners) if owner == first),
            tuple(reason for position, reason in reasons if owners[position] == first),
        )
        for first in dict.fromkeys(owners)
    ]


def _why_same(first: RunIdentity, second: RunIdentity) -> str | None:
    """Return why two runs count as one, None if they are independent."""
    if count := _count_equal(first.scores, second.scores):
        return f"equal scores on all {count:,} items that both have"
    if first.folder is not None and first.folder == second.folder:
        return f"both are steps of the run in {first.folder}"
    if first.seed is not None and (first.method, first.seed) == (second.method, second.seed):
        return f"both have method {first.method} and seed {first.seed}"
    return None


def _count_equal(first: RunScores, second: RunScores) -> int:
    """Return the number of items that both have if all have equal scores, else 0."""
    count = 0
    for key, (samples, values) in first.items():
        if key not in second:
            continue
        others, other_values = second[key]
        if samples is not others and not np.array_equal(samples, others):
            _, here, there = np.intersect1d(samples, others, assume_unique=True, return_indices=True)
            values, other_values = values[here], other_values[there]
        if not np.array_equal(values, other_values, equal_nan=True):
            return 0
        count += len(values)
    return count
