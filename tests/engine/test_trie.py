"""Tries and packs hold every history once, and every row sees exactly its own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsvc.engine import trie as tries
from evalsvc.engine.packs import Pack, packs
from evalsvc.records.shards import Tokens, Trie

# Few letters, so that sequences share, nest and repeat.
SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=25)
SIZES = st.sampled_from([(4, 1), (4, 4), (8, 3), (16, 5), (1000, 256)])


def built(sequences: list[list[int]]) -> tuple[Trie, list[Tokens]]:
    return tries.build([np.array(s, np.int32) for s in sequences], [len(s) for s in sequences])


@given(SEQUENCES)
def test_rows_are_the_distinct_histories_in_order(sequences: list[list[int]]) -> None:
    trie, found = built(sequences)
    histories = sorted({tuple(s[: n + 1]) for s in sequences for n in range(len(s))})
    assert [tuple(trie.tokens[tries.path(trie, row)].tolist()) for row in range(trie.rows)] == histories
    for sequence, rows in zip(sequences, found, strict=True):
        assert [histories[row] for row in rows] == [tuple(sequence[: n + 1]) for n in range(len(sequence))]
    assert tries.positions(trie).tolist() == [len(history) - 1 for history in histories]
    assert tries.parents(trie).tolist() == [
        histories.index(history[:-1]) if len(history) > 1 else -1 for history in histories
    ]
    for row, end in enumerate(tries.ends(trie)):
        below = [other[: len(histories[row])] == histories[row] for other in histories]
        assert end == row + sum(below)


@given(SEQUENCES, st.data())
def test_a_pruned_trie_is_the_trie_of_what_is_left(sequences: list[list[int]], data: st.DataObject) -> None:
    trie, found = built(sequences)
    kept = data.draw(st.lists(st.sampled_from(range(len(sequences))), min_size=1, unique=True))
    pruned, rows = tries.prune_trie(trie, np.concatenate([found[number][-1:] for number in kept]))
    expected, _ = built([sequences[number] for number in kept])
    assert pruned.tokens.tolist() == expected.tokens.tolist()
    assert tries.parents(pruned).tolist() == tries.parents(expected).tolist()
    assert tries.positions(pruned).tolist() == tries.positions(expected).tolist()
    assert trie.tokens[rows].tolist() == pruned.tokens.tolist()


@given(SEQUENCES)
def test_a_mirrored_trie_has_the_same_histories_in_the_opposite_order(sequences: list[list[int]]) -> None:
    trie, found = built(sequences)
    mirrored, at = tries.mirror_trie(trie)
    assert sorted(at.tolist()) == list(range(trie.rows))
    for sequence, rows in zip(sequences, found, strict=True):
        assert tries.path(mirrored, int(at[rows[-1]])).tolist() == at[rows].tolist()
        assert mirrored.tokens[at[rows]].tolist() == sequence
    assert tries.ends(mirrored)[at].tolist() == (at + tries.ends(trie) - np.arange(trie.rows)).tolist()
    again, back = tries.mirror_trie(mirrored)
    assert again.tokens.tolist() == trie.tokens.tolist()
    assert tries.parents(again).tolist() == tries.parents(trie).tolist()
    assert back[at].tolist() == list(range(trie.rows))


def seen(pack: Pack, spans: dict[int, tuple[int, int]]) -> list[set[int]]:
    """Return the rows of the trie that each row of a pack sees; `spans` holds the kept rows of earlier trunks."""
    rows: list[set[int]] = [set() for _ in pack.tokens]
    first = pack.first
    for trunk in pack.trunks:
        for row in range(trunk.start, trunk.end):
            rows[row] |= set(range(first + trunk.start, first + row + 1))
        spans[trunk.number] = (first + trunk.start, trunk.end - trunk.start)
    for start, end in pack.blocks:
        for row in range(start, end):
            rows[row] |= {first + other for other in range(start, row + 1) if row < pack.ends[other]}
    for ancestor in pack.ancestors:
        begin, length = spans[ancestor.trunk]
        assert ancestor.length <= length, "a trunk was dropped, or kept too short"
        for row in range(ancestor.start, ancestor.end):
            assert not rows[row] & set(range(begin, begin + ancestor.length)), "a key is seen twice"
            rows[row] |= set(range(begin, begin + ancestor.length))
    for trunk in pack.trunks:
        spans[trunk.number] = (first + trunk.start, trunk.keep)
    for number in pack.drop:
        del spans[number]
    return rows


@settings(deadline=None)
@given(SEQUENCES, SIZES)
def test_every_row_sees_its_history_once_and_nothing_else(sequences: list[list[int]], sizes: tuple[int, int]) -> None:
    trie, _ = built(sequences)
    spans: dict[int, tuple[int, int]] = {}
    visible: list[set[int]] = []
    positions = tries.positions(trie)
    for pack in packs(trie, *sizes):
        assert pack.first == len(visible)
        assert len(pack.tokens) <= sizes[0]
        for ancestor in pack.ancestors:
            assert positions[spans[ancestor.trunk][0]] == ancestor.depth if ancestor.trunk in spans else True
        visible += seen(pack, spans)
    assert [sorted(rows) for rows in visible] == [tries.path(trie, row).tolist() for row in range(trie.rows)]
    assert all(length == 0 for _, length in spans.values()), "states are kept that nobody needs"
