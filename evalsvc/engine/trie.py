"""Token sequences as a prefix trie: every shared beginning is one stretch of rows. NumPy only, no model.

A row is one token after one history. Rows are numbered in depth-first order of the sorted sequences, so that

* everything below a row follows it without a gap: the rows from it to its *end*;
* a sequence is a chain of at most one stretch of rows per branching on its way.
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
    """Return the number of tokens that two sequences have in common from the left."""
    n = min(len(first), len(second))
    differs = first[:n] != second[:n]
    at = int(differs.argmax()) if n else 0
    return at if n and differs[at] else n


def build(sequences: Sequence[Tokens], wanted: Sequence[int]) -> tuple[Trie, list[Tokens]]:
    """Return the trie of some sequences, and for each sequence the rows of its last `wanted[i]` tokens."""
    tokens: list[Tokens] = []
    starts: list[int] = []
    depths: list[int] = []
    parents: list[int] = []
    path = np.zeros(max((len(sequence) for sequence in sequences), default=0), np.int32)
    found: list[Tokens] = [path[:0]] * len(sequences)
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
        found[index] = path[length - wanted[index] : length].copy()
        previous = sequence
    joined = np.concatenate(tokens).astype(np.int32) if tokens else np.zeros(0, np.int32)
    made = Trie(joined, np.array(starts, np.int32), np.array(depths, np.int32), np.array(parents, np.int32))
    return made, found


def positions(trie: Trie) -> Ints:
    """Return the position in its sequence of every row, int64 [rows]."""
    offsets = trie.starts.astype(np.int64) - trie.depths
    return np.arange(trie.rows) - np.repeat(offsets, np.diff(trie.starts, append=trie.rows))


def parents(trie: Trie) -> Ints:
    """Return the row before every row, int64 [rows]; -1 at the beginning of a sequence."""
    found = np.arange(-1, trie.rows - 1)
    found[trie.starts] = trie.parents
    return found


def ends(trie: Trie) -> Ints:
    """Return for every row the first row that is not below it, int64 [rows]."""
    found = np.empty(trie.rows, np.int64)
    stop = trie.rows
    # Of the segments to the right, those that can still end something: nearest last, depths increasing to the right.
    waiting = [(-1, trie.rows)]
    for start, depth in zip(trie.starts[::-1].tolist(), trie.depths[::-1].tolist(), strict=True):
        top = depth + stop - start - 1
        nearest = len(waiting) - 1
        while top >= depth:
            while waiting[nearest][0] > top:
                nearest -= 1
            low = max(depth, waiting[nearest][0])
            found[start + low - depth : start + top - depth + 1] = waiting[nearest][1]
            top = low - 1
        while waiting[-1][0] >= depth:
            waiting.pop()
        waiting.append((depth, start))
        stop = start
    return found


def prune_trie(trie: Trie, wanted: Tokens) -> tuple[Trie, Ints]:
    """Return the trie of only what leads to the wanted rows, and the row of `trie` of each of its rows."""
    segment_of = np.searchsorted(trie.starts, np.arange(trie.rows), side="right") - 1
    stops = trie.starts.astype(np.int64)  # of what is kept of each segment, which is a beginning of it
    np.maximum.at(stops, segment_of[wanted], wanted.astype(np.int64) + 1)
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
    """Return the trie in the opposite order, the last sequence first, and where each row of `trie` stands in it."""
    depths = positions(trie)
    # What came after everything below a row now comes before it, and so do the rows above it, as ever.
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
