"""Draws evidence as people have it, whose true mean change is at a margin: the cells of the gate's size table.

Each function returns tasks: gains of the items in [-1, 1], and the document and the cluster of each. Items are lost or
gained; those that neither changed are right in both arms.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalsvc.gating.evidence import place_units
from evalsvc.gating.rules import TaskPair
from evalsvc.gating.sequential import draw_place
from tests.support.evidence import make_task_scores

Floats = NDArray[np.float64]
Random = np.random.Generator


@dataclass(frozen=True, eq=False)
class Drawn:
    """Items of one task."""

    gains: Floats
    documents: NDArray[np.int64] | None = None
    clusters: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Cell:
    """A kind of evidence: how it is drawn, given the mean change, and the margin."""

    draw: Callable[[Random, float], Sequence[Drawn]]
    margin: float = 0.05


def binary(random: Random, n: int, change: float, discordance: float = 0.10) -> Floats:
    """Return independent items: lost, gained or the same."""
    u, lost = random.random(n), (discordance - change) / 2
    return np.where(u < lost, -1.0, np.where(u < discordance, 1.0, 0.0))


def in_groups(random: Random, sizes: Sequence[int], change: float, icc: float = 0.2) -> Floats:
    """Return items whose chances of being lost and gained differ between groups, with this correlation within."""
    discordance = max(0.10, 1.5 * abs(change))
    lost, gained = (discordance - change) / 2, (discordance + change) / 2
    chances = random.dirichlet(np.array([lost, gained, 1 - lost - gained]) * (1 - icc) / icc, len(sizes))
    of_item = np.repeat(chances, sizes, axis=0)
    u = random.random(len(of_item))
    return np.where(u < of_item[:, 0], -1.0, np.where(u < of_item[:, :2].sum(axis=1), 1.0, 0.0))


def _documents(count: int, items: int, *, declared: bool) -> Callable[[Random, float], Sequence[Drawn]]:
    def draw(random: Random, change: float) -> Sequence[Drawn]:
        group = np.repeat(np.arange(count), items)
        gains = in_groups(random, [items] * count, change)
        return [Drawn(gains, clusters=group) if declared else Drawn(gains, documents=group)]

    return draw


def _clusters(sizes: Sequence[int]) -> Callable[[Random, float], Sequence[Drawn]]:
    def draw(random: Random, change: float) -> Sequence[Drawn]:
        return [Drawn(in_groups(random, sizes, change), clusters=np.repeat(np.arange(len(sizes)), sizes))]

    return draw


def _lost_whole(count: int, items: int) -> Callable[[Random, float], Sequence[Drawn]]:
    return _sizes_lost_whole([items] * count)


def _sizes_lost_whole(sizes: Sequence[int]) -> Callable[[Random, float], Sequence[Drawn]]:
    def draw(random: Random, change: float) -> Sequence[Drawn]:
        lost = random.random(len(sizes)) < -change
        return [Drawn(np.repeat(-lost.astype(float), sizes), clusters=np.repeat(np.arange(len(sizes)), sizes))]

    return draw


def _graded(n: int, loss: float = 0.8) -> Callable[[Random, float], Sequence[Drawn]]:
    return lambda random, change: [Drawn(np.where(random.random(n) < -change / loss, -loss, 0.0))]


def _one_odd(n: int) -> Callable[[Random, float], Sequence[Drawn]]:
    def draw(random: Random, change: float) -> Sequence[Drawn]:
        gains = binary(random, n, change, max(0.05, -change))
        gains[0] = -1e-12 if gains[0] == 0 else gains[0]  # as one partial score that stays the same
        return [Drawn(gains)]

    return draw


def _formats(n: int, correlation: float, count: int = 3) -> Callable[[Random, float], Sequence[Drawn]]:
    def draw(random: Random, change: float) -> Sequence[Drawn]:
        common = random.random(n)
        tasks = []
        for _ in range(count):
            u = np.where(random.random(n) < np.sqrt(correlation), common, random.random(n))
            lost = (0.10 - change) / 2
            tasks.append(Drawn(np.where(u < lost, -1.0, np.where(u < 0.10, 1.0, 0.0)), documents=np.arange(n)))
        return tasks

    return draw


def _macro(sizes: Sequence[int]) -> Callable[[Random, float], Sequence[Drawn]]:
    return lambda random, change: [Drawn(binary(random, n, change)) for n in sizes]


_LOGNORMAL = [int(x) for x in np.maximum(1, np.round(np.random.default_rng(3).lognormal(0, 1, 30) * 9))]
_SIZES = (40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000)

CELLS: Mapping[str, Cell] = {
    "500 independent binary items": Cell(lambda random, change: [Drawn(binary(random, 500, change))]),
    "100 documents x 5 items": Cell(_documents(100, 5, declared=False)),
    "100 declared clusters x 5 items": Cell(_documents(100, 5, declared=True)),
    **{f"{g} clusters of {500 // g}": Cell(_clusters([500 // g] * g)) for g in (30, 10, 5, 3, 2)},
    "15 clusters, margin .2": Cell(_clusters([33] * 15), 0.2),
    "30 lognormal clusters": Cell(_clusters(_LOGNORMAL)),
    "clusters of 300, 60, 40, .., 5": Cell(_clusters([300, 60, 40, 30, 20, 15, 10, 10, 10, 5])),
    "20 clusters x 25, lost whole": Cell(_lost_whole(20, 25)),
    "5 clusters x 100, lost whole, margin .1": Cell(_lost_whole(5, 100), 0.1),
    "60 clusters x 8, lost whole": Cell(_lost_whole(60, 8)),
    "380 clusters x 1 and 20 x 10, lost whole": Cell(_sizes_lost_whole([1] * 380 + [10] * 20)),
    "380 clusters x 1 and 20 x 10": Cell(_clusters([1] * 380 + [10] * 20)),
    **{f"graded, losses of .8, n = {n}": Cell(_graded(n)) for n in (100, 300, 1000)},
    "100 binary items": Cell(lambda random, change: [Drawn(binary(random, 100, change, 0.05))]),
    "100 binary items, one of them partial": Cell(_one_odd(100)),
    "3 formats of 300 items, correlation .9": Cell(_formats(300, 0.9)),
    "3 formats of 300 items, correlation .5": Cell(_formats(300, 0.5)),
    "15 tasks of 40 to 1,000 items": Cell(
        _macro([40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000])
    ),
}


def draw_pairs(cell: Cell, seed: int, change: float) -> list[TaskPair]:
    """Return the evidence of one gate on suite "s", with the places of its items for looks and halves."""
    random = np.random.default_rng(seed)
    pairs = []
    for number, drawn in enumerate(cell.draw(random, change)):
        base = np.where(drawn.gains > 0, 1 - drawn.gains, 1.0)
        name = f"t{number}"
        count = len(base)
        documents = np.arange(count) if drawn.documents is None else drawn.documents
        of_task = 0 if drawn.documents is not None else number
        scores = [
            replace(
                make_task_scores("s", name, values),
                documents=documents + (zlib.crc32(f"{seed}/{of_task}".encode()) << 20),
                clusters=drawn.clusters,
            )
            for values in (base, base + drawn.gains)
        ]
        places = np.array([draw_place(f"{seed}/{name}/{n}") for n in range(count)])
        pairs.append(TaskPair(scores[0], scores[1], count, places))
    return pairs


def place_by_unit(pairs: Sequence[TaskPair]) -> list[TaskPair]:
    """Return the pairs with the places that group-sequential looks use."""
    return place_units(pairs)
