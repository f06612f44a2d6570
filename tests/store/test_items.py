"""Items page by page: fates, filters, both arms' answers, failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evalsvc.errors import UsageError
from evalsvc.records.plans import Failure, Response
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.store.items import FATES, Filter, StoredItems
from evalsvc.store.store import Store
from tests.support.evidence import BASE, BITS, CHILD, fill_store, make_binary


@pytest.fixture
def browser(db: Path) -> StoredItems:
    """Two suites: 120 binary items of which 9 are lost and 4 gained, and 10 texts whose bits rise."""
    fill_store(db, "facts", {"easy": make_binary(9, 4, 120)})
    nats = -np.linspace(100, 200, 10)
    weights = np.full(10, 100.0)
    fill_store(db, "text", {"stories": (nats, nats - 5)}, role="drift", metric=BITS, weights=weights)
    return StoredItems(db)


def test_every_item_has_one_fate(browser: StoredItems) -> None:
    page = browser.page(1, 2, Filter(suite="facts"))
    assert sum(page.counts.values()) == page.total == 120
    assert page.counts["lost"] == 9
    assert page.counts["gained"] == 4
    assert [item.fate for item in page.items[:9]] == ["lost"] * 9  # the greatest loss first
    fates = {(1.0, 0.0): "lost", (0.0, 1.0): "gained", (1.0, 1.0): "kept", (0.0, 0.0): "never known"}
    for item in page.items:
        assert item.fate == fates[item.base, item.adapted]


def test_pages_hold_every_item_once(browser: StoredItems) -> None:
    seen = [item.sample for start in range(0, 130, 25) for item in browser.page(1, 2, Filter(), start, 25).items]
    assert len(seen) == len(set(seen)) == 130


def test_a_text_whose_bits_rise_is_lost(browser: StoredItems) -> None:
    # What is stored of a text is its log-likelihood in nats: bits per byte rise when it falls.
    page = browser.page(1, 2, Filter(suite="text"))
    assert page.counts == {"lost": 10}
    assert {item.gain for item in page.items} == {-5.0}


def test_filters(browser: StoredItems) -> None:
    assert browser.page(1, 2, Filter(fates=("lost",), suite="facts")).total == 9
    assert browser.page(1, 2, Filter(task="stories")).total == 10
    found = browser.page(1, 2, Filter(text="EASY 7?"))
    assert [item.doc for item in found.items] == ['{"question": "easy 7?"}']
    assert browser.page(1, 2, Filter(text="'; DROP TABLE scores; --")).total == 0
    assert browser.page(1, 2, Filter(text="%")).total == 0
    assert browser.page(1, 2, Filter(unparsed=True)).total == 0
    assert browser.page(1, 2, Filter(suite="facts"), 1000).items == ()
    with pytest.raises(UsageError, match="lost, gained, kept, never known"):
        browser.page(1, 2, Filter(fates=("forgotten",)))  # type: ignore[arg-type]
    assert len(FATES) == 4


def test_an_item_shows_both_arms_answers(browser: StoredItems) -> None:
    item = browser.page(1, 2, Filter(suite="facts")).items[0]
    (asked,) = browser.list_requests(item.sample, 1, 2)
    assert asked.arguments[0].startswith("facts easy")
    assert asked.base.loglikelihood == asked.adapted.loglikelihood == -1.0
    (missing,) = browser.list_requests(item.sample, 1, 99)
    assert missing.adapted.loglikelihood is None


def test_failed_requests_are_counted_by_reason(db: Path) -> None:
    made = fill_store(db, "facts", {"easy": make_binary(1, 1, 12)})
    late = replace(CHILD, checkpoint=replace(CHILD.checkpoint, digest="sha256:late"))
    store = Store(db)
    store.register([BASE, late], [made], "host:1")
    asked = [request.digest for request in made.requests]
    errors = ["out of memory"] * 3 + ["nan"]
    failures = tuple(Failure(request, error) for request, error in zip(asked[:4], errors, strict=True))
    answers = tuple(Response(request=request, loglikelihood=-1.0, greedy=True) for request in asked[4:])
    store.commit(
        [ShardResult(shard=Shard(key="k", arm=late, requests=tuple(asked)), responses=answers, failures=failures)],
        {(late.key, made.digest): (8, 4)},
    )
    number = next(arm.number for arm in store.arms() if arm.digest == late.key)
    found = StoredItems(db).failures(number, made.digest)
    assert [(failed.error, failed.requests) for failed in found] == [("out of memory", 3), ("nan", 1)]


def test_the_state_changes_when_a_run_is_finished(db: Path) -> None:
    fill_store(db, "facts", {"easy": make_binary(1, 1, 12)})
    before = StoredItems(db).fingerprint()
    assert StoredItems(db).fingerprint() == before
    fill_store(db, "more", {"easy": make_binary(1, 1, 12)})
    assert StoredItems(db).fingerprint() != before
