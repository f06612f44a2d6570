"""Evidence for gates: scores made to order, in memory or in a store."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalsvc.gating.rules import TaskPair
from evalsvc.gating.sequential import draw_place
from evalsvc.records.arms import Arm
from evalsvc.records.digests import digest
from evalsvc.records.plans import Metric, Plan, PlannedTask, Rendering, Request, Response, Sample
from evalsvc.records.scores import Graded, Result, Score, TaskScores
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.records.vocabulary import Aggregation, Role
from evalsvc.store.runs import driver_name
from evalsvc.store.store import Store
from tests.support.fakes import ACC, make_arm

Array = NDArray[np.float64]

BASE = make_arm(1)
CHILD = make_arm(2, parent=BASE.checkpoint)
BITS = Metric("bits_per_byte", "none", "bits_per_byte", False)


def make_binary(lost: int, gained: int, n: int, seed: int | None = 0) -> tuple[Array, Array]:
    """Return the base's and the adapted arm's scores with so many items lost and gained, in random order."""
    kept = (n - lost - gained) // 2
    base = np.concatenate([np.ones(lost), np.zeros(gained), np.ones(kept), np.zeros(n - lost - gained - kept)])
    adapted = np.concatenate([np.zeros(lost), np.ones(gained), base[lost + gained :]])
    order = np.arange(n) if seed is None else np.random.default_rng(seed).permutation(n)
    return base[order], adapted[order]


def make_task_scores(
    suite: str,
    task: str,
    values: Array,
    *,
    role: Role = "general",
    aggregation: Aggregation = "mean",
    metric: str = "acc",
    higher: bool = True,
    weights: Array | None = None,
    weight: float = 1.0,
) -> TaskScores:
    numbers = np.arange(len(values), dtype=np.int64)
    return TaskScores(
        suite=suite,
        role=role,
        task=task,
        metric=metric,
        filter="none",
        aggregation=aggregation,
        higher_is_better=higher,
        weight=weight,
        samples=numbers,
        documents=numbers + zlib.crc32(f"{suite}/{task}".encode()) * 2**20,
        values=values,
        weights=weights,
    )


def make_pair(suite: str, task: str, values: tuple[Array, Array], *, weight: float = 1.0) -> TaskPair:
    """Return a binary task of both arms, with the places of its items in a random order."""
    base, adapted = (make_task_scores(suite, task, v, weight=weight) for v in values)
    places = np.array([draw_place(f"{suite}/{task}/{n}") for n in range(len(values[0]))])
    return TaskPair(base, adapted, len(values[0]), places)


def make_text_pair(suite: str, task: str, base: Array, increase: float, seed: int = 0) -> TaskPair:
    """Return a task of texts of 100 bytes whose bits per byte rise by about `increase`."""
    noise = np.random.default_rng(seed).normal(0, 0.01, len(base))
    weights = np.full(len(base), 100.0)

    def made(level: Array) -> TaskScores:
        nats = -level * 100 * np.log(2)
        return make_task_scores(
            suite,
            task,
            nats,
            role="drift",
            aggregation="bits_per_byte",
            metric="bits_per_byte",
            higher=False,
            weights=weights,
        )

    return TaskPair(made(base), made(base + increase + noise), len(base))


# ---------------------------------------------------------------------------------------------------------- in a store

Values = Mapping[str, tuple[Array, Array]]
"""Task name to both arms' scores."""


def make_item_plan(
    suite: str, values: Values, role: Role = "general", metric: Metric = ACC, version: str = "1"
) -> Plan:
    """Return a plan with one request per item."""
    tasks, requests = [], []
    for task, (base, _) in values.items():
        asked = [Request.of("loglikelihood", (f"{suite} {task} {n}?", f" {version}")) for n in range(len(base))]
        requests += asked
        samples = tuple(
            Sample(
                digest=digest(suite, task, str(n), version),
                doc_id=n,
                doc=f'{{"question": "{task} {n}?"}}',
                target="yes",
                requests=(r.digest,),
            )
            for n, r in enumerate(asked)
        )
        tasks.append(
            PlannedTask(
                name=task,
                group=None,
                version=version,
                output_type="multiple_choice",
                shots=0,
                metrics=(metric,),
                weight=1.0,
                chance=None,
                samples=samples,
            )
        )
    identity = digest("plan", suite, version, *(s.digest for task in tasks for s in task.samples))
    return Plan(
        digest=identity,
        suite=suite,
        role=role,
        description="",
        suite_digest=digest("suite", suite, version),
        suite_path=f"/suites/{suite}.yaml",
        rendering=Rendering(),
        tasks=tuple(tasks),
        requests=tuple(requests),
    )


def grade_columns(of: Plan, values: Sequence[Array], weights: Array | None = None) -> Graded:
    """Return these scores as grading would."""
    found, results = {}, []
    for task, column in zip(of.tasks, values, strict=True):
        metric = task.metrics[0]
        found[task.name] = tuple(
            Score(
                sample=s.digest,
                metric=metric.name,
                filter=metric.filter,
                value=float(v),
                weight=None if weights is None else float(weights[n]),
            )
            for n, (s, v) in enumerate(zip(task.samples, column, strict=True))
        )
        level = float(np.mean(column))
        results.append(
            Result(
                task=task.name,
                metric=metric.name,
                filter="none",
                n=len(column),
                value=level,
                stderr=0.01,
                higher_is_better=metric.higher_is_better,
                primary=True,
            )
        )
    return Graded(tuple(results), found)


def answer_requests(store: Store, of: Arm, what: Plan, count: int | None = None) -> None:
    """Answer a plan's first requests."""
    requests = what.requests[:count]
    results = [
        ShardResult(
            shard=Shard(key="k", arm=of, requests=tuple(r.digest for r in requests)),
            responses=tuple(Response(request=r.digest, loglikelihood=-1.0, greedy=True) for r in requests),
        )
    ]
    store.commit(results, {(of.key, what.digest): (len(requests), 0)})


def fill_store(
    db: Path,
    suite: str,
    values: Values,
    *,
    role: Role = "general",
    adapted: Arm = CHILD,
    metric: Metric = ACC,
    weights: Array | None = None,
    version: str = "1",
) -> Plan:
    """Put both arms' finished runs on a suite into a store."""
    store = Store(db)
    made = make_item_plan(suite, values, role, metric, version)
    store.register([BASE, adapted], [made], driver_name())
    for of, position in ((BASE, 0), (adapted, 1)):
        answer_requests(store, of, made)
        store.finish(of, made, grade_columns(made, [pair[position] for pair in values.values()], weights))
    return made


def make_candidate(number: int) -> Arm:
    """Return another adapted arm."""
    return replace(CHILD, checkpoint=make_arm(number, parent=BASE.checkpoint).checkpoint)
