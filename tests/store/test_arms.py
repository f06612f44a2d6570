"""One checkpoint served in several ways is several arms, each held against the base that was served as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evalsvc.errors import EvidenceError
from evalsvc.records.arms import Arm, Cost, Serving
from evalsvc.store import arms as arms_module
from evalsvc.store.store import Store
from tests.support.fakes import NUMERICS, make_checkpoint, make_plan

BASE = make_checkpoint(1)
CHILD = make_checkpoint(2, parent=BASE)
INT8 = Serving(quantisation="int8")


@pytest.fixture
def store(db: Path) -> Store:
    made = Store(db)
    served = [Arm(BASE, NUMERICS), Arm(BASE, NUMERICS, INT8), Arm(CHILD, NUMERICS), Arm(CHILD, NUMERICS, INT8)]
    served += [Arm(CHILD, NUMERICS, Serving(merged=True)), Arm(CHILD, NUMERICS, Serving(True, "int8"))]
    made.register(served, [make_plan()], "host:1")
    return made


def test_arms_come_back_as_they_were_served(store: Store) -> None:
    labels = ["c1", "c1 (int8)", "c2", "c2 (int8)", "c2 (merged)", "c2 (int8, merged)"]
    assert [found.label for found in store.arms()] == labels
    assert store.arms()[-1].serving == Serving(True, "int8")
    for label in labels:
        assert arms_module.find_arm(store.arms(), label).label == label
    assert arms_module.find_arm(store.arms(), CHILD.path).label == "c2"
    assert arms_module.find_arm(store.arms(), CHILD.digest).label == "c2"


@pytest.mark.parametrize(
    ("adapted", "base"),
    [
        ("c2", "c1"),
        ("c2 (merged)", "c1"),
        ("c2 (int8)", "c1 (int8)"),
        ("c2 (int8, merged)", "c1 (int8)"),
        ("c1 (int8)", "c1"),
    ],
)
def test_what_is_quantised_is_held_against_the_quantised_base(store: Store, adapted: str, base: str) -> None:
    arms = store.arms()
    assert arms_module.find_base(arms, arms_module.find_arm(arms, adapted)).label == base


def test_quantisation_is_never_booked_as_forgetting(store: Store) -> None:
    families = {
        family.base.label: [member.label for member in family.arms]
        for family in arms_module.group_families(store.arms())
    }
    assert families == {
        "c1": ["c1 (int8)", "c2", "c2 (merged)"],
        "c1 (int8)": ["c2 (int8)", "c2 (int8, merged)"],
    }
    assert arms_module.find_family(store.arms(), "c1 (int8)").base.serving == INT8
    assert arms_module.find_family(store.arms(), "c1").base.serving == Serving()


def test_a_quantised_arm_without_its_reference(db: Path) -> None:
    store = Store(db)
    store.register([Arm(BASE, NUMERICS), Arm(CHILD, NUMERICS, INT8)], [make_plan()], "host:1")
    with pytest.raises(EvidenceError, match="was scored with other numerics or quantisation; submit c2"):
        arms_module.find_base(store.arms(), store.arms()[1])


def test_costs_are_filled_in_later(db: Path) -> None:
    store = Store(db)
    for cost in (Cost(gpu_hours=1.0), Cost(train_samples=7, annotation_cost=2.5), Cost(gpu_hours=3.0)):
        store.register([Arm(replace(CHILD, cost=cost), NUMERICS)], [make_plan()], "host:1")
    (found,) = store.arms()
    assert found.checkpoint.cost == Cost(gpu_hours=3.0, train_samples=7, annotation_cost=2.5)
