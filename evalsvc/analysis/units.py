"""The unit of evidence: the document, or the cluster of documents that a suite declares. Pure: no I/O, no database.

All scores of a document belong to one unit: across prompt formats, tasks, suites and repeats. Documents of one cluster
belong to one unit, as do clusters that share a document. Tasks that share a unit are measured together; other tasks are
independent of each other.

`measure_differences` is the one place where comparisons become what an interval or a test takes: the interval of a
task, of a total, of a point on the frontier and of a gate's rule are all computed from its answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evalsvc.errors import EvidenceError
from evalsvc.records.comparisons import Comparison, ResampledGains
from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Floats, Ints
from evalsvc.stats.bootstrap import ResampledError, number_units
from evalsvc.stats.margins import PairedDifference
from evalsvc.stats.unit_means import UnitSums, count_effective

Places = NDArray[np.intp]


class TaskItems:
    """The documents and declared clusters of a task's items; equal only if the arrays are the same objects."""

    __slots__ = ("clusters", "documents")

    def __init__(self, documents: Ints, clusters: Ints | None) -> None:
        self.documents, self.clusters = documents, clusters

    def part(self, mask: NDArray[np.bool_]) -> TaskItems:
        """Return some of the items."""
        return TaskItems(self.documents[mask], None if self.clusters is None else self.clusters[mask])

    def __hash__(self) -> int:
        return hash((id(self.documents), id(self.clusters)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskItems) and self.documents is other.documents and self.clusters is other.clusters


def list_items(scores: TaskScores) -> TaskItems:
    """Return the documents and clusters of a task; without numbers of documents every sample is its own."""
    return TaskItems(scores.samples if scores.documents is None else scores.documents, scores.clusters)


@dataclass(frozen=True, eq=False, kw_only=True)  # without slots, for the cached property
class UnitGroup:
    """Tasks that share units, directly or through other tasks.

    Attributes:
        tasks: Positions of the tasks.
        count: Number of units.
        units: For each task, int [n], the unit of each item, from 0 to count - 1.
        has_clusters: Whether a suite declares clusters of them.
    """

    tasks: tuple[int, ...]
    count: int
    units: tuple[Places, ...]
    has_clusters: bool

    @cached_property
    def is_one_by_one(self) -> bool:
        """Whether every task has every unit at most once."""
        return all(len(units) == 1 or np.bincount(units).max() == 1 for units in self.units)


@lru_cache(maxsize=2**8)
def group_units(tasks: tuple[TaskItems, ...]) -> tuple[UnitGroup, ...]:
    """Return the groups of tasks that share units, in the order of their first task; cached, as arms share items."""
    if not tasks:
        return ()
    owners = np.repeat(np.arange(len(tasks)), [len(items.documents) for items in tasks])
    _, units = np.unique(np.concatenate([items.documents for items in tasks]), return_inverse=True)
    if any(items.clusters is not None for items in tasks):
        units = number_units(units, _number_clusters(tasks))
    count = int(units.max(initial=-1)) + 1
    # Tasks and units are the two sides of a graph.
    links = coo_array(
        (np.ones(len(units), dtype=np.int8), (owners, units + len(tasks))), shape=(len(tasks) + count,) * 2
    )
    _, member = connected_components(links, directed=False)
    ends = np.cumsum([len(items.documents) for items in tasks])
    of_task = np.split(units, ends[:-1])
    groups = []
    for label in dict.fromkeys(member[: len(tasks)].tolist()):
        positions = tuple(np.flatnonzero(member[: len(tasks)] == label).tolist())
        unique, inverse = np.unique(np.concatenate([of_task[i] for i in positions]), return_inverse=True)
        parts = np.split(inverse, np.cumsum([len(of_task[i]) for i in positions])[:-1])
        groups.append(
            UnitGroup(
                tasks=positions,
                count=len(unique),
                units=tuple(parts),
                has_clusters=any(tasks[i].clusters is not None for i in positions),
            )
        )
    return tuple(groups)


def _number_clusters(tasks: Sequence[TaskItems]) -> Ints:
    """Return each item's cluster; an item of a task without clusters is its own."""
    free = 1 + max(int(items.clusters.max(initial=0)) for items in tasks if items.clusters is not None)
    numbers = []
    for items in tasks:
        count = len(items.documents)
        numbers.append(np.arange(free, free + count) if items.clusters is None else items.clusters)
        free += count
    return np.concatenate(numbers)


def measure_differences(
    comparisons: Sequence[Comparison], shares: Sequence[float]
) -> tuple[list[PairedDifference], list[float]]:
    """Return independent differences and their positive shares, whose sum is that of share * gain over comparisons.

    Args:
        shares: May be negative, for a contrast.

    Raises:
        EvidenceError: A comparison has neither items nor a standard error.
    """
    parts: list[PairedDifference] = []
    weights: list[float] = []
    with_items = [i for i, comparison in enumerate(comparisons) if comparison.items is not None]
    resampled: dict[str, list[tuple[ResampledGains, float, float]]] = defaultdict(list)
    for comparison, share in zip(comparisons, shares, strict=True):
        if comparison.items is not None or not share:
            continue
        if comparison.stderr is None:
            raise EvidenceError(f"{comparison.suite}/{comparison.task}: has no standard error, so it cannot be tested")
        if comparison.resampled is not None:
            resampled[comparison.resampled.draws].append((comparison.resampled, comparison.gain, share))
            continue
        sign = 1 if share > 0 else -1
        parts.append(PairedDifference(n=comparison.n, difference=sign * comparison.gain, stderr=comparison.stderr))
        weights.append(abs(share))
    for same_draws in resampled.values():
        part, total = _measure_resampled(same_draws)
        parts.append(part)
        weights.append(total)
    items = tuple(
        TaskItems(of_task.documents, of_task.clusters)
        for i in with_items
        if (of_task := comparisons[i].items) is not None
    )
    for group in group_units(items):
        members = [comparisons[with_items[i]] for i in group.tasks]
        of_members = np.array([shares[with_items[i]] for i in group.tasks])
        total = float(np.abs(of_members).sum())
        if total:
            parts.append(_measure_group(group, members, of_members / total))
            weights.append(total)
    return parts, weights


def size_units(group: UnitGroup, shares: Floats) -> Floats:
    """Return the sizes [count], of mean 1, of the units of a group whose tasks have these shares, which add up to 1."""
    sizes = np.zeros(group.count)
    for share, units in zip(shares, group.units, strict=True):
        sizes += np.bincount(units, minlength=group.count) * (abs(share) * group.count / len(units))
    return sizes


def has_one_each(group: UnitGroup, sizes: Floats) -> bool:
    """Whether every unit of a group is one item, or one of each task, so that all have the same size."""
    return group.is_one_by_one and bool((np.abs(sizes - 1) < 1e-12).all())


def _measure_group(group: UnitGroup, members: Sequence[Comparison], shares: Floats) -> PairedDifference:
    """Return the difference of tasks that share units, from their contributions to it."""
    sums, sizes = np.zeros(group.count), size_units(group, shares)
    is_bounded = True
    for share, units, comparison in zip(shares, group.units, members, strict=True):
        assert comparison.items is not None
        gains = np.bincount(units, weights=comparison.items.gains, minlength=group.count)
        sums += gains * (share * group.count / comparison.n)
        is_bounded &= comparison.items.is_bounded
    difference = float(sums.mean())
    is_items = has_one_each(group, sizes)
    if is_bounded and is_items:
        whole = np.round(sums)
        if bool((np.abs(sums - whole) < 1e-9).all()):
            lost, gained = int((whole < 0).sum()), int((whole > 0).sum())
            return PairedDifference(
                n=group.count,
                difference=(gained - lost) / group.count,
                stderr=_cluster_error(whole - difference, group.count),
                counts=(lost, gained),
            )
    return PairedDifference(
        n=group.count,
        difference=difference,
        stderr=_cluster_error(sums - difference * sizes, group.count),
        df=count_effective(sizes) - 1,
        units=UnitSums(sums=sums[None], sizes=sizes, is_items=is_items) if is_bounded else None,
    )


def _measure_resampled(tasks: Sequence[tuple[ResampledGains, float, float]]) -> tuple[PairedDifference, float]:
    """Return the difference of tasks that have the same resamples, and its positive share.

    Args:
        tasks: Resampled gains, gain and share of each.
    """
    total = sum(abs(share) for *_, share in tasks)
    count = min(len(of_task.gains) for of_task, *_ in tasks)
    gains = np.sum([of_task.gains[:count] * (share / total) for of_task, _, share in tasks], axis=0)
    error = replace(tasks[0][0], gains=gains).find_error() or ResampledError(float("nan"), 1.0)
    difference = sum(gain * (share / total) for _, gain, share in tasks)
    return PairedDifference(n=tasks[0][0].units, difference=difference, stderr=error.stderr, df=error.df), total


def _cluster_error(residuals: Floats, count: int) -> float:
    """Return the cluster-robust standard error of a mean of units; nan for a single one."""
    return float(np.sqrt((residuals**2).mean() / (count - 1))) if count > 1 else float("nan")
