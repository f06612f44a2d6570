"""Reads scores, sampled answers and token drift from an open database as arrays."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from evalsvc.errors import EvidenceError
from evalsvc.records.scores import Resamples, TaskScores
from evalsvc.records.serialise import INTERNAL, build_record
from evalsvc.records.vocabulary import Aggregation, Floats, Ints, Role
from evalsvc.store.arms import StoredArm
from evalsvc.store.database import Connection
from evalsvc.store.rows import Row, fetch_rows

_TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DEFAULT_LIMIT = 256  # lm-eval's

ASKED = """asked AS (
    SELECT DISTINCT unnest(s.requests) AS request FROM plans p JOIN plan_samples m USING (plan)
    JOIN samples s USING (sample) WHERE p.digest = $plan
)"""
"""SQL of the requests of a plan. Parameter: plan, its digest."""
CHOSEN = """chosen AS (
    SELECT p.plan, p.suite, p.role, u.run FROM runs u JOIN plans p USING (plan)
    WHERE u.arm = $base AND u.state = 'done' AND coalesce(list_contains($plans, p.digest), p.part_of IS NULL)
          AND coalesce(list_contains($suites, p.suite), true)
    QUALIFY row_number() OVER (PARTITION BY p.suite ORDER BY p.plan DESC) = 1
)"""
"""SQL of the plans that arms are compared on: for each suite the newest whole plan that the base has finished.

Parameters: base; plans, digests of plans to use instead, or null; suites, the suites to use, or null for all.
"""

Columns = Mapping[str, Any]
Tasks = Mapping[tuple[int, int], Row]
"""(plan, position) -> suite, role and columns of the task."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SampledAnswers:
    """One arm's sampled answers to one task's open prompts.

    Attributes:
        samples: int64 [n], the store's sample numbers, increasing.
        answers: K answers per sample.
        unfinished: bool [n, K], whether an answer reached the token limit.
    """

    suite: str
    task: str
    samples: Ints
    answers: tuple[tuple[str, ...], ...]
    unfinished: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TokenDrift:
    """One arm's divergence from its base on one task's texts.

    Attributes:
        kl: float64 [tokens], forward KL(base || arm) in nats, over the full vocabulary.
        texts: int64 [tokens], the store's sample number of each token's text.
    """

    suite: str
    role: Role
    task: str
    kl: Floats
    texts: Ints


def read_task_scores(
    connection: Connection,
    base: int,
    arms: Sequence[int],
    plans: Sequence[str] | None = None,
    suites: Sequence[str] | None = None,
) -> dict[int, list[TaskScores]]:
    """Return scores in the primary metric of each task, for the base and other arms; see `Store.task_scores`."""
    chosen = fetch_rows(
        connection.execute(
            f"WITH {CHOSEN} SELECT plan, suite, role FROM chosen ORDER BY plan",
            {"base": base, "plans": plans, "suites": suites},
        )
    )
    of_plan = {row["plan"]: row for row in chosen}
    numbers = list(of_plan)
    tasks = fetch_rows(
        connection.execute(
            "SELECT plan, position, task, metric, filter, aggregation, higher_is_better, weight, chance, format_of "
            "FROM tasks WHERE list_contains(?, plan)",
            [numbers],
        )
    )
    runs = connection.execute(
        "SELECT run FROM runs WHERE state = 'done' AND list_contains(?, plan) AND list_contains(?, arm)",
        [numbers, [base, *arms]],
    ).fetchnumpy()["run"]
    columns = connection.execute(
        """
        SELECT u.arm, u.plan, t.position, s.sample, s.value, s.weight, s.answer, s.invalid, s.confidence
        FROM runs u JOIN tasks t USING (plan)
        JOIN scores s ON s.run = u.run AND s.task = t.task AND s.metric = t.metric AND s.filter = t.filter
        -- A constant list of runs, so that only the row groups with these runs are read.
        WHERE s.run IN (SELECT unnest(?))
        ORDER BY u.arm, u.plan, t.position, s.sample
        """,
        [runs.tolist()],
    ).fetchnumpy()
    of_position = {(row["plan"], row["position"]): {**of_plan[row["plan"]], **row} for row in tasks}
    scores = _cut_columns(columns, of_position, _clusters(connection, numbers), [base, *arms])
    return _add_documents(connection, scores)


