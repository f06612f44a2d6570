"""Tables of items, imported and decided on: what counts once, what no rule can show, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evalsvc as ev
from evalsvc.errors import EvalsvcError, EvidenceError, UsageError
from evalsvc.stats.paired import tango_bounds
from tests.support.evidence import make_binary

Z = 1.6448536269514722
Arms = dict[str, np.ndarray]


def write_table(path: Path, arms: Arms, **columns: list[Any]) -> Path:
    """Write a table with one row per arm and item; further columns are per item, or per arm and item."""
    n = len(next(iter(arms.values())))
    rows = [(arm, str(i), float(value)) for arm, values in arms.items() for i, value in enumerate(values)]
    names, items, scores = zip(*rows, strict=True)
    more = {name: column if len(column) == len(rows) else column * len(arms) for name, column in columns.items()}
    assert all(len(column) == n * len(arms) for column in more.values())
    pq.write_table(pa.table({"arm": names, "item": items, "score": scores, **more}), path)
    return path


def import_table(db: Path, table: Path, suite: str, **options: Any) -> list[str]:
    """Import a table, and return the notes."""
    columns = {"arm": "arm", "item": "item", "value": "score", "base": "base"} | options
    report = ev.import_items(table, suite=suite, role=columns.pop("role", "general"), db=db, **columns)
    return [note for row in report.rows() for note in row["notes"]]


def decide(db: Path, policy: dict[str, Any], checkpoint: str = "x", **options: Any) -> dict[str, Any]:
    """Return the decision on a checkpoint that is the only candidate."""
    return ev.gate(checkpoint, policy=policy, db=db, batch_size=1, **options).to_dict()


def retain(*suites: str, margin: float = 0.05, **more: Any) -> dict[str, Any]:
    return {"version": 1, "retention": [{"suite": suite, "margin": margin} for suite in suites], **more}


@pytest.fixture
def arms() -> Arms:
    base, adapted = make_binary(12, 4, 200)
    return {"base": base, "x": adapted}


def test_items_under_three_names_of_a_suite_count_once(tmp_path: Path, db: Path, arms: Arms) -> None:
    table = write_table(tmp_path / "t.parquet", arms)
    assert import_table(db, table, "a") == []
    for suite in ("b", "c"):
        notes = import_table(db, table, suite)
        assert notes
        assert "200 items have the names of a/a, with scores that agree, and count once" in notes[0]
    (total,) = ev.compare("x", db=db).to_dict()["roles"]
    (low,), (high,) = tango_bounds(12, 4, 200, [Z])
    assert (total["low"], total["high"]) == pytest.approx((low, high), abs=1e-9)
    rule = decide(db, retain("a", "b", "c", group_margin=0.07))["rules"][-1]
    assert rule["rule"] == "retention/group"
    assert (rule["low"], rule["high"], rule["units"]) == pytest.approx((low, high, 200), abs=1e-9)
    assert rule["verdict"] == "inconclusive"


@pytest.mark.parametrize("change", ["none wrong", "one score", "another format"])
def test_copies_are_known_whatever_the_base_knows_and_although_scores_differ_a_little(
    tmp_path: Path, db: Path, arms: Arms, change: str
) -> None:
    first = arms if change != "none wrong" else {"base": np.ones(200), "x": np.array([0.0] * 4 + [1.0] * 196)}
    second = {name: values.copy() for name, values in first.items()}
    for place in {"none wrong": (), "one score": (7,), "another format": range(20, 200, 20)}[change]:
        second["x"][place] = 1 - second["x"][place]
        second["base"][place + 1] = (
            1 - second["base"][place + 1] if change == "another format" else first["base"][place]
        )
    for suite, scores in (("a", first), ("b", second)):
        notes = import_table(db, write_table(tmp_path / f"{suite}.parquet", scores), suite)
    assert "count once" in notes[0]
    rule = decide(db, retain("a", "b", group_margin=0.12))["rules"][-1]
    assert rule["units"] == 200


def test_a_cluster_is_one_in_all_tasks_of_its_suite(tmp_path: Path, db: Path, arms: Arms) -> None:
    tasks, passages = ["one"] * 100 + ["two"] * 100, [f"p{i % 20}" for i in range(200)]
    names = [f"{task}-{i}" for i, task in enumerate(tasks)]
    table = write_table(tmp_path / "t.parquet", arms, task=tasks, name=names, passage=passages)
    import_table(db, table, "s", item="name", task_column="task", cluster="passage")
    single = tmp_path / "single.duckdb"
    import_table(single, table, "s", item="name", cluster="passage")
    (rule,), (expected,) = (decide(store, retain("s", margin=0.3))["rules"] for store in (db, single))
    assert (rule["units"], rule["n"]) == (20, 200)
    assert (rule["low"], rule["high"]) == pytest.approx((expected["low"], expected["high"]), abs=1e-9)
    planned = ev.plan_gate("x", policy=retain("s", margin=0.3), db=db).to_dict()["rules"][0]
    assert planned["units"] == 20


def test_items_with_the_same_names_and_other_scores_are_other_items(tmp_path: Path, db: Path, arms: Arms) -> None:
    import_table(db, write_table(tmp_path / "a.parquet", arms), "a")
    others = dict(zip(arms, make_binary(12, 4, 200, seed=5), strict=True))
    assert import_table(db, write_table(tmp_path / "b.parquet", others), "b") == []
    rule = decide(db, retain("a", "b", group_margin=0.07))["rules"][-1]
    assert rule["units"] == 400


def test_tasks_of_one_table_with_the_same_items_count_once(tmp_path: Path, db: Path, arms: Arms) -> None:
    base, adapted = ({name: np.concatenate([values, values]) for name, values in arms.items()}[arm] for arm in arms)
    items = [str(i % 200) for i in range(400)]
    tasks = ["first"] * 200 + ["second"] * 200
    table = write_table(tmp_path / "t.parquet", {"base": base, "x": adapted}, task=tasks, name=items)
    notes = import_table(db, table, "s", item="name", task_column="task")
    assert any("second: 200 items have the names of s/first" in note for note in notes)
    (rule,) = decide(db, retain("s"))["rules"]
    assert rule["units"] == 200


def test_an_item_has_one_cluster(tmp_path: Path, db: Path, arms: Arms) -> None:
    contradictory = [f"c{i // 3}" for i in range(200)] + [f"d{i // 30}" for i in range(200)]
    table = write_table(tmp_path / "t.parquet", arms, cluster=contradictory)
    with pytest.raises(UsageError, match="item '0' of task 's' is in cluster 'c0' for 'base' and in 'd0' for 'x'"):
        import_table(db, table, "s", cluster="cluster")
    assert not db.exists()


def test_clusters_of_another_import_are_not_taken_for_the_first_ones(tmp_path: Path, db: Path, arms: Arms) -> None:
    base = write_table(tmp_path / "base.parquet", {"base": arms["base"]}, cluster=[f"c{i // 2}" for i in range(200)])
    both = write_table(tmp_path / "both.parquet", arms, cluster=[f"d{i // 30}" for i in range(200)])
    import_table(db, base, "s", cluster="cluster")
    import_table(db, both, "s", cluster="cluster")
    (rule,) = decide(db, retain("s", margin=0.9))["rules"]
    assert rule["units"] == 7


@pytest.mark.parametrize("incumbent", [None, "base"])
def test_losing_all_that_the_base_had_is_no_retention(tmp_path: Path, db: Path, incumbent: str | None) -> None:
    base = np.array([1.0] * 20 + [0.0] * 280)
    import_table(db, write_table(tmp_path / "t.parquet", {"base": base, "x": 0 * base}), "s")
    policy = retain("s", margin=0.12, **({"incumbent": {"margin": 0.12}} if incumbent else {}))
    report = decide(db, policy, incumbent=incumbent)
    assert report["verdict"] == "inconclusive"
    assert {rule["verdict"] for rule in report["rules"]} == {"inconclusive"}
    assert report["rules"][0]["blind_spots"] == ["s/s at 0.0667, within the margin"]
    assert report["rules"][0]["needed_n"] is None
    (planned,) = ev.plan_gate("x", policy=retain("s", margin=0.12), db=db).to_dict()["rules"]
    assert (planned["power"], planned["resolvable"], planned["needed_n"]) == (0.0, None, None)
    assert decide(db, retain("s", margin=0.03))["verdict"] == "fail"
    allowed = retain("s", margin=0.12, require={"allow_blind_spots": ["s"]})
    assert decide(db, allowed)["verdict"] == "pass"


def test_a_plan_and_its_gate_agree_on_unchanged_clusters(tmp_path: Path, db: Path) -> None:
    def judge(clusters: int) -> tuple[str, Any, Any]:
        store = tmp_path / f"{clusters}.duckdb"
        right = np.array([1.0, 1.0, 0.0, 1.0, 0.0] * clusters)
        names = [f"c{i // 5}" for i in range(5 * clusters)]
        import_table(
            store,
            write_table(tmp_path / "t.parquet", {"base": right, "x": right}, cluster=names),
            "s",
            cluster="cluster",
        )
        try:
            planned = ev.plan_gate("x", policy=retain("s", margin=0.2), db=store, batch_size=1).to_dict()["rules"][0][
                "power"
            ]
        except EvalsvcError as error:
            planned = str(error)
        try:
            report = decide(store, retain("s", margin=0.2))
        except EvalsvcError as error:
            return "refused", str(error), planned
        return report["verdict"], report["rules"][0]["needed_n"], planned

    assert [judge(count)[0] for count in (12, 13)] == ["refused", "pass"]
    refused = judge(11)
    assert "needs 13 independent documents or clusters" in refused[1]
    assert refused[2] == refused[1]


def test_scores_on_another_scale_are_never_averaged_with_those_in_the_unit_interval(
    tmp_path: Path, db: Path, arms: Arms
) -> None:
    rng = np.random.default_rng(2)
    points = rng.integers(20, 80, 30).astype(float)
    low = rng.random(30)  # within [0, 1] for the base only
    import_table(db, write_table(tmp_path / "a.parquet", arms), "a")
    import_table(db, write_table(tmp_path / "p.parquet", {"base": points, "x": points - rng.random(30)}), "p")
    import_table(db, write_table(tmp_path / "r.parquet", {"base": points, "x": points - 1}), "r")
    import_table(db, write_table(tmp_path / "q.parquet", {"base": low, "x": low + 5 * rng.random(30)}), "q")
    report = ev.compare("x", db=db).to_dict()
    tests = {task["suite"]: (task["unit"], task["test"]) for task in report["tasks"]}
    assert tests == {
        "a": ("score", "Tango score"),
        "p": ("raw score", "paired t"),
        "q": ("raw score", "paired t"),
        "r": ("raw score", "none"),  # without any variance nothing is known of what was not seen
    }
    assert {role["unit"]: role["tasks"] for role in report["roles"]} == {"score": 1, "raw score": 3}
    for suite in ("p", "q"):
        with pytest.raises(EvidenceError, match="a margin needs a mean of values in"):
            decide(db, retain(suite))


@pytest.mark.parametrize("kept", [200, 199, 150])
def test_candidates_are_counted_on_the_items_whatever_their_suite_is_called(
    tmp_path: Path, db: Path, arms: Arms, kept: int
) -> None:
    items = ["t"] * 200
    table = write_table(tmp_path / "t.parquet", {**arms, "y": arms["base"]}, task=items)
    part = {name: values[:kept] for name, values in arms.items()} | {"y": arms["base"][:kept]}
    again = write_table(tmp_path / "again.parquet", part, task=items[:kept])
    import_table(db, table, "s", task_column="task")
    import_table(db, again, "renamed", task_column="task")
    assert ev.gate("x", policy=retain("s", margin=0.1), db=db).to_dict()["candidate"]["number"] == 1
    assert ev.gate("y", policy=retain("renamed", margin=0.1), db=db).to_dict()["candidate"]["number"] == 2
    planned = ev.plan_gate("y", policy=retain("renamed", margin=0.1), db=db).to_dict()
    assert planned["candidate"]["number"] == 2


def test_other_items_than_the_base_are_named_as_such(tmp_path: Path, db: Path, arms: Arms) -> None:
    import_table(db, write_table(tmp_path / "base.parquet", {"base": arms["base"]}), "s")
    fewer = {"base": arms["base"], "x": arms["x"]}
    rows = pq.read_table(write_table(tmp_path / "t.parquet", fewer)).to_pylist()
    pq.write_table(
        pa.Table.from_pylist([r for r in rows if r["arm"] == "base" or int(r["item"]) < 180]), tmp_path / "u.parquet"
    )
    import_table(db, tmp_path / "u.parquet", "s")
    with pytest.raises(EvidenceError, match="x was imported with other items or clusters than base; import both"):
        decide(db, retain("s"))
