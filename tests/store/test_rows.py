"""Columns are read and written by name: a store whose tables have other columns, in another order, works the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from evalsvc.records.arms import Arm, Cost, Finding, Serving
from evalsvc.records.matrices import Matrix
from evalsvc.records.plans import Failure, Plan, Response
from evalsvc.records.serialise import to_plain
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.decisions import Decisions
from evalsvc.store.items import Filter, StoredItems
from evalsvc.store.runs import Runs
from evalsvc.store.store import Store
from tests.support.fakes import grade_plan, make_arm, make_plan

BASE = make_arm(1)
COST = Cost(
    gpu_hours=1.5,
    cpu_hours=6.5,
    train_tokens=2,
    peak_memory_gb=3.5,
    train_samples=4,
    annotation_cost=5.5,
    trainable_share=0.25,
)
ADAPTED = replace(make_arm(2, parent=BASE.checkpoint).checkpoint, step=40, trajectory="run", cost=COST)
CHILD = Arm(ADAPTED, BASE.numerics, Serving(True, "int8"))
FACTS = replace(make_plan(), files=(("/suites/s.yaml", "d1"),))
DOMAIN = make_plan("clinic", role="domain", text="medicine")
SAMPLED = make_plan("open", role="diversity", text="tell me")


def write_all(store: Store) -> None:
    """Write to every table, most of them twice: new rows, and rows whose key is there already."""
    for driver in ("host:1", "host:2"):
        store.register([BASE, CHILD], [FACTS, DOMAIN], driver, {(CHILD.key, DOMAIN.digest): 12.5})
    early = replace(FACTS, digest="early", part_of=FACTS.digest)
    store.register([BASE], [early], "host:3")
    store.add_plans([SAMPLED])
    for of, base in ((BASE, 1.0), (CHILD, 0.0)):
        for asked in (FACTS, DOMAIN):
            store.commit(_answers(of, asked), {(of.key, asked.digest): (11, 1)})
            store.finish(of, asked, grade_plan(asked, [base, 1, 0, 1, 0, 1]))
    store.copy_responses(BASE, CHILD, DOMAIN)
    store.fail(BASE, early, "stopped")
    sample = FACTS.tasks[0].samples[0].digest
    store.add_drift(CHILD, FACTS, "s_task", {sample: [0.5, 0.25]})
    matrix = Matrix(
        name="m", method="cpt", seed=3, source="/m", tasks=("a", "b"), scores=np.array([[1.0, 0], [0.5, 1]])
    )
    store.add_matrices([matrix])
    store.add_matrices([replace(matrix, untrained=np.array([0.1, 0.2]), joint=np.array([0.8, 0.9]))])
    facts = CheckpointFacts(store.path)
    tensor = TensorChange(name="w", shape=(2, 3), changed=1, base_norm=1.5, norm=2.5, rank_90=2, effective_rank=1.25)
    facts.keep_findings(ADAPTED, [Finding("note", "window", ADAPTED.label, "short")])
    facts.keep_change(ADAPTED, WeightChange(10, 4, "|x| > 1", (tensor, replace(tensor, name="b", rank_90=None))))
    previous = None
    for verdict in ("fail", "pass"):
        record = {"base": {"digest": "b"}, "checkpoint": {"digest": "c"}, "verdict": verdict}
        appended = Decisions(store.path).append(record, "evidence", previous)
        assert appended is not None
        previous = appended["digest"]


def _answers(of: Arm, asked: Plan) -> list[ShardResult]:
    keys = tuple(request.digest for request in asked.requests)
    answers = tuple(
        Response(request=key, loglikelihood=-float(n), greedy=n > 2, text=str(n), tokens=n, truncated=n + 1)
        for n, key in enumerate(keys[1:])
    )
    return [
        ShardResult(
            shard=Shard(key="k", arm=of, requests=keys), responses=answers, failures=(Failure(keys[0], "too long"),)
        )
    ]


def read_all(path: Path) -> dict[str, Any]:
    """Return what every method that reads returns, without times."""
    store, items, runs = Store(path), StoredItems(path), Runs(path)
    facts, decisions = CheckpointFacts(path), Decisions(path)
    plans = [FACTS.digest, DOMAIN.digest]
    request_lists = [items.list_requests(item.sample, 1, 2) for item in items.page(1, 2, Filter(suite="s")).items]
    return {
        "arms": store.arms(),
        "runs": [replace(run, created=None, updated=None) for run in store.runs()],  # type: ignore[arg-type]
        "results": store.results(),
        "responses": [store.responses(of, FACTS) for of in (BASE, CHILD)],
        "answered": store.answered_requests([BASE, CHILD]),
        "find_unscored": store.find_unscored([BASE, make_arm(9)]),
        "suite paths": store.suite_paths(BASE.checkpoint.digest),
        "scores": [[to_plain(task) for task in tasks] for tasks in store.task_scores(1, [2]).values()],
        "gains": store.mean_gains(1),
        "drifts": [[to_plain(task) for task in tasks] for tasks in store.drifts([1, 2]).values()],
        "matrices": [to_plain(matrix) for matrix in store.matrices()],
        "pages": [items.page(1, 2, Filter(text=text)) for text in ("", "0")],
        "requests": request_lists,
        "failures": [items.failures(number, FACTS.digest) for number in (1, 2)],
        "fingerprint": items.fingerprint()[2:],
        "texts": items.texts([1, 2, 3]),
        "planned runs": runs.of_arms([1, 2]),
        "files": runs.files(plans),
        "sizes": runs.task_sizes(plans),
        "samples": runs.sample_digests(plans),
        "suite path": runs.suite_path("clinic"),
        "findings": facts.findings(ADAPTED),
        "change": facts.change(ADAPTED),
        "decisions": decisions.chain("b"),
    }


def rebuild(path: Path, source: Path) -> None:
    """Copy a store to a file whose tables have their columns in the opposite order, and one more column."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"ATTACH '{source}' AS old (READ_ONLY)")
        tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'old'").fetchall()
        for (table,) in tables:
            described = connection.execute(
                "SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns() "
                "WHERE database_name = 'old' AND table_name = ? ORDER BY column_index DESC",
                [table],
            ).fetchall()
            columns = [
                f'"{name}" {kind}{"" if nullable else " NOT NULL"}{f" DEFAULT {default}" if default else ""}'
                for name, kind, nullable, default in described
            ]
            keys = connection.execute(
                "SELECT constraint_text FROM duckdb_constraints() WHERE database_name = 'old' AND table_name = ? "
                "AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')",
                [table],
            ).fetchall()
            definition = ", ".join(["added_later VARCHAR", *columns, *(text for (text,) in keys)])
            names = ", ".join(f'"{name}"' for name, *_ in described)
            connection.execute(f"CREATE TABLE {table} ({definition})")
            connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM old.{table} ORDER BY rowid")
            if table != "_migrations":
                connection.execute(f"ALTER TABLE {table} ADD COLUMN added_last DOUBLE")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "plain.duckdb"
    write_all(Store(path))
    return path


def test_every_table_is_written_to(written: Path) -> None:
    with duckdb.connect(str(written), read_only=True) as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        counts = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for (table,) in tables}
    assert all(counts.values()), counts


def test_records_do_not_depend_on_the_order_of_columns(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "rebuilt.duckdb"
    rebuild(other, written)
    before, after = read_all(written), read_all(other)
    for name, records in before.items():
        assert after[name] == records, name
        assert records, name
    (found,) = [stored.checkpoint for stored in Store(other).arms() if stored.number == 2]
    assert found == replace(ADAPTED, cost=replace(COST, tokens_per_query=12.5))


def test_writing_does_not_depend_on_the_order_of_columns(written: Path, tmp_path: Path) -> None:
    empty, other = tmp_path / "empty.duckdb", tmp_path / "rebuilt.duckdb"
    Store(empty).register([], [], "host:1")
    rebuild(other, empty)
    write_all(Store(other))
    before, after = read_all(written), read_all(other)
    for name, records in before.items():
        assert after[name] == records, name
    looks = Runs(other)
    looks.remove_looks(["early"], BASE.key, BASE.key, "host:3")
    assert [run.digest for run in looks.of_arms([1])] == [FACTS.digest, DOMAIN.digest]