def _add_documents(connection: Connection, scores: dict[int, list[TaskScores]]) -> dict[int, list[TaskScores]]:
    """Return the scores with the numbers of their documents; tasks with the same samples share one array of them."""
    samples = {id(task.samples): task.samples for tasks in scores.values() for task in tasks}
    if not samples:
        return scores
    numbers = _read_documents(connection, np.concatenate(list(samples.values())))
    ends = np.cumsum([len(of_task) for of_task in samples.values()])
    documents = dict(zip(samples, np.split(numbers, ends[:-1]), strict=True))
    return {
        arm: [replace(task, documents=documents[id(task.samples)]) for task in tasks] for arm, tasks in scores.items()
    }


def read_mean_gains(connection: Connection, base: int) -> dict[int, dict[str, float]]:
    """Return, by arm and suite, the mean gain over the base (positive is better), from the runs' results.

    Omits suites with a task whose metric is not a mean, and suites that an arm has not finished on the base's plan.
    """
    rows = fetch_rows(
        connection.execute(
            f"""
            WITH {CHOSEN},
            planned AS (
                SELECT c.run, c.suite, t.plan, t.task, t.metric, t.filter, t.aggregation, t.weight,
                       CASE WHEN t.higher_is_better THEN t.weight ELSE -t.weight END AS signed_weight,
                       count(*) OVER (PARTITION BY c.plan) AS tasks
                FROM chosen c JOIN tasks t USING (plan)
            )
            SELECT u.arm, q.suite, sum(q.signed_weight * (a.value - b.value)) / sum(q.weight) AS gain
            FROM planned q
            JOIN results b ON b.run = q.run AND b.task = q.task AND b.metric = q.metric AND b.filter = q.filter
            JOIN runs u ON u.plan = q.plan AND u.state = 'done'
            JOIN results a ON a.run = u.run AND a.task = q.task AND a.metric = q.metric AND a.filter = q.filter
                           AND a.n = b.n
            WHERE q.aggregation = 'mean' AND NOT a.is_group AND NOT b.is_group
            GROUP BY u.arm, q.suite HAVING count(*) = any_value(q.tasks)
            """,
            {"base": base, "plans": None, "suites": None},
        )
    )
    gains: dict[int, dict[str, float]] = defaultdict(dict)
    for row in rows:
        gains[row["arm"]][row["suite"]] = row["gain"]
    return gains


def _read_documents(connection: Connection, samples: Ints) -> Ints:
    """Return, for each sample, a number that is the same for the same document, independent of the prompt.

    Raises:
        EvidenceError: Samples are not in the store.
    """
    if not len(samples):
        return np.empty(0, dtype=np.int64)
    rows = connection.execute(
        "SELECT sample, document FROM samples WHERE sample BETWEEN ? AND ? ORDER BY sample",
        [int(samples.min()), int(samples.max())],
    ).fetchnumpy()
    places = np.searchsorted(rows["sample"], samples)
    missing = (
        rows["sample"].take(places, mode="clip") != samples if len(rows["sample"]) else np.ones(len(samples), bool)
    )
    if missing.any():
        raise EvidenceError(
            f"the store is damaged: {missing.sum():,} scores are of samples that it lacks; restore a copy of it, or "
            "submit the checkpoints to a new one (--db)"
        )
    return np.asarray(rows["document"], dtype=np.int64)[places]


