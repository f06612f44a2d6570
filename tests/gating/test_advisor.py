"""The cheapest arm that passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evalsvc.gating import advisor, evidence
from evalsvc.gating.advisor import Terms, advise, find_cost_group, order_by_cost
from evalsvc.gating.evidence import gather_all
from evalsvc.records.arms import Cost
from evalsvc.store.arms import find_family
from evalsvc.store.database import Database
from evalsvc.store.decisions import Decisions
from evalsvc.store.store import Store
from tests.support.evidence import CHILD, fill_store, make_binary
from tests.support.fakes import make_arm


def test_kinds_and_costs_order_arms(db: Path) -> None:
    methods = {"icl": "icl", "rag": "rag", "lora": "peft", "ia3": "peft", "full": "full", "rl": "full", "cpt": "cpt"}
    whole = replace(CHILD.checkpoint, base_path=None)
    for method, rung in methods.items():
        assert find_cost_group(replace(whole, method=method)) == rung
    assert find_cost_group(replace(CHILD.checkpoint, method="rl")) == "peft"  # an adapter trained by RL
    assert find_cost_group(replace(whole, method="our-own")) == "other"
    fill_store(db, "facts", {"easy": make_binary(1, 1, 40)})
    child = Store(db).arms()[1]
    hours = [4.0, None, 2.0]
    arms = [
        replace(child, number=n, checkpoint=replace(child.checkpoint, cost=Cost(gpu_hours=h)))
        for n, h in enumerate(hours)
    ]
    assert [one.number for one in order_by_cost(arms)] == [2, 0, 1]
    costs = [
        Cost(train_tokens=90, trainable_share=0.1),
        Cost(train_tokens=90, trainable_share=0.02),
        Cost(train_tokens=50, trainable_share=0.5),
        Cost(cpu_hours=0.5, train_tokens=1000),
    ]
    arms = [
        replace(child, number=n, checkpoint=replace(child.checkpoint, cost=cost, name=f"arm{n}"))
        for n, cost in enumerate(costs)
    ]
    assert [arm.number for arm in order_by_cost(arms)] == [3, 2, 1, 0]


def test_the_cheapest_that_passes_is_taken(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = CHILD
    dear = replace(
        good,
        checkpoint=replace(
            make_arm(3, parent=make_arm(1).checkpoint).checkpoint, method="full", name="dear", base_path=None
        ),
    )
    bad = replace(
        good, checkpoint=replace(make_arm(4, parent=make_arm(1).checkpoint).checkpoint, method="rag", name="bad")
    )
    items = np.arange(300)
    known = (items < 150).astype(float)  # the base is the same whichever arm is beside it
    for of, lost in ((bad, 60), (good, 1), (dear, 0)):
        fill_store(db, "domain", {"new": (known, (items < 230).astype(float))}, role="domain", adapted=of)
        fill_store(db, "facts", {"easy": (known, ((items >= lost) & (items < 150)).astype(float))}, adapted=of)
    store = Store(db)
    found = advise(
        store, find_family(store.arms()), Terms(learning=("domain",), retention=("facts",), min_gain=0.05, margin=0.05)
    )
    assert [(one.rung, one.verdict) for one in found.arms] == [
        ("base", "fail"),
        ("icl", "no arm"),
        ("rag", "fail"),
        ("peft", "pass"),
        ("full", "not needed"),
        ("cpt", "no arm"),
    ]
    assert found.choice is not None
    assert found.choice.arm == "c2"
    monkeypatch.setattr(advisor, "MAX_JUDGED", 0)
    quick = advise(
        store, find_family(store.arms()), Terms(learning=("domain",), retention=("facts",), min_gain=0.05, margin=0.05)
    )
    assert [one.verdict for one in quick.arms] == ["fail", "no arm", "short", "pass", "not needed", "no arm"]
    assert quick.arms[2].reason == "retention/facts: -0.200, must exceed -0.05"
    assert quick.choice == found.choice
    monkeypatch.setattr(evidence, "_BATCH_REQUESTS", 1)  # one arm's scores after the other
    assert (
        advise(
            store,
            find_family(store.arms()),
            Terms(learning=("domain",), retention=("facts",), min_gain=0.05, margin=0.05),
        )
        == quick
    )
    rejected = found.arms[2].decided_by
    assert rejected is not None
    assert rejected.rule == "retention/facts"
    assert store.arms()  # and nothing was decided for good:
    assert Decisions(db).chain(make_arm(1).checkpoint.digest) == []


def test_an_arm_whose_scores_are_gone_keeps_no_other_from_being_judged(db: Path) -> None:
    broken = replace(make_arm(3, parent=make_arm(1).checkpoint).checkpoint, method="rag", name="broken")
    for of in (CHILD, replace(CHILD, checkpoint=broken)):
        fill_store(db, "facts", {"easy": make_binary(0, 0, 300)}, adapted=of)
    with Database(db).write() as connection:
        connection.execute("DELETE FROM scores WHERE run = (SELECT max(run) FROM runs)")
    store = Store(db)
    policy = Terms(learning=(), retention=("facts",), margin=0.05).policy()
    family = find_family(store.arms())
    each = gather_all(store, policy, family.base, family.arms)
    found = {arm.label: given for arm, given in zip(family.arms, each, strict=True)}
    assert str(found["broken"]) == "facts/easy: broken has no scores; submit broken again"
    assert isinstance(found["c2"], evidence.Evidence)
