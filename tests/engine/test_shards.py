"""Shards are a function of the plan alone."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from evalsvc.engine.shards import MAX_REQUESTS, cut
from evalsvc.records import Request

TEXT = st.text(max_size=30)
REQUESTS = st.lists(
    st.one_of(
        st.tuples(TEXT, TEXT).map(lambda a: Request.of("loglikelihood", a)),
        TEXT.map(lambda t: Request.of("loglikelihood_rolling", (t,))),
    ),
    max_size=60,
    unique_by=lambda r: r.digest,
)


@given(REQUESTS, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_nothing_is_lost(requests: list[Request], rng: random.Random) -> None:
    shuffled = list(requests)
    rng.shuffle(shuffled)
    shards = cut(requests)
    assert cut(shuffled) == shards
    assert sorted(r.digest for _, shard in shards for r in shard) == sorted(r.digest for r in requests)
    assert all(len({r.kind for r in shard}) == 1 for _, shard in shards)
    assert len({key for key, _ in shards}) == len(shards)


def test_choices_of_a_document_stay_together() -> None:
    requests = [
        Request.of("loglikelihood", (f"document {doc}", f" choice {choice}"))
        for doc in range(200)
        for choice in range(4)
    ]
    shards = cut(requests)
    assert len(shards) > 1
    assert all(len(shard) <= 2 * MAX_REQUESTS for _, shard in shards)
    for _, shard in shards:
        contexts = [request.arguments[0] for request in shard]
        assert all(contexts.count(context) == 4 for context in contexts)


def test_empty_contexts_are_not_one_document() -> None:
    requests = [Request.of("loglikelihood", ("", f"sentence {i}")) for i in range(3 * MAX_REQUESTS)]
    assert [len(shard) for _, shard in cut(requests)] == [MAX_REQUESTS] * 3
