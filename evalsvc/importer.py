"""Results that others have computed: lm-eval's files, tables of items, matrices of tasks -> the store.

What is imported has numerics of its own ("imported"), so that it is compared with itself and never with what evalsvc
scored. Items are known by task, id and prompt, as they are everywhere: never by their row.
"""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records import (
    Aggregation,
    Arm,
    Checkpoint,
    Graded,
    Metric,
    Numerics,
    Plan,
    PlannedTask,
    Rendering,
    Result,
    Role,
    Sample,
    Score,
    canonical,
    digest,
)
from evalsvc.stats.estimates import SMOOTH, WEIGHTED, estimate

NUMERICS = Numerics("imported", "", "", "")
_LOWER_IS_BETTER = {"bits_per_byte", "word_perplexity", "byte_perplexity", "perplexity", "ppl", "wer", "brier_score"}
_AGGREGATIONS: dict[str, Aggregation] = {
    "bits_per_byte": "bits_per_byte",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "perplexity": "perplexity",
    "ppl": "perplexity",
}
_HEADLINES = ("bits_per_byte", "acc_norm", "acc", "exact_match")
"""What comparisons use, if nobody says otherwise and the task has it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where imported scores go: a suite, its role, and which tasks of the file belong to it (shell patterns)."""

    suite: str
    role: Role
    tasks: tuple[str, ...] = ("*",)
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """One arm with its scores on one plan."""

    arm: Arm
    plan: Plan
    graded: Graded


@dataclass(frozen=True, slots=True)
class _Task:
    """One task of a file: its metrics, the headline first, and its items' scores."""

    name: str
    metrics: tuple[Metric, ...]
    samples: tuple[Sample, ...]
    scores: tuple[Score, ...]
    results: tuple[Result, ...]
    chance: float | None = None


def read_json(path: Path) -> Any:
    """Read JSON, gzipped or not.

    Raises:
        UsageError: There is no such file, or it holds no JSON.
    """
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is no JSON ({error})") from error


def checkpoint(
    name: str, content: str, method: str, source: Path, parent: Checkpoint | None = None, step: int | None = None
) -> Checkpoint:
    """Make the checkpoint that imported scores belong to; its identity is what was imported."""
    hexadecimal = digest("imported", name, content) + digest(content, name)
    trajectory = name if step is not None else None
    return Checkpoint(
        digest=f"sha256:{hexadecimal}",
        name=name,
        path=str(source.resolve()),
        method=method,
        tokenizer="",
        parent=parent.digest if parent else None,
        step=step,
        trajectory=trajectory,
    )


def assemble(of: Checkpoint, target: Target, source: Path, tasks: Sequence[_Task]) -> Imported:
    """Put an arm's tasks together; the same items make the same plan."""
    planned = tuple(
        PlannedTask(
            name=task.name,
            group=None,
            version="imported",
            output_type="imported",
            shots=0,
            metrics=task.metrics,
            weight=1.0,
            chance=task.chance,
            samples=task.samples,
        )
        for task in tasks
    )
    content = [(task.name, canonical([m.name for m in task.metrics[:1]])) for task in planned]
    identity = digest(
        *("imported plan", target.suite, target.role, canonical(content)),
        *(sample.digest for task in planned for sample in task.samples),
    )
    plan = Plan(
        digest=identity,
        suite=target.suite,
        role=target.role,
        description="imported",
        suite_digest=identity,
        suite_path=str(source.resolve()),
        rendering=Rendering(),
        tasks=planned,
        requests=(),
    )
    results = tuple(result for task in tasks for result in task.results)
    return Imported(Arm(of, NUMERICS), plan, Graded(results, {task.name: task.scores for task in tasks}))


# ---------------------------------------------------------------------------------------------------- lm-eval's files


