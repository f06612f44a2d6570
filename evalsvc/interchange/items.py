"""Tables with one row per arm and item -> arms with scores."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from evalsvc.errors import UsageError
from evalsvc.files.json_files import read_json_or_lines
from evalsvc.interchange.arms import (
    Adaptation,
    Imported,
    ImportedTask,
    Target,
    aggregate,
    assemble,
    make_checkpoint,
)
from evalsvc.records.arms import Checkpoint
from evalsvc.records.digests import canonical, digest
from evalsvc.records.direction import find_direction
from evalsvc.records.plans import Metric, Sample
from evalsvc.records.scores import Score, identify_answer
from evalsvc.store.arms import StoredArm

_MEANINGS = ("arm", "item", "value", "task", "prompt", "answer", "cluster", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of a table's columns: the item, the arm that answered it, the score, and optional details."""

    arm: str
    item: str
    value: str
    task: str | None = None
    prompt: str | None = None
    answer: str | None = None
    cluster: str | None = None
    seed: str | None = None


def read_items(
    path: Path,
    columns: Columns,
    target: Target,
    method: str | None,
    base: str | None,
    stored: Sequence[StoredArm] = (),
) -> list[Imported]:
    """Read a Parquet, CSV or JSON-lines file with one row per arm and item; the base is first in the result.

    Args:
        method: How the arms were adapted; None for the stored arm's, else "unknown".
        stored: The store's arms: scores of an arm that it has are added to that arm.

    Raises:
        UsageError: The file or a column is missing, the base is not among the arms, an item appears twice, or the
            metric's direction is not known.
    """
    metric = _find_metric(path, target)
    table = _read_table(path, columns)
    count = len(table["arm"])
    for name in ("task", "prompt"):
        table.setdefault(name, [target.suite if name == "task" else ""] * count)
    rows: dict[str, dict[str, dict[str, int]]] = {}
    for number, (arm, task, item_id, prompt) in enumerate(
        zip(*(table[name] for name in ("arm", "task", "item", "prompt")), strict=True)
    ):
        if not any(fnmatchcase(str(task), pattern) for pattern in target.tasks):
            continue
        key = digest("item", str(task), str(item_id), str(prompt))
        items = rows.setdefault(str(arm), {}).setdefault(str(task), {})
        if key in items:
            raise UsageError(
                f"{path}: item {item_id!r} of task {task!r} appears twice for {arm!r}; "
                "give the column that distinguishes the two with --prompt"
            )
        items[key] = number
    _check_clusters(path, rows, table)
    if not rows:
        raise UsageError(f"{path}: has no row of a task that matches {' or '.join(target.tasks)}; give another --task")
    if base is not None and base not in rows:
        known = ", ".join(sorted(rows))
        raise UsageError(
            f"{path}: base {base!r} is not among its arms ({known}); add its "
            "rows to the table, or name the arm that is the base with --base"
        )
    ordered = sorted(rows, key=lambda arm: (arm != base, arm))
    of_base: Checkpoint | None = None
    arms = []
    for arm in ordered:
        tasks = [_table_task(task, items, table, metric) for task, items in rows[arm].items()]
        content = digest(*(canonical([s.sample, s.value]) for task in tasks for s in task.scores))
        adaptation = Adaptation(
            name=arm,
            method=None if arm == base else method,
            parent=of_base,
            seed=None if arm == base else _read_seed(path, arm, rows[arm].values(), table),
        )
        checkpoint = make_checkpoint(adaptation, content, path, stored)
        of_base = checkpoint if arm == base else of_base
        arms.append(assemble(checkpoint, target, path, tasks))
    return arms


def _check_clusters(
    path: Path, rows: Mapping[str, Mapping[str, Mapping[str, int]]], table: Mapping[str, list[Any]]
) -> None:
    """Refuse an item that is in different clusters.

    Raises:
        UsageError: An item is in another cluster for another arm.
    """
    known: dict[str, tuple[str, str]] = {}
    for arm, tasks in rows.items() if "cluster" in table else ():
        for task, items in tasks.items():
            for key, row in items.items():
                cluster = str(table["cluster"][row])
                first, of_first = known.setdefault(key, (cluster, arm))
                if cluster != first:
                    raise UsageError(
                        f"{path}: item {table['item'][row]!r} of task {task!r} is in cluster {first!r} for "
                        f"{of_first!r} and in {cluster!r} for {arm!r}; give it the same cluster in all rows"
                    )


