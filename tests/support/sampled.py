"""Sampled answers to open prompts, in a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evalsvc.records.arms import Arm
from evalsvc.records.digests import canonical, digest
from evalsvc.records.plans import Plan, PlannedTask, Request, Response, Sample
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.store.store import Store
from tests.support.fakes import ACC, NUMERICS, grade_plan, make_arm, make_plan

BASE = make_arm(1)
SETTINGS = {"until": ["\n"], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0}


def make_sampled_plan(prompts: int, k: int) -> Plan:
    """Make a plan of open prompts with k sampled answers each."""
    requests, samples = [], []
    for i in range(prompts):
        repeats = [Request.of("generate_until", (f"prompt {i}", canonical(SETTINGS)), repeat) for repeat in range(k)]
        requests += repeats
        samples.append(
            Sample(
                digest=digest("open", str(i)),
                doc_id=i,
                doc=f'{{"i": {i}}}',
                target="",
                requests=tuple(r.digest for r in repeats),
            )
        )
    task = PlannedTask(
        name="open",
        group=None,
        version="1",
        output_type="generate_until",
        shots=0,
        metrics=(ACC,),
        weight=1.0,
        chance=None,
        samples=tuple(samples),
    )
    return replace(make_plan("open"), role="diversity", tasks=(task,), requests=tuple(requests), digest=f"open-{k}")


def sample_words(store: Store, of: Arm, plan: Plan, words: int, tokens: int = 5) -> None:
    """Answer every request with one of `words` words, chosen by the digests of request and checkpoint."""
    answers = tuple(
        Response(
            request=r.digest, text=f"word{int(digest(r.digest, of.key)[:8], 16) % words} and so on.", tokens=tokens
        )
        for r in plan.requests
    )
    store.commit([ShardResult(shard=Shard(key="k", arm=of, requests=()), responses=answers)], {})
    store.finish(of, plan, grade_plan(plan, [0.0] * len(plan.tasks[0].samples)))


def answer_texts(store: Store, of: Arm, plan: Plan, texts: Sequence[Sequence[str]]) -> None:
    """Answer the K requests of every prompt with these texts."""
    answers = tuple(
        Response(request=digest, text=text, tokens=5)
        for sample, given in zip(plan.tasks[0].samples, texts, strict=True)
        for digest, text in zip(sample.requests, given, strict=True)
    )
    store.commit([ShardResult(shard=Shard(key="k", arm=of, requests=()), responses=answers)], {})
    store.finish(of, plan, grade_plan(plan, [0.0] * len(plan.tasks[0].samples)))


def store_collapsed(db: Path) -> Store:
    """Store a base with many answers, an arm with two, which never ends."""
    store, item = Store(db), make_sampled_plan(40, 4)
    child = Arm(replace(make_arm(2, parent=BASE.checkpoint).checkpoint, name="full", method="full"), NUMERICS)
    store.register([BASE, child], [item], "h:1")
    sample_words(store, BASE, item, 1000)
    sample_words(store, child, item, 2, tokens=8)
    return store
