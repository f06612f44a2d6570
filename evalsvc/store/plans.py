"""Writes arms and plans to the database; what is already there is not added again.

The functions take a connection, so that `Store` can combine them in one transaction.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pyarrow as pa

from evalsvc.records.arms import DECLARED, Arm, Checkpoint
from evalsvc.records.digests import number_document
from evalsvc.records.plans import Plan, PlannedTask
from evalsvc.store.database import Connection
from evalsvc.store.rows import NOW, as_table, fetch_row, insert_row, insert_table, next_number

_FILES = {"path": pa.string(), "digest": pa.string()}
_REQUESTS = {
    "position": pa.int32(),
    "digest": pa.string(),
    "kind": pa.string(),
    "arguments": pa.list_(pa.string()),
    "repeat": pa.int32(),
}
_SAMPLES = {
    "position": pa.int32(),
    "digest": pa.string(),
    "task": pa.string(),
    "doc_id": pa.int64(),
    "doc": pa.string(),
    "target": pa.string(),
    "requests": pa.list_(pa.string()),
    "cluster": pa.string(),
    "document": pa.int64(),
}


def add_arm(connection: Connection, arm: Arm) -> None:
    """Add an arm and its checkpoint."""
    _add_checkpoint(connection, arm.checkpoint)
    values = {
        "digest": arm.key,
        "checkpoint": arm.checkpoint.digest,
        "numerics": arm.numerics.key(),
        "merged": arm.serving.merged,
        "quantisation": arm.serving.quantisation,
    }
    insert_row(connection, "arms", values, {"arm": next_number("arms", "arm")}, "ON CONFLICT DO NOTHING")


def _add_checkpoint(connection: Connection, checkpoint: Checkpoint) -> None:
    """Add a checkpoint; for a stored one, fill in what is now known of its training, and take its folder."""
    values = {field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint) if field.name != "cost"}
    cost = {name: getattr(checkpoint.cost, name) for name in DECLARED}
    known = [f"{name} = coalesce(excluded.{name}, {name})" for name in (*cost, "seed")]
    moved = [f"{name} = excluded.{name}" for name in ("path", "base_path", "tokenizer_path")]
    insert_row(
        connection,
        "checkpoints",
        {**values, **cost},
        {"created": NOW},
        f"ON CONFLICT (digest) DO UPDATE SET {', '.join([*known, *moved])}",
    )


def add_plan(connection: Connection, plan: Plan) -> None:
    """Add a plan with its tasks, samples and requests; for a stored one, update the paths of its files."""
    if (number := find_plan(connection, plan.digest)) is not None:
        _set_files(connection, plan, number)
        return
    values = {
        "digest": plan.digest,
        "suite": plan.suite,
        "role": plan.role,
        "description": plan.description,
        "suite_digest": plan.suite_digest,
        "suite_path": plan.suite_path,
        "template": plan.rendering.template,
        "system_prompt": plan.rendering.system_prompt,
        "part_of": plan.part_of,
    }
    insert_row(connection, "plans", values, {"plan": next_number("plans", "plan"), "created": NOW})
    number = find_plan(connection, plan.digest)
    assert number is not None
    for position, task in enumerate(plan.tasks):
        insert_row(connection, "tasks", {"plan": number, "position": position, **_task_columns(task)})
    _add_requests(connection, plan)
    _add_samples(connection, plan, number)
    _set_files(connection, plan, number)


def find_plan(connection: Connection, digest: str) -> int | None:
    """Return the number of a plan, None if the store does not have it."""
    row = fetch_row(connection.execute("SELECT plan FROM plans WHERE digest = ?", [digest]))
    return None if row is None else int(row["plan"])


def _task_columns(task: PlannedTask) -> dict[str, Any]:
    metric = task.metrics[0]
    return {
        "task": task.name,
        "task_group": task.group,
        "version": task.version,
        "output_type": task.output_type,
        "shots": task.shots,
        "metric": metric.name,
        "filter": metric.filter,
        "aggregation": metric.aggregation,
        "higher_is_better": metric.higher_is_better,
        "weight": task.weight,
        "chance": task.chance,
        "format_of": task.format_of,
    }


def _set_files(connection: Connection, plan: Plan, number: int) -> None:
    """Store the paths of a plan's files; the same content may have had other paths before."""
    connection.execute("DELETE FROM plan_files WHERE plan = ?", [number])
    files = as_table(
        _FILES, plan.files, path=[path for path, _ in plan.files], digest=[content for _, content in plan.files]
    )
    columns = {"plan": "$plan", "path": "i.path", "digest": "i.digest"}
    insert_table(connection, files, "plan_files", columns, values={"plan": number})


def _add_requests(connection: Connection, plan: Plan) -> None:
    insert_table(
        connection,
        as_table(_REQUESTS, plan.requests, position=range(len(plan.requests))),
        "requests",
        {
            "request": "(SELECT coalesce(max(request), 0) FROM requests) + row_number() OVER (ORDER BY i.position)",
            **{name: f"i.{name}" for name in ("digest", "kind", "arguments", "repeat")},
        },
        "FROM incoming i ANTI JOIN requests r ON r.digest = i.digest",
    )


def _add_samples(connection: Connection, plan: Plan, number: int) -> None:
    samples = [sample for task in plan.tasks for sample in task.samples]
    incoming = as_table(
        _SAMPLES,
        samples,
        position=[position for task in plan.tasks for position in range(len(task.samples))],
        task=[task.name for task in plan.tasks for _ in task.samples],
        document=[number_document(task.name, sample.doc) for task in plan.tasks for sample in task.samples],
    )
    insert_table(
        connection,
        incoming,
        "samples",
        {
            "sample": "(SELECT coalesce(max(sample), 0) FROM samples) "
            "+ row_number() OVER (ORDER BY i.task, i.position)",
            **{name: f"i.{name}" for name in ("digest", "task", "doc_id", "doc", "target")},
            "requests": "coalesce(n.requests, [])",
            "document": "i.document",
        },
        """
        FROM incoming i ANTI JOIN samples s ON s.digest = i.digest
        LEFT JOIN (
            SELECT u.digest, list(r.request ORDER BY u.place) AS requests
            FROM (
                SELECT f.digest, unnest(f.requests) AS request, generate_subscripts(f.requests, 1) AS place
                FROM incoming f ANTI JOIN samples s ON s.digest = f.digest
            ) u
            JOIN requests r ON r.digest = u.request GROUP BY u.digest
        ) n ON n.digest = i.digest
        """,
    )
    insert_table(
        connection,
        incoming.select(["digest", "task", "cluster"]),
        "plan_samples",
        {"plan": "$plan", "task": "i.task", "sample": "s.sample", "sample_cluster": "i.cluster"},
        "FROM incoming i JOIN samples s ON s.digest = i.digest",
        values={"plan": number},
    )
