"""What people look at one by one: items with both arms' answers, page by page, and requests that failed.

Reads the store's file; knows no statistics. Pages are cut by the database, so that millions of items cost no more than
the page that is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from evalsvc.errors import UsageError
from evalsvc.store.database import Connection, Database
from evalsvc.store.rows import build_record, fetch_rows
from evalsvc.store.scores import ASKED, CHOSEN

Fate = Literal["lost", "gained", "kept", "never known"]
FATES: tuple[Fate, ...] = get_args(Fate)
PAGE = 50

# Items of both arms, on the plans that comparisons choose.
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
_TEXT = (
    "SELECT p.* FROM pairs p JOIN samples s USING (sample) JOIN plan_samples m ON m.plan = p.plan "
    "AND m.task = p.task AND m.sample = p.sample WHERE contains(lower(s.doc), lower($text)) "
    "OR contains(lower(s.target), lower($text)) OR contains(lower(coalesce(m.sample_cluster, '')), lower($text))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which items are wanted.

    Attributes:
        fates: Empty: all.
        text: Part of the document, the gold answer or the cluster, in any case.
        unparsed: Only items whose answer could not be parsed in either arm.
    """

    suite: str | None = None
    task: str | None = None
    fates: tuple[Fate, ...] = ()
    text: str = ""
    unparsed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedItem:
    """One item with both arms' scores; `gain` counts better positive."""

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
    """A page of items, the greatest loss first, and how many of each fate there are on all pages."""

    items: tuple[PairedItem, ...]
    counts: dict[str, int]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemAnswer:
    """What one arm answered to one request of an item; all None if it did not."""

    loglikelihood: float | None
    greedy: bool | None
    text: str | None
    tokens: int | None
    truncated: int | None


@dataclass(frozen=True, slots=True)
class AskedRequest:
    """One request of an item, with both arms' answers."""

    kind: str
    arguments: tuple[str, ...]
    base: ItemAnswer
    adapted: ItemAnswer


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A reason for which requests of a run could not be answered, and how many share it."""

    error: str
    requests: int


class Browser:
    """Items, answers and failures in a store's file."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        self._database = Database(path, wait)

    def fingerprint(self) -> tuple[str, ...]:
        """Return what changes whenever a run is finished or an arm, a matrix, drift or a decision is added."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM runs WHERE state = 'done'), "
                "(SELECT max(updated) FROM runs WHERE state = 'done'), (SELECT count(*) FROM arms), "
                "(SELECT count(*) FROM matrices), (SELECT count(*) FROM drift), (SELECT count(*) FROM decisions), "
                "(SELECT count(*) FROM changes), (SELECT count(*) FROM findings)"
            ).fetchone()
        return tuple(str(value) for value in row or ())

    def page(self, base: int, adapted: int, wanted: Filter, offset: int = 0, limit: int = PAGE) -> ItemPage:
        """Return items that two arms were both scored on.

        Args:
            base, adapted: Numbers of the arms.

        Raises:
            UsageError: A fate is unknown.
        """
        unknown = [fate for fate in wanted.fates if fate not in FATES]
        if unknown or offset < 0 or limit < 1:
            raise UsageError(
                f"fate {', '.join(unknown) or '-'} from {offset}: must be of {', '.join(FATES)}, from 0 up"
            )
        suites = [wanted.suite] if wanted.suite else None
        values: dict[str, Any] = {
            "base": base,
            "adapted": adapted,
            "plans": None,
            "suites": suites,
            "task": wanted.task,
        }
        source, condition = "SELECT * FROM pairs", ""
        if wanted.text:
            source, values["text"] = _TEXT, wanted.text
        if wanted.unparsed:
            condition = "WHERE coalesce(base_invalid, false) OR coalesce(adapted_invalid, false)"
        found = f"{_PAIRS}, found AS (SELECT * FROM ({source}) {condition})"
        with self._database.read() as connection:
            counts = dict(
                connection.execute(f"{found} SELECT fate, count(*) FROM found GROUP BY fate", values).fetchall()
            )
            cursor = connection.execute(
                f"""
                {found}, cut AS (
                    SELECT * FROM found WHERE len($fates) = 0 OR list_contains($fates, fate)
                    ORDER BY gain, suite, position, sample LIMIT $limit OFFSET $offset
                )
                SELECT x.sample, x.suite, x.task, x.fate, x.base, x.adapted, x.gain,
                       coalesce(x.base_invalid, false) AS base_invalid,
                       coalesce(x.adapted_invalid, false) AS adapted_invalid,
                       s.doc, s.target, m.sample_cluster AS cluster
                FROM cut x JOIN samples s USING (sample)
                JOIN plan_samples m ON m.plan = x.plan AND m.task = x.task AND m.sample = x.sample
                ORDER BY x.gain, x.suite, x.position, x.sample
                """,
                {**values, "fates": list(wanted.fates), "limit": limit, "offset": offset},
            )
            items = tuple(build_record(PairedItem, row) for row in fetch_rows(cursor))
        total = sum(count for fate, count in counts.items() if not wanted.fates or fate in wanted.fates)
        return ItemPage(items, counts, total)

    def list_requests(self, sample: int, base: int, adapted: int) -> list[AskedRequest]:
        """Return an item's requests in their order, with what both arms answered."""
        with self._database.read() as connection:
            rows = connection.execute(
                """
                WITH q AS (
                    SELECT unnest(requests) AS request, generate_subscripts(requests, 1) AS place
                    FROM samples WHERE sample = ?
                )
                SELECT r.kind, r.arguments, q.request FROM q JOIN requests r USING (request) ORDER BY q.place
                """,
                [sample],
            ).fetchall()
            answers = [_answers(connection, arm, [row[2] for row in rows]) for arm in (base, adapted)]
        nothing = ItemAnswer(loglikelihood=None, greedy=None, text=None, tokens=None, truncated=None)
        return [
            AskedRequest(kind, tuple(arguments), *(found.get(request, nothing) for found in answers))
            for kind, arguments, request in rows
        ]

    def failures(self, arm: int, plan: str, limit: int = PAGE) -> list[FailedRequest]:
        """Return why requests of a plan could not be answered by an arm, the most frequent reason first."""
        with self._database.read() as connection:
            cursor = connection.execute(
                f"""
                WITH {ASKED}
                SELECT f.error, count(*) AS requests FROM failures f JOIN asked USING (request) WHERE f.arm = ?
                GROUP BY f.error ORDER BY count(*) DESC, f.error LIMIT ?
                """,
                [plan, arm, limit],
            )
            return [build_record(FailedRequest, row) for row in fetch_rows(cursor)]


def _answers(connection: Connection, arm: int, requests: Sequence[int]) -> dict[int, ItemAnswer]:
    cursor = connection.execute(
        "SELECT request, loglikelihood, greedy, text, tokens, truncated FROM responses "
        "WHERE arm = ? AND list_contains(?, request)",
        [arm, list(requests)],
    )
    return {row["request"]: build_record(ItemAnswer, row) for row in fetch_rows(cursor)}
