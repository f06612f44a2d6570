"""One checkpoint served in several ways is several arms, each held against the base that was served as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalsvc.errors import EvidenceError
from evalsvc.records.arms import Arm, Cost, Finding, Serving
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.store import arms as arms_module
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.database import Database
from evalsvc.store.migrations import MIGRATIONS
from evalsvc.store.store import Store
from tests.support.fakes import NUMERICS, arm, checkpoint, plan

BASE = checkpoint(1)
CHILD = checkpoint(2, parent=BASE)
INT8 = Serving(quantisation="int8")


@pytest.fixture
def store(db: Path) -> Store:
    made = Store(db)
    served = [Arm(BASE, NUMERICS), Arm(BASE, NUMERICS, INT8), Arm(CHILD, NUMERICS), Arm(CHILD, NUMERICS, INT8)]
    served += [Arm(CHILD, NUMERICS, Serving(merged=True)), Arm(CHILD, NUMERICS, Serving(True, "int8"))]
    made.register(served, [plan()], "host:1")
    return made


def test_the_usual_serving_has_the_key_that_arms_always_had() -> None:
    from evalsvc.records.digests import digest

    assert arm(1).key == digest(BASE.digest, NUMERICS.key())
    keys = {
        Arm(CHILD, NUMERICS, Serving(merged, kind)).key for merged in (False, True) for kind in (None, "int8", "nf4")
    }
    assert len(keys) == 6


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
    store.register([Arm(BASE, NUMERICS), Arm(CHILD, NUMERICS, INT8)], [plan()], "host:1")
    with pytest.raises(EvidenceError, match="was scored under other numerics or quantisation; submit c2"):
        arms_module.find_base(store.arms(), store.arms()[1])


# ------------------------------------------------------------------------------------------------------------ dossiers


def test_what_is_known_of_a_checkpoint_is_kept(db: Path) -> None:
    dossiers = CheckpointFacts(db)
    tensors = (
        TensorChange(name="a", shape=(2, 3), changed=1, base_norm=1.5, norm=2.5, rank_90=2, effective_rank=1.25),
        TensorChange(name="b", shape=(4,), changed=0, base_norm=1.0, norm=0.0),
    )
    for change in (
        WeightChange(10, 4, "|x| > 1", tensors),
        WeightChange(11, 4, "|x| > 1", tensors[:1]),
        WeightChange(11, 4, "-", ()),
    ):
        dossiers.keep_change(CHILD, change)
        assert dossiers.change(CHILD) == change
    assert dossiers.change(BASE) is None
    findings = [Finding("warning", "window", CHILD.label, "short"), Finding("note", "base-name", CHILD.label, "other")]
    dossiers.keep_findings(CHILD, findings)
    assert dossiers.findings(CHILD) == findings
    dossiers.keep_findings(CHILD, [])
    assert dossiers.findings(CHILD) == []


def test_costs_are_filled_in_later(db: Path) -> None:
    from dataclasses import replace

    store = Store(db)
    for cost in (Cost(gpu_hours=1.0), Cost(train_samples=7, annotation_cost=2.5), Cost(gpu_hours=3.0)):
        store.register([Arm(replace(CHILD, cost=cost), NUMERICS)], [plan()], "host:1")
    (found,) = store.arms()
    assert found.checkpoint.cost == Cost(gpu_hours=3.0, train_samples=7, annotation_cost=2.5)


def test_a_store_of_the_first_version_is_brought_up_to_date(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as old:
        old.setattr("evalsvc.store.database.MIGRATIONS", MIGRATIONS[:1])
        with Database(db).write() as connection:
            columns = "?, 'c1', '/models/1', 'base', 't', NULL, NULL, NULL, NULL, 1.5, NULL, NULL, now()::TIMESTAMP"
            connection.execute(f"INSERT INTO checkpoints VALUES ({columns})", [BASE.digest])
            connection.execute("INSERT INTO arms VALUES (1, ?, ?, ?)", [arm(1).key, BASE.digest, NUMERICS.key()])
    store = Store(db)
    store.upgrade()
    (found,) = store.arms()
    assert (found.label, found.serving, found.checkpoint.cost) == ("c1", Serving(), Cost(gpu_hours=1.5))
