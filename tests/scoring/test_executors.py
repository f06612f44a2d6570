"""The same promises from every executor: in this process, on embedded Ray, on a running cluster of two nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalsvc.records.arms import Arm
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.scoring.executors import AffinityQueue, Executor, InProcessExecutor
from evalsvc.scoring.ray_executor import RayExecutor
from tests.support.fakes import FakeScorer, fake_loglikelihood, make_arm, make_checkpoint, make_plan

pytestmark = pytest.mark.slow

BASE = make_checkpoint(1)
REQUESTS = tuple(request.digest for request in make_plan().requests)


def shard(key: str, number: int = 1, **options: Any) -> Shard:
    return Shard(key=key, arm=make_arm(number, **options), requests=REQUESTS)


# --------------------------------------------------------------------------------------------------------------- queue


def drain(queue: AffinityQueue, held: Arm | None = None, others: tuple[str, ...] = ()) -> list[str]:
    keys = []
    while (taken := queue.take(held, others)) is not None:
        held = taken.arm
        keys.append(taken.key)
    return keys


def test_queue_prefers_the_held_checkpoint_then_its_base_then_the_oldest() -> None:
    queue = AffinityQueue(
        [shard("a1", 1), shard("b1", 2), shard("l1", 3, parent=BASE), shard("a2", 1), shard("l2", 4, parent=BASE)]
    )
    assert drain(queue, make_arm(3, parent=BASE)) == ["l1", "a1", "a2", "l2", "b1"]


def test_queue_prefers_weights_that_nobody_holds() -> None:
    queue = AffinityQueue([shard("a1", 1), shard("a2", 1), shard("b1", 2)])
    taken = queue.take(None, other_weights=["/models/1"])
    assert taken is not None
    assert taken.key == "b1"


def test_queue_helps_with_the_longest_line_when_all_weights_are_held() -> None:
    queue = AffinityQueue([shard("a1", 1), shard("b1", 2), shard("b2", 2)])
    taken = queue.take(None, other_weights=["/models/1", "/models/2"])
    assert taken is not None
    assert taken.key == "b1"


def test_queue_gives_back_what_was_put_back_and_counts() -> None:
    queue = AffinityQueue([shard("a1"), shard("a2")])
    first = queue.take(None)
    assert first is not None
    queue.put_back(first)
    assert len(queue) == 2
    assert drain(queue) == ["a1", "a2"]
    assert queue.take(None) is None


def test_two_workers_load_each_base_once() -> None:
    bases = [make_checkpoint(n) for n in (1, 2, 3)]
    shards = [
        shard(f"{base.name}/{adapter}/{i}", 10 * n + adapter, parent=base)
        for n, base in enumerate(bases, 1)
        for adapter in range(4)
        for i in range(6)
    ]
    queue, loads = AffinityQueue(shards), 0
    held: list[Arm | None] = [None, None]
    turn = 0
    while queue:
        other = held[1 - turn]
        taken = queue.take(held[turn], [other.weights] if other else [])
        assert taken is not None
        now = held[turn]
        loads += now is None or now.weights != taken.arm.weights
        held[turn] = taken.arm
        turn = 1 - turn
    assert loads <= 4


# ------------------------------------------------------------------------------------------------------------ contract


@pytest.fixture(scope="module", params=["in process", "embedded", "cluster"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "in process":
        with InProcessExecutor(FakeScorer) as started:
            yield started
        return
    if request.param == "cluster":
        os.environ["RAY_ADDRESS"] = request.getfixturevalue("two_nodes").address
    try:
        with RayExecutor(FakeScorer, workers=2) as started:
            yield started
    finally:
        os.environ.pop("RAY_ADDRESS", None)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A real cluster on this machine: a head without cores, and two nodes with one each."""
    from evalsvc.scoring.ray_executor import import_ray

    import_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def is_whole(result: ShardResult) -> bool:
    asked = set(result.shard.requests)
    told = [r.request for r in result.responses] + [f.request for f in result.failures]
    return sorted(told) == sorted(asked)


def test_every_shard_has_one_result_with_the_right_answers(executor: Executor) -> None:
    shards = [shard(str(n), n % 3 + 1) for n in range(9)]
    results = list(executor.run(shards))
    assert sorted(r.shard.key for r in results) == sorted(s.key for s in shards)
    for result in results:
        assert is_whole(result)
        expected = {r: fake_loglikelihood(result.shard.arm.checkpoint, r) for r in REQUESTS}
        assert {r.request: r.loglikelihood for r in result.responses} == expected


def test_a_shard_that_raises_is_reported_and_the_rest_goes_on(executor: Executor) -> None:
    results = {r.shard.key: r for r in executor.run([shard("1"), shard("raise"), shard("2")])}
    assert set(results) == {"1", "raise", "2"}
    assert {failure.error for failure in results["raise"].failures} == {"ValueError: this shard is bad"}
    assert all(is_whole(result) for result in results.values())
    assert not results["1"].failures
    assert not results["2"].failures


def test_an_executor_runs_again(executor: Executor) -> None:
    assert list(executor.run([])) == []
    assert [result.shard.key for result in executor.run([shard("1")])] == ["1"]


def test_a_dead_worker_is_replaced_and_a_poisoned_shard_given_up(executor: Executor, tmp_path: Path) -> None:
    if isinstance(executor, InProcessExecutor):
        pytest.skip("this process cannot die and go on")
    shards = [shard(str(n), n % 2 + 1) for n in range(6)]
    shards += [shard("die", 3), shard(f"die once {tmp_path / 'mark'}", 4)]
    results = {r.shard.key: r for r in executor.run(shards)}
    assert len(results) == 8
    assert all(is_whole(result) for result in results.values())
    given_up = [key for key, result in results.items() if result.failures]
    assert given_up == ["die"]
    assert "given up after 3 workers died on it" in results["die"].failures[0].error


def test_work_of_a_lost_node_is_done_elsewhere(request: pytest.FixtureRequest, executor: Executor) -> None:
    if "RAY_ADDRESS" not in os.environ:
        pytest.skip("needs a cluster of several nodes")
    two_nodes = request.getfixturevalue("two_nodes")
    lost = next(iter(two_nodes.worker_nodes))  # one of two workers is on it: each node has one core
    results = []
    for result in executor.run([Shard(key="slow", arm=make_arm(n), requests=REQUESTS) for n in range(1, 16)]):
        results.append(result)
        if len(results) == 3:
            two_nodes.remove_node(lost, allow_graceful=False)
            two_nodes.add_node(num_cpus=1)
    assert len(results) == 15
    assert all(is_whole(result) and not result.failures for result in results)


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from evalsvc.errors import EvalsvcError

    monkeypatch.setenv("RAY_ADDRESS", "nonsense://nowhere")
    with (
        pytest.raises(EvalsvcError, match=r"Ray at RAY_ADDRESS .nonsense://nowhere. does not answer"),
        RayExecutor(FakeScorer),
    ):
        pass
