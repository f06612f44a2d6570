"""The store keeps each thing once, and gives back what it was given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evalsvc.records.arms import Arm, Cost
from evalsvc.records.plans import Failure, Plan, Response
from evalsvc.records.scores import Resamples
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.store.items import StoredItems
from evalsvc.store.store import Store
from tests.support.fakes import fake_loglikelihood, grade_plan, make_arm, make_plan
from tests.support.sampled import make_sampled_plan, sample_words

BASE = make_arm(1)
CHILD = make_arm(2, parent=BASE.checkpoint)
PLAN = make_plan()


def result(of: Arm, plan: Plan, count: int | None = None) -> ShardResult:
    requests = plan.requests[:count]
    answers = tuple(
        Response(
            request=r.digest,
            loglikelihood=fake_loglikelihood(of.checkpoint, r.digest),
            greedy=True,
            text=None,
            tokens=3,
            truncated=1,
        )
        for r in requests
    )
    return ShardResult(shard=Shard(key="k", arm=of, requests=tuple(r.digest for r in requests)), responses=answers)


@pytest.fixture
def store(db: Path) -> Store:
    store = Store(db)
    store.register([BASE, CHILD], [PLAN], "host:1")
    return store


def test_registering_again_adds_nothing(store: Store) -> None:
    before = store.runs()
    store.register([BASE, CHILD], [PLAN], "host:1")
    assert store.runs() == before
    assert [(run.arm.checkpoint.label, run.state, run.requests) for run in before] == [
        ("c1", "queued", 12),
        ("c2", "queued", 12),
    ]


def test_checkpoints_come_back_as_they_went_in(db: Path) -> None:
    rich = replace(
        CHILD.checkpoint, step=40, trajectory="run", cost=Cost(gpu_hours=1.5, train_tokens=10**12, peak_memory_gb=80.0)
    )
    store = Store(db)
    store.register([BASE, Arm(rich, CHILD.numerics)], [PLAN], "host:1")
    assert [stored.checkpoint for stored in store.arms()] == [BASE.checkpoint, rich]


def test_responses_come_back_exactly_and_are_kept_once(store: Store) -> None:
    first = result(BASE, PLAN, 5)
    store.commit([first], {(BASE.key, PLAN.digest): (5, 0)})
    changed = ShardResult(
        shard=first.shard, responses=tuple(Response(request=r.request, loglikelihood=-9.0) for r in first.responses)
    )
    store.commit([changed, result(BASE, PLAN, 7)], {})
    found = store.responses(BASE, PLAN)
    assert found == {r.request: r for r in result(BASE, PLAN, 7).responses}
    assert store.answered_requests([BASE, CHILD]) == {BASE.key: set(found), CHILD.key: set()}


def test_another_checkpoint_never_gets_the_bases_answers(store: Store) -> None:
    """A cache that is keyed by the request alone would hand an adapted model its base's scores."""
    store.commit([result(BASE, PLAN), result(CHILD, PLAN)], {})
    base, child = store.responses(BASE, PLAN), store.responses(CHILD, PLAN)
    assert base.keys() == child.keys()
    assert all(base[key].loglikelihood != child[key].loglikelihood for key in base)


def test_text_numbers_and_nothing_survive(store: Store) -> None:
    texts = ["", "line\nbreak", "émoji 🎉", "'; DROP TABLE runs; --", "\x00"]
    requests = PLAN.requests[: len(texts)]
    answers = tuple(Response(request=r.digest, text=text) for r, text in zip(requests, texts, strict=True))
    store.commit(
        [ShardResult(shard=Shard(key="k", arm=BASE, requests=tuple(r.digest for r in requests)), responses=answers)], {}
    )
    found = store.responses(BASE, PLAN)
    assert [found[request.digest].text for request in requests] == texts
    exact = Response(request=PLAN.requests[9].digest, loglikelihood=-0.1 - 2**-52, greedy=None)
    store.commit([ShardResult(shard=Shard(key="k", arm=BASE, requests=()), responses=(exact,))], {})
    assert store.responses(BASE, PLAN)[exact.request] == exact


def test_a_failure_is_kept_until_it_is_answered(store: Store) -> None:
    key = PLAN.requests[0].digest
    shard = Shard(key="k", arm=BASE, requests=(PLAN.requests[0].digest,))
    store.commit([ShardResult(shard=shard, failures=(Failure(key, "bad"),))], {(BASE.key, PLAN.digest): (0, 1)})
    assert [(run.answered, run.failed) for run in store.runs() if run.arm.digest == BASE.key] == [(0, 1)]
    (failed,) = StoredItems(store.path).failures(1, PLAN.digest)
    assert (failed.error, failed.requests) == ("bad", 1)
    store.commit([result(BASE, PLAN, 1)], {})
    assert StoredItems(store.path).failures(1, PLAN.digest) == []


