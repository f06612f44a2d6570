"""The same evidence under another margin, level or size; and the cheapest arm that passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from evalsvc.analysis.compare import compare_task
from evalsvc.errors import UsageError
from evalsvc.gating import advisor, evidence
from evalsvc.gating.advisor import Terms, advise, order_by_cost
from evalsvc.gating.evidence import gather_all
from evalsvc.gating.policy import Policy, RetentionRule
from evalsvc.gating.rules import build_rules
from evalsvc.gating.verdict import decide
from evalsvc.gating.what_if import power_curve, recompute_under
from evalsvc.records.arms import Cost
from evalsvc.records.comparisons import Comparison
from evalsvc.records.methods import find_rung
from evalsvc.store.arms import find_family
from evalsvc.store.database import Database
from evalsvc.store.decisions import Decisions
from evalsvc.store.store import Store
from tests.support.evidence import CHILD, binary, fill, pair
from tests.support.fakes import arm


def comparison(lost: int, gained: int, n: int) -> Comparison:
    made = pair("facts", "easy", binary(lost, gained, n))
    return compare_task(made.base, made.adapted)


@pytest.mark.parametrize(("lost", "gained", "n"), [(9, 4, 400), (30, 2, 400), (12, 11, 300), (0, 0, 100)])
@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_as_things_are_it_says_what_the_gate_says(lost: int, gained: int, n: int, margin: float) -> None:
    made = pair("facts", "easy", binary(lost, gained, n))
    policy = Policy(version=1, retention=(RetentionRule(suite="facts", margin=margin),))
    (rule,) = decide(policy, build_rules(policy, [made]), [], "sha256:1", date(2026, 1, 1)).rules
    found = recompute_under([made.comparison], margin, 0.05)
    assert found.verdict == rule.verdict
    assert (found.low, found.high) == pytest.approx((rule.low, rule.high))
    assert found.p_pass == pytest.approx(rule.p_pass)


def test_more_items_decide_what_few_could_not() -> None:
    few = recompute_under([comparison(4, 3, 60)], 0.05, 0.05)
    many = recompute_under([comparison(4, 3, 60)], 0.05, 0.05, 20.0)
    assert (few.verdict, many.verdict) == ("inconclusive", "pass")
    assert many.estimate == pytest.approx(few.estimate)
    assert many.n == 1200


def test_power_rises_with_items_and_is_80_percent_where_it_says() -> None:
    tasks = [comparison(12, 12, 240)]
    curve = power_curve(tasks, 0.05, 0.05, (0.5, 1.0, 2.0, 4.0))
    assert [power for _, power in curve] == sorted(power for _, power in curve)
    found = recompute_under(tasks, 0.05, 0.05)
    assert recompute_under(tasks, 0.05, 0.05, found.needed_n / 240).power == pytest.approx(0.8, abs=0.005)
    # (1.645 + 0.842)^2 * discordance 0.1 / 0.05^2, see stats.power
    assert found.needed_n == pytest.approx(248, abs=3)


@pytest.mark.parametrize(("margin", "alpha", "factor"), [(0.0, 0.05, 1.0), (0.05, 0.5, 1.0), (0.05, 0.05, 0.0)])
def test_what_cannot_be_asked_is_refused(margin: float, alpha: float, factor: float) -> None:
    with pytest.raises(UsageError, match="margin between 0 and 1"):
        recompute_under([comparison(4, 3, 60)], margin, alpha, factor)


def test_kinds_and_costs_order_arms(db: Path) -> None:
    methods = {"icl": "icl", "rag": "rag", "lora": "peft", "ia3": "peft", "full": "full", "sft": "full", "cpt": "cpt"}
    for method, rung in methods.items():
        assert find_rung(replace(CHILD.checkpoint, method=method)) == rung
    fill(db, "facts", {"easy": binary(1, 1, 40)})
    child = Store(db).arms()[1]
    hours = [4.0, None, 2.0]
    arms = [
        replace(child, number=n, checkpoint=replace(child.checkpoint, cost=Cost(gpu_hours=h)))
        for n, h in enumerate(hours)
    ]
    assert [one.number for one in order_by_cost(arms)] == [2, 0, 1]


def test_the_cheapest_that_passes_is_taken(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = CHILD
    dear = replace(good, checkpoint=replace(arm(3, parent=arm(1).checkpoint).checkpoint, method="full", name="dear"))
    bad = replace(good, checkpoint=replace(arm(4, parent=arm(1).checkpoint).checkpoint, method="rag", name="bad"))
    items = np.arange(300)
    known = (items < 150).astype(float)  # the base is the same whichever arm is beside it
    for of, lost in ((bad, 60), (good, 1), (dear, 0)):
        fill(db, "domain", {"new": (known, (items < 230).astype(float))}, role="domain", adapted=of)
        fill(db, "facts", {"easy": (known, ((items >= lost) & (items < 150)).astype(float))}, adapted=of)
    store = Store(db)
    found = advise(
        store, find_family(store.arms()), Terms(learning=("domain",), retention=("facts",), min_gain=0.05, margin=0.05)
    )
    assert [(one.rung, one.verdict) for one in found.tried] == [
        ("base", "fail"),
        ("icl", "no arm"),
        ("rag", "fail"),
        ("peft", "pass"),
        ("full", "not needed"),
        ("cpt", "no arm"),
    ]
    assert found.chosen is not None
    assert found.chosen.arm == "c2"
    monkeypatch.setattr(advisor, "THOROUGH", 0)
    quick = advise(
        store, find_family(store.arms()), Terms(learning=("domain",), retention=("facts",), min_gain=0.05, margin=0.05)
    )
    assert [one.verdict for one in quick.tried] == ["fail", "no arm", "short", "pass", "not needed", "no arm"]
    assert quick.tried[2].reason == "retention/facts: -0.200, and more than -0.05 is asked"
    assert quick.chosen == found.chosen
    monkeypatch.setattr(evidence, "_AT_ONCE", 1)  # one arm's scores after the other
    assert (
        advise(
            store,
            find_family(store.arms()),
            Terms(learning=("domain",), retention=("facts",), min_gain=0.05, margin=0.05),
        )
        == quick
    )
    rejected = found.tried[2].decided_by
    assert rejected is not None
    assert rejected.rule == "retention/facts"
    assert store.arms()  # and nothing was decided for good:
    assert Decisions(db).chain(arm(1).checkpoint.digest) == []


def test_an_arm_whose_scores_are_gone_keeps_no_other_from_being_judged(db: Path) -> None:
    broken = replace(arm(3, parent=arm(1).checkpoint).checkpoint, method="rag", name="broken")
    for of in (CHILD, replace(CHILD, checkpoint=broken)):
        fill(db, "facts", {"easy": binary(0, 0, 300)}, adapted=of)
    with Database(db).write() as connection:
        connection.execute("DELETE FROM scores WHERE run = (SELECT max(run) FROM runs)")
    store = Store(db)
    policy = Terms(learning=(), retention=("facts",), margin=0.05).policy()
    family = find_family(store.arms())
    each = gather_all(store, policy, family.base, family.arms)
    found = {arm.label: given for arm, given in zip(family.arms, each, strict=True)}
    assert str(found["broken"]) == "facts/easy: broken has no scores; submit broken again"
    assert isinstance(found["c2"], evidence.Evidence)