def read_lm_eval(results: Path, samples: Sequence[Path], of: Checkpoint, target: Target) -> Imported:
    """Read one results file, in the format of today or that of 2023, with its `log_samples` if there are any.

    Args:
        samples: Files of one task each (`samples_TASK_DATE.jsonl`), or of all (a JSON object, task to records).

    Raises:
        UsageError: A file is not what it should be, or no task matches.
        EvidenceError: The samples do not add up to the results.
    """
    found = read_json(results)
    if not isinstance(found, dict) or not isinstance(found.get("results"), dict):
        raise UsageError(f"{results}: has no `results`; give the results_*.json that lm-eval wrote")
    records: dict[str, list[dict[str, Any]]] = {}
    for path in samples:
        records |= _read_samples(path)
    better = found.get("higher_is_better") or {}
    tasks = []
    for name, row in found["results"].items():
        if any(fnmatchcase(name, pattern) for pattern in target.tasks):
            metrics = _metrics(name, row, better.get(name) or {}, target)
            if metrics:
                tasks.append(_lm_eval_task(name, row, metrics, records.get(name, []), results))
    if not tasks:
        raise UsageError(f"{results}: no task matches {', '.join(target.tasks)}; it has {', '.join(found['results'])}")
    return assemble(of, target, results, tasks)


def _read_samples(path: Path) -> dict[str, list[dict[str, Any]]]:
    if ".jsonl" not in path.name:
        found = read_json(path)
        if not isinstance(found, dict):
            raise UsageError(f"{path}: holds a {type(found).__name__}, must be an object of task to samples")
        return found
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        records = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON lines: {error}") from error
    # lm-eval names the file samples_TASK_2025-01-31T12-00-00.123456.jsonl.
    stem = path.name.removeprefix("samples_").split(".jsonl")[0]
    task, _, date = stem.rpartition("_")
    return {task if date[:4].isdigit() and "T" in date else stem: records}


def _metrics(task: str, row: Mapping[str, Any], better: Mapping[str, Any], target: Target) -> tuple[Metric, ...]:
    """Return a task's metrics, the headline first; none where it has no number."""
    found = []
    for key, value in row.items():
        name, _, filter_name = key.partition(",")
        if isinstance(value, bool) or not isinstance(value, int | float) or name.endswith("_stderr"):
            continue
        if name in {"sample_len", "alias"}:
            continue
        higher = better.get(name, name not in _LOWER_IS_BETTER)
        found.append(Metric(name, filter_name or "none", _AGGREGATIONS.get(name, "mean"), bool(higher)))
    wanted = (target.metric,) if target.metric else _HEADLINES
    first = next((metric for name in wanted for metric in found if metric.name == name), None)
    if target.metric and first is None:
        raise UsageError(
            f"task {task}: has no metric {target.metric!r}, only {', '.join(sorted({m.name for m in found}))}"
        )
    if first is None:
        return tuple(found)
    return (first, *(metric for metric in found if metric != first))


def _lm_eval_task(
    name: str, row: Mapping[str, Any], metrics: tuple[Metric, ...], records: list[dict[str, Any]], source: Path
) -> _Task:
    if not records:
        results = tuple(_published(name, row, metric, metric == metrics[0]) for metric in metrics)
        return _Task(name, metrics, (), (), results)
    counts: Counter[str] = Counter()
    samples: dict[str, Sample] = {}
    scores: list[Score] = []
    for record in records:
        asked = canonical(record.get("arguments"))
        key = digest("imported", name, _document(record), asked)
        known = key, str(record.get("filter", "none"))
        counts[canonical(known)] += 1
        key = digest(key, str(counts[canonical(known)])) if counts[canonical(known)] > 1 else key
        samples.setdefault(key, _sample(key, record))
        scores += _lm_eval_scores(key, record, metrics)
    kept = tuple(metric for metric in metrics if any(s.metric == metric.name for s in scores))
    if not kept:
        names = ", ".join(metric.name for metric in metrics)
        raise UsageError(f"{source}: the samples of {name} have none of its metrics ({names})")
    results = tuple(_aggregated(name, metric, scores, metric == kept[0]) for metric in kept)
    for result, metric in zip(results, kept, strict=True):
        published = row.get(f"{metric.name},{metric.filter}", row.get(metric.name))
        if isinstance(published, float | int) and not math.isclose(result.value, published, rel_tol=1e-6, abs_tol=1e-9):
            raise EvidenceError(
                f"{source}: {name}: its {result.n} samples give {metric.name} {result.value:g}, "
                f"but the results say {published:g}; they are not from one run"
            )
    return _Task(name, kept, tuple(samples.values()), tuple(scores), results, _guessing(records))


