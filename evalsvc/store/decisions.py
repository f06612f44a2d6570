"""What a gate reads of a store besides scores, and the decisions that it keeps there. Knows no statistics.

Decisions about arms of one base form a chain: each record carries the digest of the one before, and its own digest
covers all that it says. A record that is changed, or taken out of the middle, breaks the chain.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from evalsvc.records.digests import canonical, digest
from evalsvc.records.vocabulary import Role, State
from evalsvc.store.database import Database
from evalsvc.store.rows import build_record, fetch_rows

Record = dict[str, Any]
"""A decision record: JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One arm's run on one version of a suite."""

    arm: int
    plan: int
    digest: str
    suite: str
    role: Role
    suite_digest: str
    suite_path: str
    part_of: str | None
    state: State
    requests: int
    answered: int


@dataclass(frozen=True, slots=True)
class Item:
    """A sample as people read it."""

    doc: str
    target: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A decision on the same base and suite versions."""

    digest: str
    checkpoint: str
    verdict: str
    p_pass: float | None


def record_digest(record: Record) -> str:
    """Return the digest of all that a record says but its own digest."""
    return digest("decision", canonical({key: value for key, value in record.items() if key != "digest"}))


class Ledger:
    """The decisions in a store, and the runs that they rest on."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        self.path = path
        self._database = Database(path, wait)

    def look(self) -> AbstractContextManager[Any]:
        """Have all that is read here within be one consistent look at the store, which is opened once."""
        return self._database.read()

    def runs(self, arms: Sequence[int]) -> list[PlannedRun]:
        """Return all runs of some arms, oldest plan first."""
        with self._database.read() as connection:
            cursor = connection.execute(
                """
                SELECT u.arm, p.plan, p.digest, p.suite, p.role, p.suite_digest, p.suite_path, p.part_of, u.state,
                       u.requests, u.answered
                FROM runs u JOIN plans p USING (plan) WHERE list_contains(?, u.arm) ORDER BY p.plan, u.arm
                """,
                [list(arms)],
            )
            return [build_record(PlannedRun, row) for row in fetch_rows(cursor)]

    def files(self, plans: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
        """Return, by suite, path and digest of the files that some plans were made from, as far as that was kept."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT p.suite, f.path, f.digest FROM plan_files f JOIN plans p USING (plan) "
                "WHERE list_contains(?, p.digest) ORDER BY f.rowid",
                [list(plans)],
            ).fetchall()
        found: dict[str, list[tuple[str, str]]] = {}
        for suite, path, content in rows:
            found.setdefault(suite, []).append((path, content))
        return found

    def sizes(self, plans: Sequence[str]) -> dict[str, list[tuple[str, int, float]]]:
        """Return, by suite, the task, number of items and weight of each task of some plans."""
        with self._database.read() as connection:
            rows = connection.execute(
                """
                SELECT p.suite, t.task, count(s.sample), any_value(t.weight)
                FROM plans p JOIN tasks t USING (plan) JOIN plan_samples s ON s.plan = t.plan AND s.task = t.task
                WHERE list_contains(?, p.digest) GROUP BY p.suite, t.task, t.position ORDER BY p.suite, t.position
                """,
                [list(plans)],
            ).fetchall()
        found: dict[str, list[tuple[str, int, float]]] = {}
        for suite, task, count, weight in rows:
            found.setdefault(suite, []).append((task, count, weight))
        return found

    def sample_digests(self, plans: Sequence[str]) -> dict[int, str]:
        """Return the digests of all samples of some plans, by number."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT s.sample, s.digest FROM plan_samples m JOIN samples s USING (sample) "
                "JOIN plans p USING (plan) WHERE list_contains(?, p.digest)",
                [list(plans)],
            ).fetchall()
        return dict(rows)

    def items(self, samples: Sequence[int]) -> dict[int, Item]:
        """Return samples as people read them, by number."""
        with self._database.read() as connection:
            cursor = connection.execute(
                "SELECT sample, doc, target FROM samples WHERE list_contains(?, sample)", [list(samples)]
            )
            return {row["sample"]: build_record(Item, row) for row in fetch_rows(cursor)}

    def suite_path(self, suite: str) -> str | None:
        """Return the file of a suite's newest version."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT suite_path FROM plans WHERE suite = ? ORDER BY plan DESC LIMIT 1", [suite]
            ).fetchone()
        return None if row is None else str(row[0])

    def rate(self) -> float | None:
        """Return the requests per second of finished runs that took more than a second, by their median."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT median(answered / epoch(updated - created)) FROM runs "
                "WHERE state = 'done' AND epoch(updated - created) > 1"
            ).fetchone()
        value = cast(tuple[Any], row)[0]
        return None if value is None else float(value)

    # ----------------------------------------------------------------------------------------------------- decisions

    def append(self, record: Record, evidence: str, p_pass: float | None) -> Record:
        """Chain a record to the last one of its base, keep it, and return it with its digest.

        Args:
            evidence: Names the base and the versions of the suites; attempts with the same are counted together.
            p_pass: Of the hypothesis that the checkpoint should not pass, where there is one.
        """
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT digest FROM decisions WHERE base = ? ORDER BY decision DESC LIMIT 1",
                [record["base"]["digest"]],
            ).fetchone()
            # What is digested is what can be read back.
            chained: Record = json.loads(json.dumps({**record, "previous": row[0] if row else None}, default=str))
            chained["digest"] = record_digest(chained)
            connection.execute(
                "INSERT INTO decisions SELECT coalesce(max(decision), 0) + 1, ?, ?, ?, ?, ?, ?, ?, now()::TIMESTAMP "
                "FROM decisions",
                [
                    chained["digest"],
                    chained["base"]["digest"],
                    chained["checkpoint"]["digest"],
                    evidence,
                    chained["verdict"],
                    p_pass,
                    canonical(chained),
                ],
            )
        return chained

    def forget_looks(self, plans: Sequence[str], base: str, arm: str, driver: str) -> None:
        """Take an arm's early looks out that decided nothing; what was answered stays.

        A look stays as long as a decision names it, another arm or driver looks at it, or it is no early look at all.

        Args:
            plans: Digests of the looks' plans.
            base, arm: Digests of the arms that were compared; the base's look goes with the last arm's.
            driver: Who looked.
        """
        with self._database.write() as connection:
            connection.execute(
                """
                CREATE TEMP TABLE looks AS SELECT p.plan FROM plans p
                WHERE list_contains(?, p.digest) AND p.part_of IS NOT NULL
                      AND NOT EXISTS (SELECT 1 FROM decisions d WHERE contains(d.record, p.digest));
                """,
                [list(plans)],
            )
            connection.execute(
                """
                CREATE TEMP TABLE seen AS
                SELECT u.run, u.plan, a.digest, a.digest = ? AND u.driver = ? AS mine
                FROM runs u JOIN looks USING (plan) JOIN arms a USING (arm)
                """,
                [arm, driver],
            )
            connection.execute(
                "DELETE FROM looks WHERE plan IN (SELECT plan FROM seen WHERE NOT mine AND digest <> ?)", [base]
            )
            connection.execute("DELETE FROM seen WHERE NOT mine AND plan NOT IN (FROM looks)")
            for table in ("scores", "results", "runs"):
                connection.execute(f"DELETE FROM {table} WHERE run IN (SELECT run FROM seen)")
            for table in ("plan_files", "plan_samples", "tasks", "plans"):
                connection.execute(f"DELETE FROM {table} WHERE plan IN (FROM looks)")
            connection.execute("DROP TABLE looks; DROP TABLE seen")

    def chain(self, base: str) -> list[Record]:
        """Return all decision records about arms of a base, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT record FROM decisions WHERE base = ? ORDER BY decision", [base]
            ).fetchall()
        return [json.loads(row[0]) for row in rows]

    def attempts(self, evidence: str) -> list[Attempt]:
        """Return all decisions on the same base and suite versions, oldest first."""
        with self._database.read() as connection:
            cursor = connection.execute(
                "SELECT digest, checkpoint, verdict, p_pass FROM decisions WHERE evidence = ? ORDER BY decision",
                [evidence],
            )
            return [build_record(Attempt, row) for row in fetch_rows(cursor)]