def test_finishing_again_replaces_scores(store: Store) -> None:
    store.finish(BASE, PLAN, grade_plan(PLAN, [0, 0, 0, 0, 0, 0]))
    store.finish(BASE, PLAN, grade_plan(PLAN, [1, 0, 1, 0, 1, 0]))
    (found,) = store.results()
    assert (found.value, found.n, found.primary) == (0.5, 6, True)
    (scores,) = store.task_scores(1, [])[1]
    assert scores.values.tolist() == [1, 0, 1, 0, 1, 0]
    assert scores.weights is None
    assert np.array_equal(scores.samples, np.sort(scores.samples))


def test_resamples_come_back_as_they_were(store: Store) -> None:
    resamples = Resamples(levels=(0.1, 1 / 3, -2.0), draws="d", units=5, effective=4.5, has_clusters=True)
    graded = grade_plan(PLAN, [1, 0, 1, 0, 1, 0])
    store.finish(BASE, PLAN, replace(graded, results=(replace(graded.results[0], resamples=resamples),)))
    assert [result.resamples for result in store.results()] == [resamples]
    store.finish(BASE, PLAN, graded)
    assert [result.resamples for result in store.results()] == [None]


def test_arms_are_paired_on_the_newest_plan_that_the_base_has_finished(store: Store) -> None:
    larger = make_plan(n=8)
    store.register([BASE, CHILD], [larger], "host:1")
    for of in (BASE, CHILD):
        store.finish(of, PLAN, grade_plan(PLAN, [1] * 6))
    assert [len(t.values) for t in store.task_scores(1, [2])[2]] == [6]
    store.finish(BASE, larger, grade_plan(larger, [1] * 8))
    scores = store.task_scores(1, [2])
    assert [len(t.values) for t in scores[1]] == [8]
    assert scores[2] == []  # it has to be submitted on the larger plan first
    store.finish(CHILD, larger, grade_plan(larger, [0] * 8))
    found = store.task_scores(1, [2])
    assert [len(t.values) for t in found[2]] == [8]
    assert found[2][0].samples is found[1][0].samples  # asked the same, and so kept once
    assert {result.n for result in store.results()} == {8}


def test_plans_share_samples_and_requests(store: Store) -> None:
    store.register([BASE], [make_plan(n=8)], "host:1")
    with store._database.read() as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM samples), (SELECT count(*) FROM requests), "
            "(SELECT count(*) FROM plan_samples)"
        ).fetchone()
    assert counts == (8, 16, 14)


def test_suites_of_a_base_are_remembered(store: Store) -> None:
    store.register([BASE], [make_plan("other", text="else")], "host:1")
    assert store.suite_paths(BASE.checkpoint.digest) == ["/suites/s.yaml", "/suites/s.yaml"]
    assert store.suite_paths("sha256:unknown") == []


def test_results_are_those_of_whole_suites_never_of_an_interim_look(store: Store) -> None:
    look = replace(make_plan(n=4), digest="look", part_of=PLAN.digest)
    store.finish(BASE, PLAN, grade_plan(PLAN, [1.0] * 6))
    store.register([BASE], [look], "host:1")  # newer than the whole suite
    store.finish(BASE, look, grade_plan(look, [0.0] * 4))
    (result,) = store.results()
    assert (result.n, result.value) == (6, 1.0)


def test_arms_are_paired_on_whole_suites_unless_a_look_is_asked_for(store: Store) -> None:
    look = replace(make_plan(n=4), digest="look", part_of=PLAN.digest)
    store.register([BASE, CHILD], [look], "host:1")  # newer than the whole suite
    for arm in (BASE, CHILD):
        store.finish(arm, PLAN, grade_plan(PLAN, [1.0] * 6))
        store.finish(arm, look, grade_plan(look, [0.0] * 4))
    (scores,) = store.task_scores(1, [2])[2]
    assert scores.values.tolist() == [1.0] * 6
    (scores,) = store.task_scores(1, [2], plans=["look"])[2]
    assert scores.values.tolist() == [0.0] * 4


def test_tokens_per_query_are_those_of_the_newest_whole_suite(db: Path) -> None:
    domain = make_plan("domain", role="domain")
    larger = replace(make_plan("domain", n=8, role="domain"), digest="larger")
    look = replace(make_plan("domain", n=4, role="domain"), digest="look", part_of=larger.digest)
    store = Store(db)
    for plan, tokens in ((domain, 10.0), (larger, 20.0), (look, 90.0), (PLAN, 500.0)):
        store.register([BASE], [plan], "host:1", prompt_tokens={(BASE.key, plan.digest): tokens})
        store.finish(BASE, plan, grade_plan(plan, [1.0] * len(plan.tasks[0].samples)))
    assert [arm.checkpoint.cost.tokens_per_query for arm in store.arms()] == [20.0]


def test_sampled_answers_are_those_of_the_newest_whole_suite(db: Path) -> None:
    whole = make_sampled_plan(prompts=6, k=3)
    look = replace(make_sampled_plan(prompts=2, k=3), digest="look", part_of=whole.digest)
    store = Store(db)
    for plan in (whole, look):
        store.register([BASE], [plan], "host:1")
        sample_words(store, BASE, plan, words=4)
    (task,) = store.sampled_answers(1, [])[1]
    assert len(task.answers) == 6
