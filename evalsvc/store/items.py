"""Items with both arms' answers, page by page, and failed requests.

Pagination is done in the database, so that a page takes the same time among millions of items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from evalsvc.errors import UsageError
from evalsvc.records.serialise import build_record
from evalsvc.store.database import Connection, Database
from evalsvc.store.rows import fetch_row, fetch_rows
from evalsvc.store.scores import ASKED, CHOSEN

Fate = Literal["lost", "gained", "kept", "never known"]
FATES: tuple[Fate, ...] = get_args(Fate)
PAGE = 50

# Items that both arms have scores on, on the plans that comparisons use.
_PAIRS = f"""
    WITH {CHOSEN},
    pairs AS (
        SELECT c.suite, t.position, t.task, t.plan, b.sample, b.value AS base, a.value AS adapted,
               b.invalid AS base_invalid, a.invalid AS adapted_invalid,
               -- The values behind a perplexity are log-likelihoods: higher is better, whatever the metric's sign.
               t.higher_is_better OR t.aggregation IN ('perplexity', 'weighted_perplexity', 'bits_per_byte') AS up,
               CASE WHEN up THEN a.value - b.value ELSE b.value - a.value END AS gain,
               CASE WHEN gain < 0 THEN 'lost' WHEN gain > 0 THEN 'gained'
                    WHEN b.value = 0 AND up THEN 'never known' ELSE 'kept' END AS fate
        FROM chosen c JOIN tasks t USING (plan)
        JOIN runs u ON u.plan = c.plan AND u.arm = $adapted AND u.state = 'done'
        JOIN scores b ON b.run = c.run AND b.task = t.task AND b.metric = t.metric AND b.filter = t.filter
        JOIN scores a ON a.run = u.run AND a.task = t.task AND a.metric = t.metric AND a.filter = t.filter
                      AND a.sample = b.sample
        WHERE $task IS NULL OR t.task = $task
    )
"""
_OF_ITEM = (
    "JOIN samples s ON s.sample = x.sample "
    "JOIN plan_samples m ON m.plan = x.plan AND m.task = x.task AND m.sample = x.sample"
)
_HAS_TEXT = (
    "(contains(lower(s.doc), lower($text)) OR contains(lower(s.target), lower($text)) "
    "OR contains(lower(coalesce(m.sample_cluster, '')), lower($text)))"
)
_IS_UNPARSED = "(coalesce(x.base_invalid, false) OR coalesce(x.adapted_invalid, false))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which items to return.

    Attributes:
        fates: Empty for all.
        text: Part of the document, the gold answer or the cluster; case-insensitive.
        unparsed: Only items where an answer of either arm could not be parsed.
    """

    suite: str | None = None
    task: str | None = None
    fates: tuple[Fate, ...] = ()
    text: str = ""
    unparsed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedItem:
    """One item with both arms' scores; a positive `gain` is better."""

    sample: int
    suite: str
    task: str
    fate: Fate
    base: float
    adapted: float
    gain: float
    base_invalid: bool
    adapted_invalid: bool
    doc: str
    target: str
    cluster: str | None


@dataclass(frozen=True, slots=True)
class ItemPage:
    """A page of items, the largest loss first, and the number of items of each fate on all pages."""

    items: tuple[PairedItem, ...]
    counts: dict[str, int]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemAnswer:
    """One arm's response to one request of an item; all None if there is no response."""

    loglikelihood: float | None
    greedy: bool | None
    text: str | None
    tokens: int | None
    truncated: int | None


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """One request of an item, with both arms' responses."""

    kind: str
    arguments: tuple[str, ...]
    base: ItemAnswer
    adapted: ItemAnswer


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """An error of requests of a run, and the number of requests with it."""

    error: str
    requests: int


@dataclass(frozen=True, slots=True)
class ItemText:
    """The document and the gold answer of an item."""

    doc: str
    target: str


_CHANGES = {
    "finished": "SELECT count(*) FROM runs WHERE state = 'done'",
    "updated": "SELECT max(updated) FROM runs WHERE state = 'done'",
    **{
        table: f"SELECT count(*) FROM {table}"
        for table in ("arms", "matrices", "drift", "decisions", "changes", "findings")
    },
}


