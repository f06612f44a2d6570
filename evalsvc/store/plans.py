"""Arms and plans into the database: who is asked, and what. Each is added once, whoever registers it again.

The functions take a connection, so that `Store` can do all that belongs together in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

import pyarrow as pa

from evalsvc.records.arms import DECLARED, Arm, Checkpoint
from evalsvc.records.plans import Plan
from evalsvc.store.database import Connection


def add_arm(connection: Connection, arm: Arm) -> None:
    """Add an arm and its checkpoint."""
    _add_checkpoint(connection, arm.checkpoint)
    connection.execute(
        "INSERT INTO arms SELECT coalesce(max(arm), 0) + 1, ?, ?, ?, ?, ? FROM arms ON CONFLICT DO NOTHING",
        [arm.key, arm.checkpoint.digest, arm.numerics.key(), arm.serving.merged, arm.serving.quantisation],
    )


def _add_checkpoint(connection: Connection, checkpoint: Checkpoint) -> None:
    """Add a checkpoint; of one that is there already, what it cost is filled in."""
    cost = ", ".join(DECLARED)
    known = ", ".join(f"{name} = coalesce(excluded.{name}, {name})" for name in DECLARED)
    connection.execute(
        f"INSERT INTO checkpoints (digest, name, path, method, tokenizer, parent, base_path, step, trajectory, {cost}, "
        f"created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?{', ?' * len(DECLARED)}, now()::TIMESTAMP) "
        f"ON CONFLICT (digest) DO UPDATE SET {known}",
        [
            *(getattr(checkpoint, field.name) for field in fields(Checkpoint) if field.name != "cost"),
            *(getattr(checkpoint.cost, name) for name in DECLARED),
        ],
    )


def add_plan(connection: Connection, plan: Plan) -> None:
    """Add a plan with its tasks, samples and requests; of one that is there, say again which files it is from."""
    known = connection.execute("SELECT plan FROM plans WHERE digest = ?", [plan.digest]).fetchone()
    if known:
        _set_files(connection, plan, int(known[0]))
        return
    rendering = plan.rendering
    connection.execute(
        "INSERT INTO plans SELECT coalesce(max(plan), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, now()::TIMESTAMP, ? FROM plans",
        [
            plan.digest,
            plan.suite,
            plan.role,
            plan.description,
            plan.suite_digest,
            plan.suite_path,
            rendering.template,
            rendering.system_prompt,
            plan.part_of,
        ],
    )
    row = connection.execute("SELECT plan FROM plans WHERE digest = ?", [plan.digest]).fetchone()
    number = int(cast(tuple[int], row)[0])
    for position, task in enumerate(plan.tasks):
        metric = task.metrics[0]
        connection.execute(
            "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                *(number, task.name, position, task.group, task.version, task.output_type, task.shots),
                *(metric.name, metric.filter, metric.aggregation, metric.higher_is_better, task.weight, task.chance),
                task.format_of,
            ],
        )
    _add_requests(connection, plan)
    _add_samples(connection, plan, number)
    _set_files(connection, plan, number)


def _set_files(connection: Connection, plan: Plan, number: int) -> None:
    """Keep where a plan's files are now; the same content may have been elsewhere before."""
    connection.execute("DELETE FROM plan_files WHERE plan = ?", [number])
    files = as_table(["path", "digest"], [pa.string()] * 2, plan.files)
    insert(connection, files, f"INSERT INTO plan_files SELECT {number}, path, digest FROM incoming")


def _add_requests(connection: Connection, plan: Plan) -> None:
    rows = [(n, r.digest, r.kind, list(r.arguments), r.repeat) for n, r in enumerate(plan.requests)]
    kinds = [pa.int32(), pa.string(), pa.string(), pa.list_(pa.string()), pa.int32()]
    insert(
        connection,
        as_table(["position", "digest", "kind", "arguments", "repeat"], kinds, rows),
        """
        INSERT INTO requests
        SELECT (SELECT coalesce(max(request), 0) FROM requests) + row_number() OVER (ORDER BY position),
               digest, kind, arguments, repeat
        FROM incoming ANTI JOIN requests USING (digest)
        """,
    )


def _add_samples(connection: Connection, plan: Plan, number: int) -> None:
    rows = [
        (position, s.digest, task.name, s.doc_id, s.doc, s.target, list(s.requests), s.cluster)
        for task in plan.tasks
        for position, s in enumerate(task.samples)
    ]
    names = ["position", "digest", "task", "doc_id", "doc", "target", "requests", "cluster"]
    kinds = [pa.int32(), *[pa.string()] * 2, pa.int64(), *[pa.string()] * 2, pa.list_(pa.string()), pa.string()]
    incoming = as_table(names, kinds, rows)
    insert(
        connection,
        incoming,
        """
        INSERT INTO samples
        WITH fresh AS (SELECT * FROM incoming ANTI JOIN samples USING (digest)),
        asked AS (
            SELECT u.digest, list(r.request ORDER BY u.place) AS requests
            FROM (SELECT digest, unnest(requests) AS request, generate_subscripts(requests, 1) AS place FROM fresh) u
            JOIN requests r ON r.digest = u.request GROUP BY u.digest
        )
        SELECT (SELECT coalesce(max(sample), 0) FROM samples) + row_number() OVER (ORDER BY f.task, f.position),
               f.digest, f.task, f.doc_id, f.doc, f.target, coalesce(a.requests, [])
        FROM fresh f LEFT JOIN asked a USING (digest)
        """,
    )
    insert(
        connection,
        incoming.select(["digest", "task", "cluster"]),
        f"INSERT INTO plan_samples SELECT {number}, i.task, s.sample, i.cluster "
        "FROM incoming i JOIN samples s USING (digest)",
    )


def as_table(names: Sequence[str], kinds: Sequence[pa.DataType], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Return rows as a table of columns with these names and types."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)], names=list(names))


def insert(connection: Connection, incoming: pa.Table, statement: str) -> None:
    """Execute a statement that reads the table `incoming`."""
    connection.register("incoming", incoming)
    connection.execute(statement)
    connection.unregister("incoming")
