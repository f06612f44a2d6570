"""Tables with one row per arm and item -> arms with scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from evalsvc.errors import UsageError
from evalsvc.interchange.arms import (
    Imported,
    ImportedTask,
    Target,
    aggregate,
    assemble,
    make_checkpoint,
)
from evalsvc.records.arms import Checkpoint
from evalsvc.records.digests import canonical, digest
from evalsvc.records.direction import is_higher_better
from evalsvc.records.plans import Metric, Sample
from evalsvc.records.scores import Score

# ----------------------------------------------------------------------------------------------------- items in a table


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


def read_items(path: Path, columns: Columns, target: Target, method: str, base: str | None) -> list[Imported]:
    """Read a Parquet file with one row per arm and item; the base is first in the result.

    Raises:
        UsageError: The file or a column is missing, the base is not among the arms, or an item appears twice.
    """
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
    if not rows or (base is not None and base not in rows):
        known = ", ".join(sorted(rows)) or "no row matches"
        raise UsageError(f"{path}: base {base!r} is not among its arms ({known}); name one of them with --base")
    ordered = sorted(rows, key=lambda arm: (arm != base, arm))
    of_base: Checkpoint | None = None
    arms = []
    for arm in ordered:
        tasks = [_table_task(task, items, table, target) for task, items in rows[arm].items()]
        content = digest(*(canonical([s.sample, s.value]) for task in tasks for s in task.scores))
        checkpoint = make_checkpoint(arm, content, "base" if arm == base or base is None else method, path, of_base)
        of_base = checkpoint if arm == base else of_base
        arms.append(assemble(checkpoint, target, path, tasks))
    return arms


def _read_table(path: Path, columns: Columns) -> dict[str, list[Any]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    values: dict[str, list[Any]] = {}
    for meaning in ("arm", "item", "value", "task", "prompt", "answer", "cluster"):
        name = getattr(columns, meaning)
        if name is None:
            continue
        if name not in table.column_names:
            raise UsageError(
                f"{path}: has no column {name!r} for --{meaning}; choose from {', '.join(table.column_names)}"
            )
        values[meaning] = table.column(name).to_pylist()
    return values


def _table_task(task: str, items: Mapping[str, int], table: Mapping[str, list[Any]], target: Target) -> ImportedTask:
    metric = Metric(target.metric or "score", "none", "mean", is_higher_better(target.metric or ""))
    samples, scores = [], []
    for position, (key, row) in enumerate(items.items()):
        value = table["value"][row]
        if not isinstance(value, int | float):
            raise UsageError(f"item {table['item'][row]!r} of task {task!r}: score is {value!r}, must be a number")
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
        answer = None if "answer" not in table else int(digest("answer", str(text))[:15], 16)
        invalid = None if "answer" not in table else text is None or str(text) in {"", "[invalid]"}
        scores.append(
            Score(
                sample=key,
                metric=metric.name,
                filter="none",
                value=float(value),
                weight=None,
                detail=None,
                answer=answer,
                invalid=invalid,
            )
        )
    result = aggregate(task, metric, scores, True)
    return ImportedTask(name=task, metrics=(metric,), samples=tuple(samples), scores=tuple(scores), results=(result,))