def _document(record: Mapping[str, Any]) -> str:
    return str(record.get("doc_hash") or digest(canonical(record.get("doc"))))


def _sample(key: str, record: Mapping[str, Any]) -> Sample:
    doc = record.get("doc", {"doc_hash": _document(record)})
    return Sample(key, int(record.get("doc_id", 0)), canonical(doc), str(record.get("target", "")), ())


def _lm_eval_scores(key: str, record: Mapping[str, Any], metrics: Iterable[Metric]) -> list[Score]:
    found = []
    filter_name = str(record.get("filter", "none"))
    for metric in metrics:
        value = record.get(metric.name)
        if metric.filter != filter_name or value is None:
            continue
        if metric.aggregation in WEIGHTED:
            amount, weight = value
            found.append(Score(key, metric.name, filter_name, float(amount), float(weight)))
        elif isinstance(value, int | float):
            found.append(Score(key, metric.name, filter_name, float(value), None, None, *_answer(record, metric.name)))
    return found


def _answer(record: Mapping[str, Any], metric: str) -> tuple[int | None, bool | None, float | None]:
    """Return what was answered: the option chosen with its probability, or the text; see `records.Score`."""
    given = record.get("filtered_resps")
    if not isinstance(given, list) or not given:
        return None, None, None
    if len(given) == 1 and isinstance(given[0], str):
        return int(digest("answer", given[0])[:15], 16), given[0] in {"[invalid]", ""}, None
    if len(given) < 2 or metric != "acc" or not all(isinstance(one, list) and len(one) == 2 for one in given):
        return None, None, None
    likelihoods = np.array([float(one[0]) for one in given])
    share = np.exp(likelihoods - likelihoods.max())
    best = int(np.argmax(likelihoods))
    return best, None, float(share[best] / share.sum())