def read_sampled(
    connection: Connection, base: int, arms: Sequence[int], plans: Sequence[str] | None = None
) -> dict[int, list[SampledAnswers]]:
    """Return the sampled answers of a base and its arms on the base's newest plans with role `diversity`.

    Omits prompts that lack one of their K answers.

    Args:
        plans: Digests of the plans to use instead.
    """
    cursor = connection.execute(
        """
        WITH chosen AS (
            SELECT p.plan, p.suite FROM runs u JOIN plans p USING (plan)
            WHERE u.arm = $base AND u.state = 'done' AND p.role = 'diversity' AND p.part_of IS NULL
                  AND coalesce(list_contains($plans, p.digest), true)
            QUALIFY row_number() OVER (PARTITION BY p.suite ORDER BY p.plan DESC) = 1
        ),
        asked AS (
            SELECT c.plan, c.suite, t.position, t.task, s.sample, unnest(s.requests) AS request, len(s.requests) AS k,
                   generate_subscripts(s.requests, 1) AS place
            FROM chosen c JOIN tasks t USING (plan) JOIN plan_samples ps USING (plan, task)
                 JOIN samples s USING (sample)
            WHERE t.output_type = 'generate_until'
        )
        SELECT x.arm, a.suite, a.task, a.sample, a.k, r.arguments[2] AS settings, x.text, x.tokens
        FROM asked a JOIN requests r USING (request) JOIN responses x USING (request)
        WHERE list_contains($arms, x.arm) ORDER BY x.arm, a.plan, a.position, a.sample, a.place
        """,
        {"base": base, "plans": plans, "arms": [base, *arms]},
    )
    tasks: dict[tuple[int, str, str], dict[int, list[tuple[str, bool]]]] = defaultdict(lambda: defaultdict(list))
    prompted: dict[int, int] = {}
    for row in fetch_rows(cursor):
        answer = row["text"] or "", row["tokens"] >= _token_limit(row["settings"])
        tasks[row["arm"], row["suite"], row["task"]][row["sample"]].append(answer)
        prompted[row["sample"]] = row["k"]
    sampled: dict[int, list[SampledAnswers]] = {arm: [] for arm in (base, *arms)}
    for (arm, suite, task), by_sample in tasks.items():
        whole = {sample: answers for sample, answers in by_sample.items() if len(answers) == prompted[sample]}
        sampled[arm].append(
            SampledAnswers(
                suite=suite,
                task=task,
                samples=np.array(list(whole), dtype=np.int64),
                answers=tuple(tuple(text for text, _ in answers) for answers in whole.values()),
                unfinished=np.array([[end for _, end in answers] for answers in whole.values()], dtype=np.bool_),
            )
        )
    return sampled


def _token_limit(settings: str) -> int:
    options = json.loads(settings)
    return next((int(options[name]) for name in _TOKEN_LIMITS if options.get(name) is not None), _DEFAULT_LIMIT)


def read_drifts(connection: Connection, arms: Sequence[int]) -> dict[int, list[TokenDrift]]:
    """Return the drift of arms from their base, by arm, on the newest plan of each suite."""
    cursor = connection.execute(
        """
        WITH newest AS (
            SELECT DISTINCT d.arm, d.plan, p.suite, p.role FROM drift d JOIN plans p USING (plan)
            WHERE list_contains(?, d.arm)
            QUALIFY dense_rank() OVER (PARTITION BY d.arm, p.suite ORDER BY d.plan DESC) = 1
        )
        SELECT n.arm, n.suite, n.role, d.task, d.sample, d.kl FROM newest n JOIN drift d USING (arm, plan)
        ORDER BY n.arm, n.plan, d.task, d.sample
        """,
        [list(arms)],
    )
    tasks: dict[tuple[int, str, Role, str], list[Row]] = defaultdict(list)
    for row in fetch_rows(cursor):
        tasks[row["arm"], row["suite"], row["role"], row["task"]].append(row)
    drifts: dict[int, list[TokenDrift]] = {arm: [] for arm in arms}
    for (arm, suite, role, task), texts in tasks.items():
        values = np.concatenate([np.array(text["kl"], dtype=np.float64) for text in texts])
        samples = np.array([text["sample"] for text in texts], dtype=np.int64)
        owners = np.repeat(samples, [len(text["kl"]) for text in texts])
        drifts[arm].append(TokenDrift(suite=suite, role=role, task=task, kl=values, texts=owners))
    return drifts


def _clusters(connection: Connection, plans: Sequence[int]) -> dict[tuple[int, int], tuple[Ints, Ints]]:
    """Return (plan, position) -> samples, increasing, and the cluster number of each sample."""
    rows = connection.execute(
        """
        SELECT t.plan, t.position, ps.sample, CAST(hash(p.suite, ps.sample_cluster) >> 2 AS BIGINT) AS number
        FROM plan_samples ps JOIN tasks t USING (plan, task) JOIN plans p USING (plan)
        WHERE ps.sample_cluster IS NOT NULL AND list_contains(?, t.plan)
        ORDER BY t.plan, t.position, ps.sample
        """,
        [plans],
    ).fetchnumpy()
    columns = [np.asarray(rows[name], dtype=np.int64) for name in ("plan", "position", "sample", "number")]
    return {
        (int(columns[0][start]), int(columns[1][start])): (columns[2][start:end], columns[3][start:end])
        for start, end in _stretches(columns[:2])
    }


