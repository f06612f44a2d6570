"""Facts about checkpoints in the store other than scores: findings about their files, and weight changes.

They are stored under the checkpoint's digest, also before the checkpoint is scored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path

from evalsvc.records.arms import Checkpoint, Finding
from evalsvc.records.serialise import build_record
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.store.database import Database
from evalsvc.store.rows import fetch_row, fetch_rows, insert, insert_row

_TENSOR_COLUMNS = {"name": "tensor"}
"""Columns of `tensor_changes` whose names differ from the field of `TensorChange`."""


class CheckpointFacts:
    """Findings and weight changes in a store's file."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        self._database = Database(path, wait)

    def keep_findings(self, checkpoint: Checkpoint, findings: Sequence[Finding], suites: Collection[str] = ()) -> None:
        """Store the findings about a checkpoint; replaces earlier ones, except those about suites not in `suites`."""
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM findings WHERE checkpoint = ? AND (suite IS NULL OR list_contains(?::VARCHAR[], suite))",
                [checkpoint.digest, list(suites)],
            )
            insert(
                connection,
                "findings",
                {
                    "checkpoint": "$checkpoint",
                    "severity": "unnest($severity)",
                    "check_name": "unnest($check)",
                    "text": "unnest($text)",
                    "suite": "unnest($suite::VARCHAR[])",
                },
                values={
                    "checkpoint": checkpoint.digest,
                    "severity": [finding.severity for finding in findings],
                    "check": [finding.check for finding in findings],
                    "text": [finding.text for finding in findings],
                    "suite": [finding.suite for finding in findings],
                },
            )

    def findings(self, checkpoint: Checkpoint) -> list[Finding]:
        """Return the findings about a checkpoint, from its submissions."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    'SELECT severity, check_name AS "check", text, suite FROM findings '
                    "WHERE checkpoint = ? ORDER BY rowid",
                    [checkpoint.digest],
                )
            )
        return [build_record(Finding, row, checkpoint=checkpoint.label) for row in rows]

    def keep_change(self, checkpoint: Checkpoint, change: WeightChange) -> None:
        """Store the difference of a checkpoint's weights from its base's."""
        names = [field.name for field in fields(TensorChange)]
        columns = {name: [getattr(tensor, name) for tensor in change.tensors] for name in names}
        columns["shape"] = [list(tensor.shape) for tensor in change.tensors]
        with self._database.write() as connection:
            for table in ("changes", "tensor_changes"):
                connection.execute(f"DELETE FROM {table} WHERE checkpoint = ?", [checkpoint.digest])
            insert_row(
                connection,
                "changes",
                {
                    "checkpoint": checkpoint.digest,
                    "parameters": change.parameters,
                    "trainable": change.trainable,
                    "tolerance": change.tolerance,
                },
            )
            insert(
                connection,
                "tensor_changes",
                {
                    "checkpoint": "$checkpoint",
                    "position": "unnest($position)",
                    **{_TENSOR_COLUMNS.get(name, name): f"unnest(${name})" for name in names},
                },
                values={"checkpoint": checkpoint.digest, "position": list(range(len(change.tensors))), **columns},
            )

    def change(self, checkpoint: Checkpoint) -> WeightChange | None:
        """Return the difference of a checkpoint's weights from its base's, None if it was not computed."""
        with self._database.read() as connection:
            row = fetch_row(
                connection.execute(
                    "SELECT parameters, trainable, tolerance FROM changes WHERE checkpoint = ?", [checkpoint.digest]
                )
            )
            tensors = fetch_rows(
                connection.execute(
                    "SELECT tensor AS name, shape, changed, base_norm, norm, rank_90, effective_rank "
                    "FROM tensor_changes WHERE checkpoint = ? ORDER BY position",
                    [checkpoint.digest],
                )
            )
        if row is None:
            return None
        return build_record(
            WeightChange,
            row,
            tensors=tuple(build_record(TensorChange, tensor, shape=tuple(tensor["shape"])) for tensor in tensors),
        )