class StoredItems:
    """Items, answers and failures in a store's file."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        self._database = Database(path, wait)

    def fingerprint(self) -> tuple[str, ...]:
        """Return values that change when a run is finished, or an arm, a matrix, drift or a decision is added."""
        columns = ", ".join(f"({query}) AS {name}" for name, query in _CHANGES.items())
        with self._database.read() as connection:
            row = fetch_row(connection.execute(f"SELECT {columns}")) or {}
        return tuple(str(row[name]) for name in _CHANGES)

    def texts(self, samples: Sequence[int]) -> dict[int, ItemText]:
        """Return the texts of items, by the samples' numbers."""
        with self._database.read() as connection:
            cursor = connection.execute(
                "SELECT sample, doc, target FROM samples WHERE list_contains(?, sample)", [list(samples)]
            )
            return {row["sample"]: build_record(ItemText, row) for row in fetch_rows(cursor)}

    def page(self, base: int, adapted: int, choice: Filter, offset: int = 0, limit: int = PAGE) -> ItemPage:
        """Return a page of the items that both arms have scores on.

        Args:
            base, adapted: Numbers of the arms.

        Raises:
            UsageError: A fate is unknown, or `offset` or `limit` is out of range.
        """
        unknown = [fate for fate in choice.fates if fate not in FATES]
        if unknown:
            raise UsageError(f"fate {unknown[0]!r}: must be one of {', '.join(FATES)}")
        if offset < 0 or limit < 1:
            raise UsageError(f"limit {limit}, offset {offset}: limit must be at least 1, offset at least 0")
        values: dict[str, Any] = {
            "base": base,
            "adapted": adapted,
            "plans": None,
            "suites": [choice.suite] if choice.suite else None,
            "task": choice.task,
        }
        source, conditions = "pairs x", ["true"]
        if choice.text:
            source, values["text"] = f"{source} {_OF_ITEM}", choice.text
            conditions.append(_HAS_TEXT)
        if choice.unparsed:
            conditions.append(_IS_UNPARSED)
        condition = " AND ".join(conditions)
        with self._database.read() as connection:
            cursor = connection.execute(
                f"{_PAIRS} SELECT x.fate, count(*) AS items FROM {source} WHERE {condition} GROUP BY x.fate", values
            )
            counts = {row["fate"]: row["items"] for row in fetch_rows(cursor)}
            cursor = connection.execute(
                f"""
                {_PAIRS}, x AS (
                    SELECT x.plan, x.suite, x.position, x.task, x.sample, x.fate, x.base, x.adapted, x.gain,
                           coalesce(x.base_invalid, false) AS base_invalid,
                           coalesce(x.adapted_invalid, false) AS adapted_invalid
                    FROM {source} WHERE {condition} AND (len($fates) = 0 OR list_contains($fates, x.fate))
                    ORDER BY x.gain, x.suite, x.position, x.sample LIMIT $limit OFFSET $offset
                )
                SELECT x.sample, x.suite, x.task, x.fate, x.base, x.adapted, x.gain, x.base_invalid,
                       x.adapted_invalid, s.doc, s.target, m.sample_cluster AS cluster
                FROM x {_OF_ITEM} ORDER BY x.gain, x.suite, x.position, x.sample
                """,
                {**values, "fates": list(choice.fates), "limit": limit, "offset": offset},
            )
            items = tuple(build_record(PairedItem, row) for row in fetch_rows(cursor))
        total = sum(count for fate, count in counts.items() if not choice.fates or fate in choice.fates)
        return ItemPage(items, counts, total)

    def list_requests(self, sample: int, base: int, adapted: int) -> list[AnsweredRequest]:
        """Return an item's requests in order, with both arms' responses."""
        with self._database.read() as connection:
            rows = fetch_rows(
                connection.execute(
                    """
                    WITH q AS (
                        SELECT unnest(requests) AS request, generate_subscripts(requests, 1) AS place
                        FROM samples WHERE sample = ?
                    )
                    SELECT r.kind, r.arguments, q.request FROM q JOIN requests r USING (request) ORDER BY q.place
                    """,
                    [sample],
                )
            )
            numbers = [row["request"] for row in rows]
            of_base, of_adapted = (_read_answers(connection, arm, numbers) for arm in (base, adapted))
        nothing = ItemAnswer(loglikelihood=None, greedy=None, text=None, tokens=None, truncated=None)
        return [
            AnsweredRequest(
                kind=row["kind"],
                arguments=tuple(row["arguments"]),
                base=of_base.get(row["request"], nothing),
                adapted=of_adapted.get(row["request"], nothing),
            )
            for row in rows
        ]

    def failures(self, arm: int, plan: str, limit: int = PAGE) -> list[FailedRequest]:
        """Return the errors of an arm's failed requests of a plan, the most frequent first."""
        with self._database.read() as connection:
            cursor = connection.execute(
                f"""
                WITH {ASKED}
                SELECT f.error, count(*) AS requests FROM failures f JOIN asked USING (request) WHERE f.arm = $arm
                GROUP BY f.error ORDER BY count(*) DESC, f.error LIMIT $limit
                """,
                {"plan": plan, "arm": arm, "limit": limit},
            )
            return [build_record(FailedRequest, row) for row in fetch_rows(cursor)]


def _read_answers(connection: Connection, arm: int, requests: Sequence[int]) -> dict[int, ItemAnswer]:
    cursor = connection.execute(
        "SELECT request, loglikelihood, greedy, text, tokens, truncated FROM responses "
        "WHERE arm = ? AND list_contains(?, request)",
        [arm, list(requests)],
    )
    return {row["request"]: build_record(ItemAnswer, row) for row in fetch_rows(cursor)}
