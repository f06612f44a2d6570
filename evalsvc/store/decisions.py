"""Decision records of a store.

Decisions about arms of one base form a chain: each record contains the digest of the previous one, and its own digest
covers all its content. A record that is changed, or removed from the middle, breaks the chain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsvc.records.digests import canonical, digest
from evalsvc.records.serialise import build_record
from evalsvc.store.database import Database
from evalsvc.store.rows import NOW, fetch_row, fetch_rows, insert_row, next_number

Record = dict[str, Any]
"""A decision record: JSON."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A decision on the same base and suite versions."""

    digest: str
    checkpoint: str
    verdict: str
    p_pass: float | None


def record_digest(record: Record) -> str:
    """Return the digest of a record's content, without the key `digest`."""
    return digest("decision", canonical({key: value for key, value in record.items() if key != "digest"}))


class Decisions:
    """The decisions in a store."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        self._database = Database(path, wait)

    def append(self, record: Record, evidence: str, p_pass: float | None) -> Record:
        """Chain a record to the last one of its base, store it, and return it with its digest.

        Args:
            evidence: Digest of the base and the suite versions; attempts with the same digest are counted together.
            p_pass: p-value of the hypothesis that the checkpoint should not pass, if there is one.
        """
        with self._database.write() as connection:
            last = fetch_row(
                connection.execute(
                    "SELECT digest FROM decisions WHERE base = ? ORDER BY decision DESC LIMIT 1",
                    [record["base"]["digest"]],
                )
            )
            # The digest is of the record after a round trip through JSON, so that it still matches when read back.
            chained: Record = json.loads(
                json.dumps({**record, "previous": last["digest"] if last else None}, default=str)
            )
            chained["digest"] = record_digest(chained)
            values = {
                "digest": chained["digest"],
                "base": chained["base"]["digest"],
                "checkpoint": chained["checkpoint"]["digest"],
                "evidence": evidence,
                "verdict": chained["verdict"],
                "p_pass": p_pass,
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

    def attempts(self, evidence: str) -> list[Attempt]:
        """Return all decisions on the same base and suite versions, oldest first."""
        with self._database.read() as connection:
            cursor = connection.execute(
                "SELECT digest, checkpoint, verdict, p_pass FROM decisions WHERE evidence = ? ORDER BY decision",
                [evidence],
            )
            return [build_record(Attempt, row) for row in fetch_rows(cursor)]
