"""Decision records of a store.

Decisions about arms of one base form a chain: each record contains the digest of the previous one, and its own digest
covers all its content. A record that is changed, or removed from the middle, breaks the chain.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalsvc.records.digests import canonical, digest
from evalsvc.store.database import Database
from evalsvc.store.rows import NOW, fetch_row, fetch_rows, insert_row, next_number

Record = dict[str, Any]
"""A decision record: JSON."""


def record_digest(record: Record) -> str:
    """Return the digest of a record's content, without the key `digest`."""
    return digest("decision", canonical({key: value for key, value in record.items() if key != "digest"}))


class Decisions:
    """The decisions in a store."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        self._database = Database(path, wait)

    def append(self, record: Record, evidence: str, previous: str | None) -> Record | None:
        """Chain a record to the last one of its base, store it, and return it with its digest.

        Args:
            evidence: Digest of the base and the suite versions.
            previous: Digest of the last decision about an arm of this base that the record knows of. If there is a
                later one, nothing is stored and None is returned.
        """
        with self._database.write() as connection:
            last = fetch_row(
                connection.execute(
                    "SELECT digest FROM decisions WHERE base = ? ORDER BY decision DESC LIMIT 1",
                    [record["base"]["digest"]],
                )
            )
            if previous != (last["digest"] if last else None):
                return None
            # The digest is of the record after a round trip through JSON, so that it still matches when read back.
            chained: Record = json.loads(json.dumps({**record, "previous": previous}, default=str))
            chained["digest"] = record_digest(chained)
            values = {
                "digest": chained["digest"],
                "base": chained["base"]["digest"],
                "checkpoint": chained["checkpoint"]["digest"],
                "evidence": evidence,
                "verdict": chained["verdict"],
                "record": canonical(chained),
            }
            insert_row(
                connection, "decisions", values, {"decision": next_number("decisions", "decision"), "created": NOW}
            )
        return chained

    def chain(self, base: str) -> list[Record]:
        """Return all decision records about arms of a base, oldest first."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute("SELECT record FROM decisions WHERE base = ? ORDER BY decision", [base])
            )
        return [json.loads(row["record"]) for row in rows]
