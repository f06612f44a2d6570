"""lm-eval's results and samples, in the current format and that of 2023 -> arms with scores."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from evalsvc.errors import EvidenceError, UsageError
from evalsvc.interchange.arms import (
    Imported,
    ImportedTask,
    Target,
    aggregate,
    assemble,
    make_checkpoint,
    read_json,
)
from evalsvc.records.arms import Checkpoint
from evalsvc.records.digests import canonical, digest
from evalsvc.records.direction import is_higher_better
from evalsvc.records.plans import Metric, Sample
from evalsvc.records.scores import Result, Score
from evalsvc.records.vocabulary import Aggregation
from evalsvc.stats.estimates import WEIGHTED

_AGGREGATIONS: dict[str, Aggregation] = {
    "bits_per_byte": "bits_per_byte",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "perplexity": "perplexity",
    "ppl": "perplexity",
}
_HEADLINES = ("bits_per_byte", "acc_norm", "acc", "exact_match")
"""Metrics that become a task's primary metric, by precedence, if the user names none."""


# ---------------------------------------------------------------------------------------------------- lm-eval's files


def read_runs(
    paths: Sequence[Path],
    samples: Sequence[Path],
    target: Target,
    *,
    name: str | None,
    method: str,
    parent: Checkpoint | None,
    step: int | None,
) -> list[Imported]:
    """Read results files: one file is one arm; several are the steps of one training run, taken from the file names.

    Args:
        samples: As in `read_lm_eval`; only for a single results file, like `step`.
        name: Name of the arm; None takes the file's name.

    Raises:
        UsageError: A file has another format, no task matches, or a file's name does not contain its step.
        EvidenceError: The samples' mean scores differ from the results.
    """
    if len(paths) > 1 and (samples or step is not None):
        raise UsageError(
            f"{len(paths)} results files: --samples and --step need a single file; import the files one by one"
        )
    imported = []
    for path in paths:
        number = step if len(paths) == 1 else _find_step(path)
        stem = name or re.sub(r"[._-]?step[_-]?\d+$", "", path.name.split(".json")[0])
        content = path.read_bytes().hex() if path.is_file() else ""
        checkpoint = make_checkpoint(stem, content, method, path, parent, number)
        imported.append(read_lm_eval(path, samples, checkpoint, target))
    return imported


def _find_step(path: Path) -> int:
    match = re.search(r"step[_-]?(\d+)", path.name)
    if not match:
        raise UsageError(f"{path}: its name has no step (...step1000.json); import it alone, with --step")
    return int(match[1])


def read_lm_eval(results: Path, samples: Sequence[Path], of: Checkpoint, target: Target) -> Imported:
    """Read one results file, in the current format or that of 2023, with its `log_samples` if given.

    Args:
        samples: Files of one task each (`samples_TASK_DATE.jsonl`), or of all (a JSON object, task to records).

    Raises:
        UsageError: A file has another format, or no task matches.
        EvidenceError: The samples' mean scores differ from the results.
    """
    content = read_json(results)
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise UsageError(f"{results}: has no `results`; give the results_*.json that lm-eval wrote")
    records: dict[str, list[dict[str, Any]]] = {}
    for path in samples:
        records |= _read_samples(path)
    better = content.get("higher_is_better") or {}
    tasks = []
    for name, row in content["results"].items():
        if any(fnmatchcase(name, pattern) for pattern in target.tasks):
            metrics = _metrics(name, row, better.get(name) or {}, target)
            if metrics:
                tasks.append(_lm_eval_task(name, row, metrics, records.get(name, []), results))
    if not tasks:
        raise UsageError(
            f"{results}: no task matches {', '.join(target.tasks)}; its tasks are {', '.join(content['results'])}"
        )
    return assemble(of, target, results, tasks)


def _read_samples(path: Path) -> dict[str, list[dict[str, Any]]]:
    if ".jsonl" not in path.name:
        content = read_json(path)
        if not isinstance(content, dict):
            raise UsageError(f"{path}: contains a {type(content).__name__}, must be an object of task to samples")
        return content
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
    """Return a task's metrics, the primary one first; empty if the task has no numbers."""
    metrics = []
    for key, value in row.items():
        name, _, filter_name = key.partition(",")
        if isinstance(value, bool) or not isinstance(value, int | float) or name.endswith("_stderr"):
            continue
        if name in {"sample_len", "alias"}:
            continue
        higher = is_higher_better(name, better.get(name))
        metrics.append(Metric(name, filter_name or "none", _AGGREGATIONS.get(name, "mean"), higher))
    preferred = (target.metric,) if target.metric else _HEADLINES
    first = next((metric for name in preferred for metric in metrics if metric.name == name), None)
    if target.metric and first is None:
        raise UsageError(
            f"task {task}: has no metric {target.metric!r}; choose from {', '.join(sorted({m.name for m in metrics}))}"
        )
    if first is None:
        return tuple(metrics)
    return (first, *(metric for metric in metrics if metric != first))


