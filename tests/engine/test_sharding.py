"""Shards depend on requests and tokenizer alone, hold every token once, and come back from disk as they were."""

from __future__ import annotations

import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsvc.engine import sharding, unpacked
from evalsvc.engine import trie as tries
from evalsvc.engine.encoding import Encoder, Scored
from evalsvc.engine.sharding import Cut, Cutter, cut_requests
from evalsvc.records.arms import Checkpoint
from evalsvc.records.plans import Request
from evalsvc.records.shards import Likelihoods
from tests.support import fakes, tiny

ENCODER = Encoder(tiny.make_tokenizer(), tiny.make_llama().config)
TEXT = st.text(max_size=30)
SETTINGS = '{"max_gen_toks":8,"until":["x"]}'
REQUESTS = st.lists(
    st.one_of(
        st.tuples(TEXT, TEXT).map(lambda a: Request.of("loglikelihood", a)),
        TEXT.map(lambda t: Request.of("loglikelihood_rolling", (t,))),
        TEXT.map(lambda t: Request.of("generate_until", (t, SETTINGS))),
    ),
    max_size=60,
    unique_by=lambda r: r.digest,
)


def flat(work: Any) -> list[Any]:
    """Return everything that a record of arrays holds, comparable."""
    values = [getattr(work, field.name) for field in fields(work)]
    return [v.tolist() if isinstance(v, np.ndarray) else v if isinstance(v, tuple) else flat(v) for v in values]


def content(made: Cut) -> Any:
    return [(made.digests(part), flat(part.work)) for part in made.slices], made.refused


@settings(deadline=None, max_examples=40)
@given(REQUESTS, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_nothing_is_lost(requests: list[Request], rng: random.Random) -> None:
    shuffled = list(requests)
    rng.shuffle(shuffled)
    made = cut_requests(requests, ENCODER)
    assert content(cut_requests(shuffled, ENCODER)) == content(made)
    assert sorted([key for part in made.slices for key in made.digests(part)] + list(made.refused)) == sorted(
        r.digest for r in requests
    )


@settings(deadline=None, max_examples=40)
@given(REQUESTS)
def test_the_trie_holds_exactly_the_encoded_tokens(requests: list[Request]) -> None:
    made = cut_requests(requests, ENCODER)
    by_digest = {request.digest: request for request in requests}
    for part in made.slices:
        if not isinstance(part.work, Likelihoods):
            continue
        owners, items = unpacked.items_of(part.work)
        digests = made.digests(part)
        for owner, item in zip(owners, items, strict=True):
            request = by_digest[digests[owner]]
            if request.kind == "loglikelihood":
                (expected,) = ENCODER.loglikelihood([request])
                assert isinstance(expected, Scored)
                assert item.tokens.tolist() == expected.tokens.tolist()
                assert item.targets.tolist() == expected.targets.tolist()
        rows = {tuple(part.work.trie.tokens[tries.path(part.work.trie, row)]) for row in range(part.work.trie.rows)}
        assert len(rows) == part.work.trie.rows, "a history stands in the trie twice"


def test_a_shard_ends_where_little_is_shared(monkeypatch: Any) -> None:
    monkeypatch.setattr(sharding, "SHARD_ROWS", 40)
    requests = [
        Request.of("loglikelihood", (f"{word} " * 20 + f"number {n}", f" {choice}"))
        for word in ("cat", "dog", "sun")
        for n in range(12)
        for choice in ("one", "two", "three")
    ]
    made = cut_requests(requests, ENCODER)
    assert len(made.slices) == 3
    texts = {r.digest: r.arguments[0].split()[0] for r in requests}
    assert all(len({texts[key] for key in made.digests(part)}) == 1 for part in made.slices)
    separate = sum(
        cut_requests([r for r in requests if texts[r.digest] == word], ENCODER).rows for word in ("cat", "dog", "sun")
    )
    assert made.rows == separate


def test_a_cut_is_kept_on_disk_and_a_damaged_one_is_made_again(tmp_path: Path, base: Checkpoint) -> None:
    requests = [
        *(Request.of("loglikelihood", ("the cat", f" {n}")) for n in range(5)),
        Request.of("loglikelihood", ("a", " cat" * 500)),
        Request.of("loglikelihood_rolling", ("one two three " * 90,)),
        Request.of("generate_until", ("the dog", SETTINGS)),
    ]
    plan = fakes.make_bare_plan(requests)
    made = Cutter(tmp_path).cut_plan(plan, base)
    assert list(made.refused) == [requests[5].digest]
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = Cutter(tmp_path).cut_plan(plan, base)
    assert content(again) == content(made)
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:-200])
    assert content(Cutter(tmp_path).cut_plan(plan, base)) == content(made)
