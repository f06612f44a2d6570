"""What is known of a checkpoint beyond its scores: findings about its files, and what adapting changed.

Kept in the store's file, by the checkpoint's digest; may be there before the checkpoint was ever scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from evalsvc.records.arms import Checkpoint, Finding
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.store.database import Database
from evalsvc.store.rows import build_record, fetch_rows


class Dossiers:
    """Findings and changes in a store's file."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        self._database = Database(path, wait)

    def keep_findings(self, checkpoint: Checkpoint, findings: Sequence[Finding]) -> None:
        """Keep what was found in a checkpoint's files, in place of what was found before."""
        columns = [[f.severity for f in findings], [f.check for f in findings], [f.text for f in findings]]
        with self._database.write() as connection:
            connection.execute("DELETE FROM findings WHERE checkpoint = ?", [checkpoint.digest])
            connection.execute(
                "INSERT INTO findings SELECT ?, unnest(?), unnest(?), unnest(?)", [checkpoint.digest, *columns]
            )

    def findings(self, checkpoint: Checkpoint) -> list[Finding]:
        """Return what was found in a checkpoint's files when it was last submitted."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT severity, check_name, text FROM findings WHERE checkpoint = ? ORDER BY rowid",
                [checkpoint.digest],
            ).fetchall()
        return [Finding(severity, check, checkpoint.label, text) for severity, check, text in rows]

    def keep_change(self, checkpoint: Checkpoint, change: WeightChange) -> None:
        """Keep how far a checkpoint's weights are from its base's."""
        names = [field.name for field in fields(TensorChange)]
        columns = [[getattr(tensor, name) for tensor in change.tensors] for name in names]
        columns[names.index("shape")] = [list(tensor.shape) for tensor in change.tensors]
        with self._database.write() as connection:
            for table in ("changes", "tensor_changes"):
                connection.execute(f"DELETE FROM {table} WHERE checkpoint = ?", [checkpoint.digest])
            connection.execute(
                "INSERT INTO changes VALUES (?, ?, ?, ?)",
                [checkpoint.digest, change.parameters, change.trainable, change.tolerance],
            )
            connection.execute(
                f"INSERT INTO tensor_changes SELECT ?, unnest(?){', unnest(?)' * len(names)}",
                [checkpoint.digest, list(range(len(change.tensors))), *columns],
            )

    def change(self, checkpoint: Checkpoint) -> WeightChange | None:
        """Return how far a checkpoint's weights are from its base's, None if that was never computed."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT parameters, trainable, tolerance FROM changes WHERE checkpoint = ?", [checkpoint.digest]
            ).fetchone()
            rows = fetch_rows(
                connection.execute(
                    "SELECT tensor AS name, shape, changed, base_norm, norm, rank_90, effective_rank "
                    "FROM tensor_changes WHERE checkpoint = ? ORDER BY position",
                    [checkpoint.digest],
                )
            )
        if row is None:
            return None
        tensors = tuple(build_record(TensorChange, row, shape=tuple(row["shape"])) for row in rows)
        return WeightChange(int(row[0]), int(row[1]), str(row[2]), tensors)