def _stretches(keys: Sequence[Ints]) -> list[tuple[int, int]]:
    """Return start and end of each run of equal keys in sorted columns."""
    count = len(keys[0])
    if not count:
        return []
    changes = np.zeros(count - 1, dtype=bool)
    for key in keys:
        changes |= key[1:] != key[:-1]
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), count]
    return list(pairwise(edges))


def _cut_columns(
    columns: Columns, tasks: Tasks, clusters: Mapping[tuple[int, int], tuple[Ints, Ints]], arms: Sequence[int]
) -> dict[int, list[TaskScores]]:
    """Split sorted columns into one record per arm and task."""
    scores: dict[int, list[TaskScores]] = {arm: [] for arm in arms}
    keys = [np.asarray(columns[name]) for name in ("arm", "plan", "position")]
    numbers = np.asarray(columns["sample"], dtype=np.int64)
    values = np.ma.filled(np.ma.asarray(columns["value"], dtype=np.float64), np.nan)
    kinds = {"weight": np.float64, "answer": np.int64, "invalid": np.bool_, "confidence": np.float64}
    optional = {name: _Column(columns[name], kind) for name, kind in kinds.items()}
    shared: dict[tuple[int, int], Ints] = {}
    of_shared: dict[tuple[int, int], Ints | None] = {}
    for start, end in _stretches(keys):
        arm, plan, position = (int(key[start]) for key in keys)
        row = tasks[plan, position]
        samples = numbers[start:end]
        if (plan, position) not in shared:
            shared[plan, position] = samples.copy()  # a copy, so that the column of all arms can be freed
            of_shared[plan, position] = _cluster_of(shared[plan, position], clusters.get((plan, position)))
        if np.array_equal(shared[plan, position], samples):
            # The usual case; sharing the arrays makes later comparisons fast.
            samples, declared = shared[plan, position], of_shared[plan, position]
        else:
            declared = _cluster_of(samples, clusters.get((plan, position)))
        part = {name: column.part(start, end) for name, column in optional.items()}
        known = row["aggregation"] in get_args(Aggregation)
        task_scores = build_record(
            TaskScores,
            row,
            aggregation=row["aggregation"] if known else "other",
            samples=samples,
            values=values[start:end],
            weights=part["weight"],
            clusters=declared,
            answers=part["answer"],
            invalid=part["invalid"],
            confidence=part["confidence"],
        )
        scores[arm].append(task_scores)
    return scores


class _Column:
    """A column with missing values; only parts without missing values are used."""

    def __init__(self, column: Any, kind: type[np.generic]) -> None:
        masked = np.ma.asarray(column)
        self._values = masked.data.astype(kind)
        self._gaps = np.ma.getmaskarray(masked) if np.ma.is_masked(masked) else None
        self._empty = self._gaps is not None and bool(self._gaps.all())

    def part(self, start: int, end: int) -> Any | None:
        """Return a slice of the column, None if a value in it is missing."""
        if self._empty or (self._gaps is not None and self._gaps[start:end].any()):
            return None
        return self._values[start:end]


def _cluster_of(samples: Ints, declared: tuple[Ints, Ints] | None) -> Ints | None:
    if declared is None:
        return None
    place = np.minimum(np.searchsorted(declared[0], samples), len(declared[0]) - 1)
    # A sample without a cluster is its own cluster; negative numbers, so that they are unique.
    return np.where(declared[0][place] == samples, declared[1][place], -samples - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """An aggregated metric of a finished run; `resamples` as in `Result`, None if an earlier version graded it."""

    arm: StoredArm
    suite: str
    role: Role
    task: str
    metric: str
    filter: str
    n: int
    value: float
    stderr: float | None
    higher_is_better: bool
    primary: bool
    is_group: bool
    resamples: Resamples | None = field(default=None, repr=False, metadata=INTERNAL)


def build_result(row: Row, arm: StoredArm) -> StoredResult:
    """Return the result in a row."""
    resamples = row["resamples"]
    if resamples is not None:
        resamples = build_record(Resamples, resamples, levels=tuple(resamples["levels"]))
    return build_record(StoredResult, row, arm=arm, resamples=resamples)
