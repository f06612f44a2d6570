"""A trie as packs: the rows of one forward pass, and what they attend to. NumPy only, no model.

A pack is a range of rows in depth-first order. It consists of trunks and blocks. A *trunk* is a part of one history
that is long or has many rows below it; a *block* is a small subtree, or several small subtrees of one parent. A row
attends to the rows before it in its own trunk or block, and to a prefix of every trunk above: because rows are in
depth-first order, the rows of a pack that see the same prefix of a trunk are one range. Keys and values of a trunk are
kept only as long as a later pack needs them, so memory is bounded by the longest history, not by the number of
sequences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from evalsvc.engine import trie as tries
from evalsvc.records.shards import Trie
from evalsvc.records.vocabulary import Ints

BLOCK_ROWS = 256
"""Largest subtree that is computed with a mask instead of unit by unit."""

MERGED_ROWS = 128
"""Largest block of several small subtrees of one parent; each of them then costs attention over the whole block."""


class Trunk(NamedTuple):
    """Rows `start` to `end` of a pack, one history; later packs need the first `keep` of them."""

    number: int
    start: int
    end: int
    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """Rows `start` to `end` of a pack see the first `length` rows of a trunk above them, which starts at `depth`."""

    trunk: int
    length: int
    depth: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pack:
    """Rows of one forward pass. All row numbers except `first` count from the pack's first row.

    Attributes:
        first: The trie's number of the first row.
        tokens, positions: int64 [rows].
        ends: First row that is not below a row, int64 [rows].
        blocks: (start, end) of each block.
        drop: Trunks of earlier packs that no later pack needs.
    """

    first: int
    tokens: Ints
    positions: Ints
    ends: Ints
    trunks: tuple[Trunk, ...]
    blocks: tuple[tuple[int, int], ...]
    ancestors: tuple[Ancestor, ...]
    drop: tuple[int, ...]


class _Unit(NamedTuple):
    trunk: bool
    start: int
    end: int
    parent: int


def packs(trie: Trie, rows: int, block: int = BLOCK_ROWS) -> list[Pack]:
    """Cut a trie into packs of at most `rows` rows, with blocks of at most `block`."""
    ends = tries.ends(trie)
    groups = _groups(_units(trie, ends, rows, min(block, rows)), rows)
    trunks = [unit for group in groups for unit in group if unit.trunk]
    first_rows = [unit.start for unit in trunks]
    tokens, positions = trie.tokens.astype(np.int64), tries.positions(trie)
    seen = [_ancestors(group, trunks, first_rows, positions) for group in groups]
    needed: dict[int, list[tuple[int, int]]] = {}
    for number, ancestors in enumerate(seen):
        for ancestor in ancestors:
            needed.setdefault(ancestor.trunk, []).append((number, ancestor.length))
    packs: list[Pack] = []
    trunk = 0
    for number, group in enumerate(groups):
        low, high = group[0].start, group[-1].end
        own: list[Trunk] = []
        for unit in group:
            if unit.trunk:
                keep = max((length for pack, length in needed.get(trunk, ()) if pack > number), default=0)
                own.append(Trunk(trunk, unit.start - low, unit.end - low, keep))
                trunk += 1
        oldest = own[0].number if own else trunk
        done = [t for t, uses in needed.items() if uses[-1][0] == number and t < oldest]
        packs.append(
            Pack(
                first=low,
                tokens=tokens[low:high],
                positions=positions[low:high],
                ends=np.minimum(ends[low:high], high) - low,
                trunks=tuple(own),
                blocks=tuple((unit.start - low, unit.end - low) for unit in group if not unit.trunk),
                ancestors=tuple(replace(a, start=a.start - low, end=a.end - low) for a in seen[number]),
                drop=tuple(done),
            )
        )
    return packs


def _units(trie: Trie, ends: Ints, rows: int, size: int) -> list[_Unit]:
    """Return trunks and blocks in order of their rows."""
    starts = [*trie.starts.tolist(), trie.rows]
    parents = trie.parents.tolist()
    units: list[_Unit] = []
    segment = 0
    while segment < len(parents):
        start, parent, end = starts[segment], parents[segment], int(ends[starts[segment]])
        if end - start <= size:
            last = units[-1] if units else None
            if (
                last
                and not last.trunk
                and (last.parent, last.end) == (parent, start)
                and end - last.start <= min(size, MERGED_ROWS)
            ):
                units[-1] = last._replace(end=end)
            else:
                units.append(_Unit(False, start, end, parent))
            while starts[segment] < end:
                segment += 1
        else:
            segment += 1
            while start < starts[segment]:
                end = min(starts[segment], start + rows)
                units.append(_Unit(True, start, end, parent))
                start, parent = end, end - 1
    return units


def _groups(units: list[_Unit], rows: int) -> list[list[_Unit]]:
    groups: list[list[_Unit]] = []
    for unit in units:
        if groups and unit.end - groups[-1][0].start <= rows:
            groups[-1].append(unit)
        else:
            groups.append([unit])
    return groups


def _ancestors(group: list[_Unit], trunks: list[_Unit], first_rows: list[int], positions: Ints) -> list[Ancestor]:
    """Return which prefixes of the trunks above a pack's rows see; row numbers are the trie's."""
    # Trunk -> (length, start, end) of the range that is not complete yet.
    growing: dict[int, tuple[int, int, int]] = {}
    ancestors: list[Ancestor] = []

    def complete(trunk: int) -> None:
        length, start, end = growing.pop(trunk)
        depth = int(positions[first_rows[trunk]])
        ancestors.append(Ancestor(trunk=trunk, length=length, depth=depth, start=start, end=end))

    for unit in group:
        above: dict[int, int] = {}
        parent = unit.parent
        while parent >= 0:
            trunk = int(np.searchsorted(first_rows, parent, side="right")) - 1
            above[trunk] = parent - trunks[trunk].start + 1
            parent = trunks[trunk].parent
        for trunk in [trunk for trunk, (length, _, _) in growing.items() if above.get(trunk) != length]:
            complete(trunk)
        for trunk, length in above.items():
            growing[trunk] = (length, growing[trunk][1] if trunk in growing else unit.start, unit.end)
    for trunk in list(growing):
        complete(trunk)
    return ancestors
