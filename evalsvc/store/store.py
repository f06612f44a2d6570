"""`Store`: writes and reads records; nothing that can be recomputed is stored.

Every method is one transaction. Writes are idempotent: a response is stored once per arm and request, a run once per
arm and plan, so that whatever was interrupted can be done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evalsvc.errors import EvidenceError
from evalsvc.records.arms import Arm
from evalsvc.records.matrices import Matrix
from evalsvc.records.plans import Plan, Response
from evalsvc.records.scores import Graded, TaskScores
from evalsvc.records.serialise import build_record, to_plain
from evalsvc.records.shards import ShardResult
from evalsvc.records.vocabulary import Floats
from evalsvc.store import scores as scores_module
from evalsvc.store.arms import StoredArm, read_arms
from evalsvc.store.database import Connection, Database
from evalsvc.store.plans import add_arm, add_plan
from evalsvc.store.rows import NOW, as_table, fetch_row, fetch_rows, insert, insert_row, insert_table, next_number
from evalsvc.store.runs import StoredRun
from evalsvc.store.scores import StoredResult, build_result

_RESPONSES = {
    "arm": pa.string(),
    "request": pa.string(),
    "loglikelihood": pa.float64(),
    "greedy": pa.bool_(),
    "text": pa.string(),
    "tokens": pa.int32(),
    "truncated": pa.int32(),
}
_FAILURES = {"arm": pa.string(), "request": pa.string(), "error": pa.string()}
_RESULTS = {
    "task": pa.string(),
    "metric": pa.string(),
    "filter": pa.string(),
    "n": pa.int32(),
    "value": pa.float64(),
    "stderr": pa.float64(),
    "higher_is_better": pa.bool_(),
    "primary": pa.bool_(),
    "is_group": pa.bool_(),
    "resamples": pa.struct(
        {
            "levels": pa.list_(pa.float64()),
            "draws": pa.string(),
            "units": pa.int32(),
            "effective": pa.float64(),
            "has_clusters": pa.bool_(),
        }
    ),
}
_RESULT_COLUMNS = {"primary": "is_primary"}
"""Columns of `results` whose names differ from the field of `Result`: `primary` is reserved in SQL."""
_SCORES = {
    "task": pa.string(),
    "sample": pa.string(),
    "metric": pa.string(),
    "filter": pa.string(),
    "value": pa.float64(),
    "weight": pa.float64(),
    "detail": pa.string(),
    "answer": pa.int64(),
    "invalid": pa.bool_(),
    "confidence": pa.float64(),
}
_DRIFT = {"sample": pa.string(), "kl": pa.list_(pa.float32())}
_INCOMING_REQUESTS = "FROM incoming i JOIN arms a ON a.digest = i.arm JOIN requests r ON r.digest = i.request"


class Store:
    """The results of one team, in one DuckDB file."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        self.path = path
        self._database = Database(path, wait)

    def upgrade(self) -> None:
        """Migrate an older store to the current schema; does nothing if there is no store yet."""
        self._database.upgrade()

    # ------------------------------------------------------------------------------------------------------- writing

    def register(
        self,
        arms: Sequence[Arm],
        plans: Sequence[Plan],
        driver: str,
        prompt_tokens: Mapping[tuple[str, str], float | None] | None = None,
    ) -> None:
        """Add arms, plans and one run for each pair of them; existing ones stay as they are, also finished runs.

        Args:
            prompt_tokens: (arm key, plan digest) -> prompt tokens per request.
        """
        tokens = prompt_tokens or {}
        with self._database.write() as connection:
            for arm in arms:
                add_arm(connection, arm)
            for plan in plans:
                add_plan(connection, plan)
                for arm in arms:
                    _add_run(connection, arm, plan, driver, tokens.get((arm.key, plan.digest)))

    def commit(self, results: Sequence[ShardResult], progress: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """Store the results of workers.

        Args:
            results: Finished shards; existing responses stay as they are.
            progress: (arm key, plan digest) -> requests answered and failed so far, for runs with progress.
        """
        answers = [(result.shard.arm.key, answer) for result in results for answer in result.responses]
        failures = [(result.shard.arm.key, failure) for result in results for failure in result.failures]
        with self._database.write() as connection:
            if answers:
                incoming = as_table(_RESPONSES, [answer for _, answer in answers], arm=[key for key, _ in answers])
                numbers = {"arm": "a.arm", "request": "r.request"}
                insert_table(
                    connection,
                    incoming,
                    "responses",
                    {name: numbers.get(name, f"i.{name}") for name in _RESPONSES},
                    _INCOMING_REQUESTS,
                    conflict="ON CONFLICT DO NOTHING",
                )
                connection.register("incoming", incoming.select(["arm", "request"]))
                connection.execute(
                    f"DELETE FROM failures USING (SELECT a.arm, r.request {_INCOMING_REQUESTS}) x "
                    "WHERE failures.arm = x.arm AND failures.request = x.request"
                )
                connection.unregister("incoming")
            if failures:
                insert_table(
                    connection,
                    as_table(_FAILURES, [failure for _, failure in failures], arm=[key for key, _ in failures]),
                    "failures",
                    {"arm": "a.arm", "request": "r.request", "error": "i.error"},
                    _INCOMING_REQUESTS,
                    conflict="ON CONFLICT DO UPDATE SET error = excluded.error",
                )
            for (arm, plan), counts in progress.items():
                _set_run(connection, arm, plan, "state = 'running', answered = ?, failed = ?, error = NULL", [*counts])

    def finish(self, arm: Arm, plan: Plan, graded: Graded) -> None:
        """Store a run's results and scores, replacing earlier ones, and set its state to done."""
        with self._database.write() as connection:
            run = _run_number(connection, arm, plan)
            connection.execute("DELETE FROM results WHERE run = ?", [run])
            connection.execute("DELETE FROM scores WHERE run = ?", [run])
            resamples = [None if r.resamples is None else asdict(r.resamples) for r in graded.results]
            incoming = as_table(_RESULTS, graded.results, resamples=resamples)
            columns = {_RESULT_COLUMNS.get(name, name): f"i.{name}" for name in _RESULTS}
            insert_table(connection, incoming, "results", {"run": "$run", **columns}, values={"run": run})
            scores = [(task, score) for task, of_task in graded.scores.items() for score in of_task]
            insert_table(
                connection,
                as_table(_SCORES, [score for _, score in scores], task=[task for task, _ in scores]),
                "scores",
                {"run": "$run", **{name: "s.sample" if name == "sample" else f"i.{name}" for name in _SCORES}},
                "FROM incoming i JOIN samples s ON s.digest = i.sample",
                values={"run": run},
            )
            answered = len(plan.requests)
            _set_run(
                connection, arm.key, plan.digest, "state = 'done', answered = ?, failed = 0, error = NULL", [answered]
            )

    def fail(self, arm: Arm, plan: Plan, error: str) -> None:
        """Set a run's state to failed, with the error; its responses stay."""
        with self._database.write() as connection:
            _set_run(connection, arm.key, plan.digest, "state = 'failed', error = ?", [error])

    def add_plans(self, plans: Sequence[Plan]) -> None:
        """Add plans without a run: those that arms with other prompts get instead of a suite's plan."""
        with self._database.write() as connection:
            for plan in plans:
                add_plan(connection, plan)

    def copy_responses(self, source: Arm, arm: Arm, plan: Plan) -> None:
        """Copy an arm's responses on a plan to another arm that has the same weights and the same prompts."""
        with self._database.write() as connection:
            insert(
                connection,
                "responses",
                {"arm": "b.arm", **{name: f"x.{name}" for name in _RESPONSES if name != "arm"}},
                f"""
                FROM responses x JOIN arms a ON a.arm = x.arm, arms b
                WHERE a.digest = $source AND b.digest = $arm
                      AND x.request IN (WITH {scores_module.ASKED} SELECT request FROM asked)
                """,
                values={"source": source.key, "arm": arm.key, "plan": plan.digest},
                conflict="ON CONFLICT DO NOTHING",
            )

    def add_matrices(self, matrices: Sequence[Matrix]) -> None:
        """Store matrices; replaces a matrix of the same name."""
        with self._database.write() as connection:
            for matrix in matrices:
                values = to_plain(matrix)
                changes = ", ".join(f"{name} = excluded.{name}" for name in values if name != "name")
                insert_row(connection, "matrices", values, conflict=f"ON CONFLICT (name) DO UPDATE SET {changes}")

    def add_drift(self, arm: Arm, plan: Plan, task: str, kl: Mapping[str, Sequence[float]]) -> None:
        """Store an arm's divergence from its base on a task's texts, replacing an earlier one.

        Args:
            kl: Sample digest -> forward KL(base || arm) of each of its tokens, in nats.
        """
        incoming = as_table(_DRIFT, list(kl), sample=list(kl), kl=[list(values) for values in kl.values()])
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM drift WHERE arm = (SELECT arm FROM arms WHERE digest = ?) "
                "AND plan = (SELECT plan FROM plans WHERE digest = ?) AND task = ?",
                [arm.key, plan.digest, task],
            )
            insert_table(
                connection,
                incoming,
                "drift",
                {"arm": "a.arm", "plan": "p.plan", "task": "$task", "sample": "s.sample", "kl": "i.kl"},
                "FROM incoming i JOIN samples s ON s.digest = i.sample, arms a, plans p "
                "WHERE a.digest = $arm AND p.digest = $plan",
                values={"task": task, "arm": arm.key, "plan": plan.digest},
            )

    # ------------------------------------------------------------------------------------------------------- reading

    def answered_requests(self, arms: Sequence[Arm]) -> dict[str, set[str]]:
        """Return, by arm key, the digests of all requests that the arm has answered."""
        with self._database.read() as connection:
            return {
                arm.key: set(
                    connection.execute(
                        "SELECT r.digest FROM responses x JOIN requests r USING (request) JOIN arms a USING (arm) "
                        "WHERE a.digest = ?",
                        [arm.key],
                    )
                    .fetchnumpy()["digest"]
                    .tolist()
                )
                for arm in arms
            }

    def find_unscored(self, arms: Sequence[Arm]) -> list[Arm]:
        """Return the arms that have no responses yet."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    "SELECT digest FROM arms a WHERE EXISTS (SELECT 1 FROM responses x WHERE x.arm = a.arm)"
                )
            )
        answered = {row["digest"] for row in rows}
        return [arm for arm in arms if arm.key not in answered]

    def responses(self, arm: Arm, plan: Plan) -> dict[str, Response]:
        """Return the arm's responses to the plan's requests, by request digest."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    f"""
                    WITH {scores_module.ASKED}
                    SELECT r.digest AS request, x.loglikelihood, x.greedy, x.text, x.tokens, x.truncated
                    FROM responses x JOIN asked USING (request) JOIN requests r USING (request) JOIN arms a USING (arm)
                    WHERE a.digest = $arm
                    """,
                    {"plan": plan.digest, "arm": arm.key},
                )
            )
        return {row["request"]: build_record(Response, row) for row in rows}

    def arms(self) -> list[StoredArm]:
        """Return all arms, oldest first."""
        with self._database.read() as connection:
            return list(read_arms(connection).values())

    def runs(self) -> list[StoredRun]:
        """Return all runs, oldest first."""
        with self._database.read() as connection:
            arms = read_arms(connection)
            rows = fetch_rows(
                connection.execute(
                    """
                    SELECT u.run, u.arm, p.digest AS plan, p.suite, p.role, u.state, u.requests, u.answered,
                           u.failed, u.error, u.driver, u.created, u.updated, p.part_of
                    FROM runs u JOIN plans p USING (plan) ORDER BY u.run
                    """
                )
            )
        return [build_record(StoredRun, row, arm=arms[row["arm"]]) for row in rows]

    def results(self, numbers: Sequence[int] | None = None) -> list[StoredResult]:
        """Return the results of finished runs, on the newest plan of each suite that the arm has finished.

        Args:
            numbers: Numbers of the arms; None for all.
        """
        with self._database.read() as connection:
            arms = read_arms(connection)
            rows = fetch_rows(
                connection.execute(
                    """
                    WITH newest AS (
                        SELECT u.run, u.arm, p.suite, p.role FROM runs u JOIN plans p USING (plan)
                        WHERE u.state = 'done' AND p.part_of IS NULL
                              AND coalesce(list_contains($numbers, u.arm), true)
                        QUALIFY row_number() OVER (PARTITION BY u.arm, p.suite ORDER BY u.plan DESC) = 1
                    )
                    SELECT n.arm, n.suite, n.role, r.task, r.metric, r.filter, r.n, r.value, r.stderr,
                           r.higher_is_better, r.is_primary AS "primary", r.is_group, r.resamples
                    FROM newest n JOIN results r USING (run) ORDER BY n.arm, n.suite, r.rowid
                    """,
                    {"numbers": numbers},
                )
            )
        return [build_result(row, arms[row["arm"]]) for row in rows]

    def suite_paths(self, checkpoint: str) -> list[str]:
        """Return the files of the suites that a checkpoint was submitted with, of the newest plan, by first use."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    "SELECT arg_max(p.suite_path, p.plan) AS path FROM runs u JOIN plans p USING (plan) "
                    "JOIN arms a USING (arm) WHERE a.checkpoint = ? GROUP BY p.suite ORDER BY min(u.run)",
                    [checkpoint],
                )
            )
        return [row["path"] for row in rows]

    def task_scores(
        self,
        base: int,
        arms: Sequence[int],
        plans: Sequence[str] | None = None,
        suites: Sequence[str] | None = None,
    ) -> dict[int, list[TaskScores]]:
        """Return scores in the primary metric of each task, for the base and other arms.

        Uses, for every suite, the newest plan that the base has finished; an arm that has not finished the same plan
        has no scores on that suite.

        Args:
            base: The base arm's number.
            arms: Other arms' numbers.
            plans: Digests of the plans to use instead.
            suites: Names of the suites; None for all.

        Returns:
            Arm number to its tasks, in the order of suites and tasks; samples sorted.
        """
        with self._database.read() as connection:
            return scores_module.read_task_scores(connection, base, arms, plans, suites)

    def matrices(self) -> list[Matrix]:
        """Return all matrices, by method and name."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    "SELECT name, method, seed, source, tasks, scores, untrained, joint FROM matrices "
                    "ORDER BY method, name"
                )
            )
        return [
            build_record(
                Matrix,
                row,
                tasks=tuple(row["tasks"]),
                scores=np.array(row["scores"]),
                untrained=_array(row["untrained"]),
                joint=_array(row["joint"]),
            )
            for row in rows
        ]

    def mean_gains(self, base: int) -> dict[int, dict[str, float]]:
        """Return, by arm and suite, the mean gain over the base; see `scores.read_mean_gains`."""
        with self._database.read() as connection:
            return scores_module.read_mean_gains(connection, base)

    def sampled_answers(
        self, base: int, arms: Sequence[int], plans: Sequence[str] | None = None
    ) -> dict[int, list[scores_module.SampledAnswers]]:
        """Return the sampled answers of a base and its arms, by arm; of the plans named, or the newest."""
        with self._database.read() as connection:
            return scores_module.read_sampled(connection, base, arms, plans)

    def drifts(self, arms: Sequence[int]) -> dict[int, list[scores_module.TokenDrift]]:
        """Return the drift of arms from their base, by arm."""
        with self._database.read() as connection:
            return scores_module.read_drifts(connection, arms)


# ------------------------------------------------------------------------------------------------------------- rows


def _array(values: list[float] | None) -> Floats | None:
    return None if values is None else np.array(values, dtype=np.float64)


def _add_run(connection: Connection, arm: Arm, plan: Plan, driver: str, prompt_tokens: float | None) -> None:
    """Add a run; for a stored one, update its driver."""
    insert(
        connection,
        "runs",
        {
            "run": next_number("runs", "run"),
            "arm": "a.arm",
            "plan": "p.plan",
            "state": "'queued'",
            "requests": "$requests",
            "answered": "0",
            "failed": "0",
            "driver": "$driver",
            "created": NOW,
            "updated": NOW,
            "prompt_tokens": "$prompt_tokens",
        },
        "FROM arms a, plans p WHERE a.digest = $arm AND p.digest = $plan",
        values={
            "requests": len(plan.requests),
            "driver": driver,
            "prompt_tokens": prompt_tokens,
            "arm": arm.key,
            "plan": plan.digest,
        },
        conflict="ON CONFLICT (arm, plan) DO UPDATE SET driver = excluded.driver, "
        "prompt_tokens = coalesce(excluded.prompt_tokens, prompt_tokens)",
    )


def _run_number(connection: Connection, arm: Arm, plan: Plan) -> int:
    row = fetch_row(
        connection.execute(
            "SELECT u.run FROM runs u JOIN arms a USING (arm) JOIN plans p USING (plan) "
            "WHERE a.digest = ? AND p.digest = ?",
            [arm.key, plan.digest],
        )
    )
    if row is None:
        raise EvidenceError(f"{arm.label} on {plan.suite}: its run was removed by another gate command; try again")
    return int(row["run"])


def _set_run(connection: Connection, arm: str, plan: str, changes: str, values: list[Any]) -> None:
    connection.execute(
        f"UPDATE runs SET {changes}, updated = {NOW} WHERE arm = (SELECT arm FROM arms WHERE digest = ?) "
        "AND plan = (SELECT plan FROM plans WHERE digest = ?)",
        [*values, arm, plan],
    )
