"""Token sequences as a prefix trie: every shared prefix is stored once. NumPy only, no model.

A row is one token after one history. Rows are numbered in depth-first order of the sorted sequences, so that

* all descendants of a row follow it without a gap: the rows from it to its *end*;
* a sequence is a chain of at most one range of rows per branching point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evalsvc.records.shards import Tokens, Trie
from evalsvc.records.vocabulary import Ints


def in_order(sequences: Sequence[Tokens]) -> list[int]:
    """Return the indices of the sequences in lexicographic order of their tokens; equal ones keep their order."""
    keys = [sequence.astype(">u4").tobytes() for sequence in sequences]
    return sorted(range(len(sequences)), key=keys.__getitem__)


def common(first: Tokens, second: Tokens) -> int:
    """Return the length of the common prefix of two sequences."""
    n = min(len(first), len(second))
    differs = first[:n] != second[:n]
    at = int(differs.argmax()) if n else 0
    return at if n and differs[at] else n


def build(sequences: Sequence[Tokens], counts: Sequence[int]) -> tuple[Trie, list[Tokens]]:
    """Return the trie of some sequences, and for each sequence the rows of its last `counts[i]` tokens."""
    tokens: list[Tokens] = []
    starts: list[int] = []
    depths: list[int] = []
    parents: list[int] = []
    path = np.zeros(max((len(sequence) for sequence in sequences), default=0), np.int32)
    rows_of: list[Tokens] = [path[:0]] * len(sequences)
    previous = path[:0]
    rows = 0
    for index in in_order(sequences):
        sequence = sequences[index]
        length, shared = len(sequence), common(previous, sequence)
        if shared < length:
            starts.append(rows)
            depths.append(shared)
            parents.append(int(path[shared - 1]) if shared else -1)
            path[shared:length] = np.arange(rows, rows + length - shared)
            tokens.append(sequence[shared:])
            rows += length - shared
        rows_of[index] = path[length - counts[index] : length].copy()
        previous = sequence
    joined = np.concatenate(tokens).astype(np.int32) if tokens else np.zeros(0, np.int32)
    trie = Trie(joined, np.array(starts, np.int32), np.array(depths, np.int32), np.array(parents, np.int32))
    return trie, rows_of


def positions(trie: Trie) -> Ints:
    """Return the position in its sequence of every row, int64 [rows]."""
    offsets = trie.starts.astype(np.int64) - trie.depths
    return np.arange(trie.rows) - np.repeat(offsets, np.diff(trie.starts, append=trie.rows))


def parents(trie: Trie) -> Ints:
    """Return the parent of every row, int64 [rows]; -1 at the beginning of a sequence."""
    parents_of = np.arange(-1, trie.rows - 1)
    parents_of[trie.starts] = trie.parents
    return parents_of


def ends(trie: Trie) -> Ints:
    """Return for every row the next row that is not its descendant, int64 [rows]."""
    ends_of = np.empty(trie.rows, np.int64)
    stop = trie.rows
    # Segments to the right that may be the end of rows further left: nearest last, depths increasing.
    waiting = [(-1, trie.rows)]
    for start, depth in zip(trie.starts[::-1].tolist(), trie.depths[::-1].tolist(), strict=True):
        top = depth + stop - start - 1
        nearest = len(waiting) - 1
        while top >= depth:
            while waiting[nearest][0] > top:
                nearest -= 1
            low = max(depth, waiting[nearest][0])
            ends_of[start + low - depth : start + top - depth + 1] = waiting[nearest][1]
            top = low - 1
        while waiting[-1][0] >= depth:
            waiting.pop()
        waiting.append((depth, start))
        stop = start
    return ends_of


def prune_trie(trie: Trie, keep: Tokens) -> tuple[Trie, Ints]:
    """Return the smallest trie with the rows `keep`, and for each of its rows the row of `trie`."""
    segment_of = np.searchsorted(trie.starts, np.arange(trie.rows), side="right") - 1
    stops = trie.starts.astype(np.int64)  # end of the part of each segment that is kept, a prefix of it
    np.maximum.at(stops, segment_of[keep], keep.astype(np.int64) + 1)
    for segment in range(len(stops) - 1, -1, -1):
        parent = trie.parents[segment]
        if parent >= 0 and stops[segment] > trie.starts[segment]:
            above = segment_of[parent]
            stops[above] = max(stops[above], int(parent) + 1)
    lengths = stops - trie.starts
    kept = lengths > 0
    rows = np.flatnonzero(np.arange(trie.rows) < np.repeat(stops, np.diff(trie.starts, append=trie.rows)))
    parents = np.where(trie.parents[kept] >= 0, np.searchsorted(rows, trie.parents[kept]), -1)
    starts = np.cumsum(lengths[kept]) - lengths[kept]
    return Trie(trie.tokens[rows], starts.astype(np.int32), trie.depths[kept], parents.astype(np.int32)), rows


def mirror_trie(trie: Trie) -> tuple[Trie, Tokens]:
    """Return the trie in reverse order, the last sequence first, and the new row of each row of `trie`."""
    depths = positions(trie)
    # Before a row now come the rows that came after all of its descendants, and, as before, its ancestors.
    at = depths + trie.rows - ends(trie)
    above = np.empty(trie.rows, np.int64)
    above[at] = np.where(parents(trie) >= 0, at[parents(trie)], -1)
    tokens = np.empty_like(trie.tokens)
    tokens[at] = trie.tokens
    starts = np.flatnonzero((above != np.arange(-1, trie.rows - 1)) | (np.arange(trie.rows) == 0))
    depths_there = np.empty_like(depths)
    depths_there[at] = depths
    segments = (column.astype(np.int32) for column in (starts, depths_there[starts], above[starts]))
    return Trie(tokens, *segments), at.astype(np.int32)


def path(trie: Trie, row: int) -> Ints:
    """Return the rows from the root to `row`, int64 [position + 1]."""
    pieces = []
    while row >= 0:
        segment = int(np.searchsorted(trie.starts, row, side="right")) - 1
        pieces.append(np.arange(trie.starts[segment], row + 1))
        row = int(trie.parents[segment])
    return np.concatenate(pieces[::-1])