def _guessing(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the accuracy of guessing among the options of multiple-choice records."""
    sizes = [len(given) for record in records if isinstance(given := record.get("filtered_resps"), list)]
    return sum(1 / size for size in sizes) / len(sizes) if sizes and min(sizes) > 1 else None


def _published(task: str, row: Mapping[str, Any], metric: Metric, primary: bool) -> Result:
    key = metric.name if metric.name in row else f"{metric.name},{metric.filter}"
    name, _, filter_name = key.partition(",")
    stderr = row.get(f"{name}_stderr,{filter_name}" if filter_name else f"{name}_stderr")
    number = float(stderr) if isinstance(stderr, int | float) and not isinstance(stderr, bool) else None
    size = row.get("sample_len")
    n = int(size) if isinstance(size, int | float) else 0
    return Result(task, metric.name, metric.filter, n, float(row[key]), number, metric.higher_is_better, primary)


def _aggregated(task: str, metric: Metric, scores: Sequence[Score], primary: bool) -> Result:
    mine = [s for s in scores if (s.metric, s.filter) == (metric.name, metric.filter) and s.value is not None]
    values = np.array([s.value for s in mine], dtype=np.float64)
    weights = np.array([s.weight for s in mine], dtype=np.float64) if metric.aggregation in WEIGHTED else None
    found = estimate(values, weights, metric.aggregation if metric.aggregation in SMOOTH else "mean")
    stderr = found.stderr if math.isfinite(found.stderr) else None
    return Result(task, metric.name, metric.filter, len(mine), found.value, stderr, metric.higher_is_better, primary)


# ----------------------------------------------------------------------------------------------------- items in a table


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns: what an item is, who answered it, and how well."""

    arm: str
    item: str
    value: str
    task: str | None = None
    prompt: str | None = None
    answer: str | None = None
    cluster: str | None = None


def read_items(path: Path, columns: Columns, target: Target, method: str, base: str | None) -> list[Imported]:
    """Read a Parquet file with one row per arm and item; the base comes first.

    Raises:
        UsageError: The file or a column is missing, the base is not among the arms, or an item appears twice.
    """
    table = _read_table(path, columns)
    count = len(table["arm"])
    for name in ("task", "prompt"):
        table.setdefault(name, [target.suite if name == "task" else ""] * count)
    rows: dict[str, dict[str, dict[str, int]]] = {}
    for number, (arm, task, item, prompt) in enumerate(
        zip(*(table[name] for name in ("arm", "task", "item", "prompt")), strict=True)
    ):
        if not any(fnmatchcase(str(task), pattern) for pattern in target.tasks):
            continue
        key = digest("item", str(task), str(item), str(prompt))
        items = rows.setdefault(str(arm), {}).setdefault(str(task), {})
        if key in items:
            raise UsageError(
                f"{path}: item {item!r} of task {task!r} appears twice for {arm!r}; "
                "name a column with --prompt that tells the two apart"
            )
        items[key] = number
    if not rows or (base is not None and base not in rows):
        known = ", ".join(sorted(rows)) or "no row matches"
        raise UsageError(f"{path}: the base {base!r} is none of its arms: {known}")
    ordered = sorted(rows, key=lambda arm: (arm != base, arm))
    of_base: Checkpoint | None = None
    found = []
    for arm in ordered:
        tasks = [_table_task(task, items, table, target) for task, items in rows[arm].items()]
        content = digest(*(canonical([s.sample, s.value]) for task in tasks for s in task.scores))
        made = checkpoint(arm, content, "base" if arm == base or base is None else method, path, of_base)
        of_base = made if arm == base else of_base
        found.append(assemble(made, target, path, tasks))
    return found


def _read_table(path: Path, columns: Columns) -> dict[str, list[Any]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    found: dict[str, list[Any]] = {}
    for meaning in ("arm", "item", "value", "task", "prompt", "answer", "cluster"):
        name = getattr(columns, meaning)
        if name is None:
            continue
        if name not in table.column_names:
            raise UsageError(f"{path}: has no column {name!r} for --{meaning}; it has {', '.join(table.column_names)}")
        found[meaning] = table.column(name).to_pylist()
    return found


def _table_task(task: str, items: Mapping[str, int], table: Mapping[str, list[Any]], target: Target) -> _Task:
    metric = Metric(target.metric or "score", "none", "mean", (target.metric or "") not in _LOWER_IS_BETTER)
    samples, scores = [], []
    for position, (key, row) in enumerate(items.items()):
        value = table["value"][row]
        if not isinstance(value, int | float):
            raise UsageError(f"item {table['item'][row]!r} of task {task!r}: its score is {value!r}, must be a number")
        cluster = str(table["cluster"][row]) if "cluster" in table else None
        samples.append(Sample(key, position, canonical({"item": str(table["item"][row])}), "", (), cluster))
        text = table["answer"][row] if "answer" in table else None
        answer = None if "answer" not in table else int(digest("answer", str(text))[:15], 16)
        invalid = None if "answer" not in table else text is None or str(text) in {"", "[invalid]"}
        scores.append(Score(key, metric.name, "none", float(value), None, None, answer, invalid))
    result = _aggregated(task, metric, scores, True)
    return _Task(task, (metric,), tuple(samples), tuple(scores), (result,))
