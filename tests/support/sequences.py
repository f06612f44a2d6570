"""Random requests as tokens, and the trie that the engine makes of them."""

from __future__ import annotations

import numpy as np

from evalsvc.engine import trie as tries
from evalsvc.records.shards import Likelihoods, Tokens

WINDOW = 96
VOCABULARY = 360
Item = tuple[list[int], list[int]]
"""Context and continuation."""


def make_sequences(rng: np.random.Generator) -> list[Item]:
    """Make random requests that nest, repeat, share all but a token, are one token long, or longer than the window."""

    def some(n: int) -> list[int]:
        return [int(token) for token in rng.integers(2, VOCABULARY, n)]

    stems = [some(int(rng.integers(1, 80))) for _ in range(2)]
    items: list[Item] = [([0], some(1)), (some(1), some(1))]
    for stem in stems:
        for _ in range(3):
            shared = stem[: int(rng.integers(1, len(stem) + 1))]
            items += [(shared, some(int(rng.integers(1, 6)))), (shared + some(int(rng.integers(1, 9))), some(2))]
        items += [items[-1], (stem, items[-1][1]), (stem, [*items[-1][1][:1], *some(1)])]
        items.append((stem + some(WINDOW), some(3)))
    return items


def build_work(items: list[Item]) -> Likelihoods:
    """Build the trie of some requests, cut to the window as lm-eval cuts them."""
    inputs = [np.array((context + target)[-(WINDOW + 1) :][:-1], np.int32) for context, target in items]
    targets: list[Tokens] = [np.array(target, np.int32) for _, target in items]
    trie, rows = tries.build(inputs, [len(target) for target in targets])
    n = len(items)
    owners = np.repeat(np.arange(n, dtype=np.int32), [len(target) for target in targets])
    return Likelihoods(
        trie=trie,
        rows=np.concatenate(rows),
        targets=np.concatenate(targets),
        owners=owners,
        rolling=np.zeros(n, bool),
        truncated=np.zeros(n, np.int32),
    )