def _lm_eval_task(
    name: str, row: Mapping[str, Any], metrics: tuple[Metric, ...], records: list[dict[str, Any]], source: Path
) -> ImportedTask:
    if not records:
        results = tuple(_read_published(name, row, metric, metric == metrics[0]) for metric in metrics)
        return ImportedTask(name=name, metrics=metrics, samples=(), scores=(), results=results)
    counts: Counter[str] = Counter()
    samples: dict[str, Sample] = {}
    scores: list[Score] = []
    for record in records:
        arguments = canonical(record.get("arguments"))
        key = digest("imported", name, _document(record), arguments)
        known = key, str(record.get("filter", "none"))
        counts[canonical(known)] += 1
        key = digest(key, str(counts[canonical(known)])) if counts[canonical(known)] > 1 else key
        samples.setdefault(key, _sample(key, record))
        scores += _lm_eval_scores(key, record, metrics)
    kept = tuple(metric for metric in metrics if any(s.metric == metric.name for s in scores))
    if not kept:
        names = ", ".join(metric.name for metric in metrics)
        raise UsageError(f"{source}: the samples of {name} have none of its metrics ({names})")
    results = tuple(aggregate(name, metric, scores, metric == kept[0]) for metric in kept)
    for result, metric in zip(results, kept, strict=True):
        published = row.get(f"{metric.name},{metric.filter}", row.get(metric.name))
        if isinstance(published, float | int) and not math.isclose(result.value, published, rel_tol=1e-6, abs_tol=1e-9):
            raise EvidenceError(
                f"{source}: task {name}: its {result.n} samples give {metric.name} {result.value:g}, "
                f"but the results {published:g}; give the samples of the same run"
            )
    return ImportedTask(
        name=name,
        metrics=kept,
        samples=tuple(samples.values()),
        scores=tuple(scores),
        results=results,
        chance=_compute_chance(records),
    )


def _document(record: Mapping[str, Any]) -> str:
    return str(record.get("doc_hash") or digest(canonical(record.get("doc"))))


def _sample(key: str, record: Mapping[str, Any]) -> Sample:
    doc = record.get("doc", {"doc_hash": _document(record)})
    return Sample(
        digest=key,
        doc_id=int(record.get("doc_id", 0)),
        doc=canonical(doc),
        target=str(record.get("target", "")),
        requests=(),
    )


def _lm_eval_scores(key: str, record: Mapping[str, Any], metrics: Iterable[Metric]) -> list[Score]:
    scores = []
    filter_name = str(record.get("filter", "none"))
    for metric in metrics:
        value = record.get(metric.name)
        if metric.filter != filter_name or value is None:
            continue
        if metric.aggregation in WEIGHTED:
            amount, weight = value
            scores.append(
                Score(sample=key, metric=metric.name, filter=filter_name, value=float(amount), weight=float(weight))
            )
        elif isinstance(value, int | float):
            answer, invalid, confidence = _answer(record, metric.name)
            scores.append(
                Score(
                    sample=key,
                    metric=metric.name,
                    filter=filter_name,
                    value=float(value),
                    answer=answer,
                    invalid=invalid,
                    confidence=confidence,
                )
            )
    return scores


def _answer(record: Mapping[str, Any], metric: str) -> tuple[int | None, bool | None, float | None]:
    """Return answer, invalidity and confidence: the chosen option and its probability, or the text's digest.

    See `records.Score`.
    """
    responses = record.get("filtered_resps")
    if not isinstance(responses, list) or not responses:
        return None, None, None
    if len(responses) == 1 and isinstance(responses[0], str):
        return int(digest("answer", responses[0])[:15], 16), responses[0] in {"[invalid]", ""}, None
    if (
        len(responses) < 2
        or metric != "acc"
        or not all(isinstance(pair, list) and len(pair) == 2 for pair in responses)
    ):
        return None, None, None
    likelihoods = np.array([float(pair[0]) for pair in responses])
    share = np.exp(likelihoods - likelihoods.max())
    best = int(np.argmax(likelihoods))
    return best, None, float(share[best] / share.sum())


def _compute_chance(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the accuracy of guessing among the options of multiple-choice records."""
    sizes = [len(given) for record in records if isinstance(given := record.get("filtered_resps"), list)]
    return sum(1 / size for size in sizes) / len(sizes) if sizes and min(sizes) > 1 else None


def _read_published(task: str, row: Mapping[str, Any], metric: Metric, primary: bool) -> Result:
    key = metric.name if metric.name in row else f"{metric.name},{metric.filter}"
    name, _, filter_name = key.partition(",")
    stderr = row.get(f"{name}_stderr,{filter_name}" if filter_name else f"{name}_stderr")
    number = float(stderr) if isinstance(stderr, int | float) and not isinstance(stderr, bool) else None
    size = row.get("sample_len")
    n = int(size) if isinstance(size, int | float) else 0
    return Result(
        task=task,
        metric=metric.name,
        filter=metric.filter,
        n=n,
        value=float(row[key]),
        stderr=number,
        higher_is_better=metric.higher_is_better,
        primary=primary,
    )