def _read_seed(path: Path, arm: str, tasks: Iterable[Mapping[str, int]], table: Mapping[str, list[Any]]) -> int | None:
    """Return the seed of an arm's training, None if its rows have none.

    Raises:
        UsageError: The rows have several, or one that is no whole number.
    """
    rows = [row for items in tasks for row in items.values()] if "seed" in table else []
    seeds = {str(table["seed"][row]) for row in rows} - {"None", "nan", ""}
    if len(seeds) > 1:
        raise UsageError(
            f"{path}: arm {arm!r} has seeds {' and '.join(sorted(seeds)[:2])}; "
            "give every training run a name of its own"
        )
    if not seeds:
        return None
    (seed,) = seeds
    if not re.fullmatch(r"\d{1,18}(\.0)?", seed):
        raise UsageError(f"{path}: arm {arm!r} has seed {seed!r}, must be a whole number from 0 to 10^18 - 1")
    return int(seed.removesuffix(".0"))


def _find_metric(path: Path, target: Target) -> Metric:
    """Return the metric of the scores, by default "score", of which more is better.

    Raises:
        UsageError: The metric's direction is not known.
    """
    name = target.metric or "score"
    higher = True if name == "score" else find_direction(name)
    if name in (*target.higher, *target.lower):
        higher = name in target.higher
    if higher is None:
        raise UsageError(
            f"{path}: whether a higher or a lower {name} is better is not known; give --higher-is-better {name} or "
            f"--lower-is-better {name}"
        )
    return Metric(name, "none", "mean", higher)


def _read_table(path: Path, columns: Columns) -> dict[str, list[Any]]:
    """Return the columns of a table by their meaning; its format is that of the file's name, else Parquet."""
    names = {meaning: name for meaning in _MEANINGS if (name := getattr(columns, meaning)) is not None}
    table = _READERS.get(path.suffix.lower(), _read_parquet)(path)
    for meaning, name in names.items():
        if name not in table:
            option = {"task": "task-column"}.get(meaning, meaning)
            raise UsageError(f"{path}: has no column {name!r} for --{option}; choose from {', '.join(table)}")
    return {meaning: table[name] for meaning, name in names.items()}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pydict()  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}; tables of other formats are read from "
            f"files called {', '.join(f'*{ending}' for ending in _READERS)}"
        ) from error


def _read_csv(path: Path) -> dict[str, list[Any]]:
    """Read a CSV or TSV file with a header; scores are numbers, true or false."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            rows = list(reader)
            names = list(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as CSV: {error}") from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise UsageError(f"{path}: row {number} has another number of columns than the header ({len(names)})")
    return {name: [row[name] for row in rows] for name in names}


def _read_json_rows(path: Path) -> dict[str, list[Any]]:
    rows = read_json_or_lines(path)
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: must have one JSON object per line")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


_READERS: dict[str, Callable[[Path], dict[str, list[Any]]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_rows,
    ".json": _read_json_rows,
}
"""Ending of a table's name to the function that reads it."""


def _read_score(value: Any) -> float | None:
    """Return a score as a number; None if it is none. CSV files have text: numbers, true or false."""
    if isinstance(value, str):
        try:
            value = {"true": 1.0, "false": 0.0}.get(value.strip().lower(), value)
            value = float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _table_task(task: str, items: Mapping[str, int], table: Mapping[str, list[Any]], metric: Metric) -> ImportedTask:
    samples, scores = [], []
    for position, (key, row) in enumerate(items.items()):
        value = _read_score(table["value"][row])
        if value is None:
            raise UsageError(
                f"item {table['item'][row]!r} of task {task!r}: score is {table['value'][row]!r}, must be a number"
            )
        cluster = str(table["cluster"][row]) if "cluster" in table else None
        samples.append(
            Sample(
                digest=key,
                doc_id=position,
                doc=canonical({"item": str(table["item"][row])}),
                target="",
                requests=(),
                cluster=cluster,
            )
        )
        text = table["answer"][row] if "answer" in table else None
        answer = None if "answer" not in table else identify_answer(str(text))
        invalid = None if "answer" not in table else text is None or str(text) in {"", "[invalid]"}
        scores.append(
            Score(
                sample=key,
                metric=metric.name,
                filter="none",
                value=value,
                weight=None,
                detail=None,
                answer=answer,
                invalid=invalid,
            )
        )
    result = aggregate(task, metric, scores, True)
    return ImportedTask(name=task, metrics=(metric,), samples=tuple(samples), scores=tuple(scores), results=(result,))
