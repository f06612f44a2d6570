"""Runs of a store with their plans, and whether a run's driver is alive."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from evalsvc.records.serialise import build_record
from evalsvc.records.vocabulary import Ints, Role, State
from evalsvc.store.arms import StoredArm
from evalsvc.store.database import Database
from evalsvc.store.rows import fetch_row, fetch_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """One arm on one plan, with its progress.

    Attributes:
        part_of: For an interim look, digest of the suite's whole plan.
    """

    run: int
    arm: StoredArm
    plan: str
    suite: str
    role: Role
    state: State
    requests: int
    answered: int
    failed: int
    error: str | None
    driver: str | None
    created: datetime
    updated: datetime
    part_of: str | None


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


class Runs:
    """Runs in a store's file, and their plans."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        self._database = Database(path, wait)

    def snapshot(self) -> AbstractContextManager[Any]:
        """Return a context in which all reads share one snapshot of the store, which is opened once."""
        return self._database.read()

    def of_arms(self, arms: Sequence[int]) -> list[PlannedRun]:
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
        """Return, by suite, path and digest of the files that some plans were built from, if stored."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    "SELECT p.suite, f.path, f.digest FROM plan_files f JOIN plans p USING (plan) "
                    "WHERE list_contains(?, p.digest) ORDER BY f.rowid",
                    [list(plans)],
                )
            )
        files: dict[str, list[tuple[str, str]]] = {}
        for row in rows:
            files.setdefault(row["suite"], []).append((row["path"], row["digest"]))
        return files

    def task_sizes(self, plans: Sequence[str]) -> dict[str, list[tuple[str, int, float]]]:
        """Return, by suite, the name, number of items and weight of each task of some plans."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    """
                    SELECT p.suite, t.task, count(s.sample) AS items, any_value(t.weight) AS weight
                    FROM plans p JOIN tasks t USING (plan)
                    JOIN plan_samples s ON s.plan = t.plan AND s.task = t.task
                    WHERE list_contains(?, p.digest) GROUP BY p.suite, t.task, t.position ORDER BY p.suite, t.position
                    """,
                    [list(plans)],
                )
            )
        sizes: dict[str, list[tuple[str, int, float]]] = {}
        for row in rows:
            sizes.setdefault(row["suite"], []).append((row["task"], row["items"], row["weight"]))
        return sizes

    def find_overlaps(self, documents: Sequence[Ints], plans: Collection[str]) -> frozenset[str]:
        """Return the digests of those of some plans that have one of these documents."""
        numbers = np.unique(np.concatenate([*documents, np.empty(0, dtype=np.int64)]))
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    """
                    SELECT DISTINCT p.digest FROM plans p JOIN plan_samples m USING (plan) JOIN samples s USING (sample)
                    WHERE list_contains(?, p.digest) AND s.document IN (SELECT unnest(?))
                    """,
                    [list(plans), numbers.tolist()],
                )
            )
        return frozenset(row["digest"] for row in rows)

    def named_items(self, arms: Sequence[str]) -> list[tuple[str, str, str, str, float]]:
        """Return arm's key, suite, task, document and score of some arms' imported items that have only a name."""
        with self._database.read() as connection:
            return connection.execute(
                """
                SELECT a.digest, p.suite, t.task, s.doc, c.value
                FROM arms a JOIN runs u USING (arm) JOIN plans p USING (plan) JOIN tasks t USING (plan)
                JOIN scores c ON c.run = u.run AND c.task = t.task AND c.metric = t.metric AND c.filter = t.filter
                JOIN samples s USING (sample)
                WHERE t.version = 'imported' AND list_contains(?, a.digest) AND starts_with(s.doc, '{"item":')
                AND c.value IS NOT NULL
                ORDER BY p.plan, t.position, s.sample
                """,
                [list(arms)],
            ).fetchall()

    def task_items(self, plan: str) -> dict[str, tuple[Ints, Ints | None]]:
        """Return, by task of a plan, each item's document and declared cluster, as numbers; None without clusters."""
        with self._database.read() as connection:
            rows = connection.execute(
                """
                SELECT m.task, s.document, m.sample_cluster IS NOT NULL AS declared,
                       CAST(hash(p.suite, m.sample_cluster) >> 2 AS BIGINT) AS cluster, s.sample
                FROM plans p JOIN plan_samples m USING (plan) JOIN samples s USING (sample)
                WHERE p.digest = ? ORDER BY m.task, s.sample
                """,
                [plan],
            ).fetchnumpy()
        tasks, documents, declared, clusters, samples = (
            np.asarray(rows[name]) for name in ("task", "document", "declared", "cluster", "sample")
        )
        # A sample without a cluster is its own cluster; negative numbers, so that they are unique.
        clusters = np.where(declared, clusters, -samples.astype(np.int64) - 1)
        return {
            str(task): (documents[of_task], clusters[of_task] if declared[of_task].any() else None)
            for task in np.unique(tasks)
            for of_task in (tasks == task,)
        }

    def sample_digests(self, plans: Sequence[str]) -> dict[int, str]:
        """Return the digests of all samples of some plans, by number."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    "SELECT DISTINCT s.sample, s.digest FROM plan_samples m JOIN samples s USING (sample) "
                    "JOIN plans p USING (plan) WHERE list_contains(?, p.digest)",
                    [list(plans)],
                )
            )
        return {row["sample"]: row["digest"] for row in rows}

    def suite_path(self, suite: str) -> str | None:
        """Return the file of a suite's newest version."""
        with self._database.read() as connection:
            row = fetch_row(
                connection.execute("SELECT suite_path FROM plans WHERE suite = ? ORDER BY plan DESC LIMIT 1", [suite])
            )
        return None if row is None else str(row["suite_path"])

    def median_rate(self) -> float | None:
        """Return the median requests per second of finished runs that took more than a second."""
        with self._database.read() as connection:
            (row,) = fetch_rows(
                connection.execute(
                    "SELECT median(answered / epoch(updated - created)) AS rate FROM runs "
                    "WHERE state = 'done' AND epoch(updated - created) > 1"
                )
            )
        return None if row["rate"] is None else float(row["rate"])

    def remove_looks(self, plans: Sequence[str], base: str, arm: str, driver: str) -> None:
        """Remove an arm's interim looks that no decision uses; responses stay.

        A look is not removed if a decision names it, if another arm or driver uses it, or if it is the whole plan.

        Args:
            plans: Digests of the looks' plans.
            base, arm: Digests of the compared arms; the base's look is removed together with the last arm's.
            driver: The driver that made the looks.
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
                SELECT u.run, u.plan, a.digest, a.digest = ? AND u.driver = ? AS own
                FROM runs u JOIN looks USING (plan) JOIN arms a USING (arm)
                """,
                [arm, driver],
            )
            connection.execute(
                "DELETE FROM looks WHERE plan IN (SELECT plan FROM seen WHERE NOT own AND digest <> ?)", [base]
            )
            connection.execute("DELETE FROM seen WHERE NOT own AND plan NOT IN (SELECT plan FROM looks)")
            for table in ("scores", "results", "runs"):
                connection.execute(f"DELETE FROM {table} WHERE run IN (SELECT run FROM seen)")
            for table in ("plan_files", "plan_samples", "tasks", "plans"):
                connection.execute(f"DELETE FROM {table} WHERE plan IN (SELECT plan FROM looks)")
            connection.execute("DROP TABLE looks; DROP TABLE seen")


def driver_name() -> str:
    """Return host and process id of this driver, from which `is_alive` tells whether it still runs."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_alive(driver: str | None) -> bool:
    """Whether a driver on this host still runs; True for drivers on other hosts."""
    host, _, process = (driver or "").rpartition(":")
    if not process.isdigit():
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
