"""Results files and output folders of lm-eval, with samples if there are any -> arms with scores."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evalsvc.errors import EvidenceError, UsageError
from evalsvc.files.json_files import read_json
from evalsvc.interchange.arms import (
    Adaptation,
    Imported,
    ImportedTask,
    Target,
    aggregate,
    assemble,
    make_checkpoint,
)
from evalsvc.interchange.lm_eval_results import DATE, LmEvalResults, read_results, read_stderr, read_values
from evalsvc.interchange.lm_eval_samples import (
    Record,
    TaskRecords,
    identify_document,
    identify_prompt,
    read_samples,
)
from evalsvc.records.arms import Checkpoint
from evalsvc.records.digests import canonical, digest
from evalsvc.records.plans import Metric, Sample, count_golds
from evalsvc.records.scores import Result, Score, identify_answer
from evalsvc.stats.estimates import SMOOTH, WEIGHTED
from evalsvc.stats.transitions import guessing_accuracy
from evalsvc.store.arms import StoredArm


@dataclass(frozen=True, slots=True)
class _Source:
    """What one arm is read from: results files, oldest first, each with its samples; and the name that it suggests."""

    path: Path
    name: str
    files: tuple[tuple[Path, tuple[Path, ...]], ...]


def read_runs(
    paths: Sequence[Path],
    samples: Sequence[Path],
    target: Target,
    adaptation: Adaptation,
    stored: Sequence[StoredArm] = (),
) -> list[Imported]:
    """Read results files, and folders that lm-eval wrote to: one of them is one arm, several are steps of one run.

    Args:
        samples: As in `read_lm_eval`; only for a single results file. A folder has its own.
        adaptation: Its step is only for a single arm; without a name, the arm has the file's, the folder's or the
            model's.
        stored: The store's arms: results of an arm that it has are added to that arm.

    Raises:
        UsageError: A file has another format, no task matches, or a file's name does not contain its step.
        EvidenceError: The samples' mean scores differ from the results.
    """
    sources = [source for path in paths for source in _find_sources(path, samples)]
    if len(sources) > 1 and (samples or adaptation.step is not None):
        raise UsageError(
            f"{len(sources)} results files: --samples and --step need a single file; import the files one by one"
        )
    imported = []
    for source in sources:
        step = adaptation.step if len(sources) == 1 else _find_step(source.path)
        name = adaptation.name or re.sub(r"[._-]?step[_-]?\d+$", "", source.name)
        content = "".join(results.read_bytes().hex() for results, _ in source.files)
        checkpoint = make_checkpoint(replace(adaptation, name=name, step=step), content, source.path, stored)
        imported.append(_merge([read_lm_eval(*files, checkpoint, target) for files in source.files], target, source))
    return imported


def _find_sources(path: Path, samples: Sequence[Path]) -> list[_Source]:
    """Return what a results file or a folder has: of a folder, one arm for each folder with results in it.

    Raises:
        UsageError: A folder has no results, or `samples` are given beside a folder.
    """
    if not path.is_dir():
        stem = path.name.removesuffix(".gz").removesuffix(".json")
        is_stamped = re.fullmatch(rf"results(_{DATE})?", stem) is not None
        name = (read_results(path).model if is_stamped and path.is_file() else None) or stem
        return [_Source(path, name, ((path, tuple(samples)),))]
    if samples:
        raise UsageError(f"{path}: is a folder, which has its own samples; leave --samples out, or give a results file")
    by_folder: dict[Path, list[Path]] = {}
    for file in sorted(path.rglob("*.json")):
        if not file.name.startswith("samples_") and _has_results(file):
            by_folder.setdefault(file.parent, []).append(file)
    if not by_folder:
        raise UsageError(f"{path}: has no results_*.json of lm-eval; give the folder of its --output_path")
    sources = []
    for folder, files in by_folder.items():
        files.sort(key=lambda file: (_find_date(file) or "", file.name))
        name = re.split("__", folder.resolve().name)[-1]
        owner = folder if folder != path or len(by_folder) > 1 else path
        sources.append(_Source(owner, name, tuple((file, _list_samples(file, files)) for file in files)))
    return sources


def _has_results(path: Path) -> bool:
    try:
        content = read_json(path)
    except UsageError:
        return False
    return isinstance(content, dict) and isinstance(content.get("results"), dict)


def _find_date(path: Path) -> str | None:
    match = re.search(DATE, path.name)
    return match[0].replace(":", "-") if match else None


def _list_samples(results: Path, others: Sequence[Path]) -> tuple[Path, ...]:
    """Return the samples beside a results file, of the same date; without dates, all, if it is the only results."""
    date = _find_date(results)
    if date is None and len(others) > 1:
        return ()
    beside = sorted({*results.parent.glob("*.jsonl"), *results.parent.glob("samples_*.json*")})
    return tuple(path for path in beside if _find_date(path) == date)


def _find_step(path: Path) -> int:
    match = re.search(r"step[_-]?(\d+)", path.name)
    if not match:
        raise UsageError(f"{path}: its name has no step (...step1000.json); import it alone, with --step")
    return int(match[1])


def _merge(parts: Sequence[Imported], target: Target, source: _Source) -> Imported:
    """Return the tasks of several results of one arm as one import: of a task, the newest results."""
    if len(parts) == 1:
        return parts[0]
    tasks: dict[str, ImportedTask] = {}
    groups: dict[tuple[str, str, str], Result] = {}
    repeated: Counter[str] = Counter()
    for part in parts:
        for task in part.tasks:
            repeated[task.name] += task.name in tasks
            tasks[task.name] = task
        groups |= {(result.task, result.metric, result.filter): result for result in part.groups}
    notes = [f"{name}: {count + 1} results; the newest are imported" for name, count in repeated.items() if count]
    notes += list(dict.fromkeys(note for part in parts for note in part.notes))
    return assemble(
        parts[0].arm.checkpoint, target, source.path, tuple(tasks.values()), tuple(groups.values()), tuple(notes)
    )


def read_lm_eval(path: Path, samples: Sequence[Path], of: Checkpoint, target: Target) -> Imported:
    """Read one results file, of any release of lm-eval, with its `log_samples` if given.

    Args:
        samples: Files of one task each (`samples_TASK_DATE.jsonl`), or of all (a JSON object, task to records).

    Raises:
        UsageError: A file has another format, no task matches, or a metric's direction is not known.
        EvidenceError: The samples' mean scores differ from the results.
    """
    results = read_results(path)
    records = read_samples(samples, results)
    tasks, groups, undirected = [], [], Counter[str]()
    notes = []
    chosen = results.select_tasks(target.tasks)
    for name in chosen:
        metrics, unknown = results.read_metrics(name, target)
        undirected.update(unknown)
        if metrics:
            tasks.append(_lm_eval_task(name, metrics, records.get(name), results))
        else:
            notes.append(f"{name}: its results have no number, so it is left out")
    if not tasks:
        raise UsageError(f"{path}: the results of {', '.join(chosen[:3])} have no number; import other tasks")
    for name in results.groups:
        if set(chosen) >= set(results.members.get(name, ())):
            groups += _group_results(name, results, target)
    notes += [
        f"{metric} of {count} task{'' if count == 1 else 's'} is left out: whether higher or lower is better is not "
        f"known; give --higher-is-better {metric} or --lower-is-better {metric}"
        for metric, count in undirected.items()
    ]
    left = [name for name in records if name not in chosen]
    if left:
        notes.append(f"samples of {_list_some(left)} are left out, as --task leaves these tasks out")
    bare = [task.name for task in tasks if not task.samples]
    if bare and len(bare) < len(tasks):
        notes.append(f"only levels are known of {_list_some(bare)}, which have no samples")
    return assemble(of, target, path, tasks, groups, notes)


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _group_results(name: str, results: LmEvalResults, target: Target) -> list[Result]:
    """Return the results of a group, which are shown beside its tasks and compared by nothing."""
    group = replace(target, metric=None)
    try:
        metrics, _ = results.read_metrics(name, group) if results.groups[name] else ((), ())
    except UsageError:  # no direction is known, and no task needs it
        return []
    row, size = results.groups[name], results.sizes.get(name, 0)
    return [replace(_build_published(name, row, metric, size), primary=False, is_group=True) for metric in metrics]


def _lm_eval_task(
    name: str, metrics: tuple[Metric, ...], samples: TaskRecords | None, results: LmEvalResults
) -> ImportedTask:
    row, size = results.rows[name], results.sizes.get(name, 0)
    published = {(m.name, m.filter): _build_published(name, row, m, size, m == metrics[0]) for m in metrics}
    if samples is None:
        return ImportedTask(name=name, metrics=metrics, samples=(), scores=(), results=tuple(published.values()))
    items: dict[str, Sample] = {}
    scores: list[Score] = []
    for key, record in _identify_items(name, samples):
        items.setdefault(key, _sample(key, record))
        scores += _lm_eval_scores(key, record, metrics)
    in_samples = {(score.metric, score.filter) for score in scores}
    if (metrics[0].name, metrics[0].filter) not in in_samples:
        if fault := _find_fault(metrics[0], samples.records):
            raise UsageError(f"{samples.path}: task {name}: {fault}")
        names = ", ".join(sorted({metric for metric, _ in in_samples})) or "no metric of the results"
        raise UsageError(
            f"{samples.path}: the samples of {name} have no {metrics[0].name} ({metrics[0].filter}), only {names}; "
            "choose another with --metric"
        )
    if metrics[0].aggregation not in SMOOTH and len(items) < size:
        raise EvidenceError(
            f"{samples.path}: has {len(items)} samples of {name}, of which the results have {size}; give all of them"
        )
    for metric in metrics:
        key_of_metric = metric.name, metric.filter
        if metric.aggregation in SMOOTH and key_of_metric in in_samples:
            published[key_of_metric] = _check_level(published[key_of_metric], metric, scores, samples)
    if metrics[0].aggregation not in SMOOTH:
        first = metrics[0].name, metrics[0].filter
        aggregation = results.aggregations.get(name, {}).get(metrics[0].name, metrics[0].name)
        published[first] = _resample(published[first], aggregation, scores, items)
    return ImportedTask(
        name=name,
        metrics=metrics,
        samples=tuple(items.values()),
        scores=tuple(scores),
        results=tuple(published.values()),
        chance=_compute_chance(samples.records),
    )


def _resample(result: Result, aggregation: str, scores: Sequence[Score], items: Mapping[str, Sample]) -> Result:
    """Return a result with its levels on resampled items, if lm-eval's aggregation of this name gives its level."""
    from evalsvc.harness.resample import resample_published  # here, as lm_eval takes seconds to load

    counted = [score for score in scores if (score.metric, score.filter) == (result.metric, result.filter)]
    values = [json.loads(score.detail) if score.detail is not None else score.value for score in counted]
    drawn = [items[score.sample] for score in counted]
    return replace(result, resamples=resample_published(aggregation, result.value, values, result.task, drawn))


def _identify_items(task: str, samples: TaskRecords) -> Iterator[tuple[str, Record]]:
    """Yield a task's records, each with the digest of its item: of document and prompt, whatever its id.

    Records are in the order of their ids, not of the file, in which several processes write one after another: of
    equal items, the first has the same digest in every file.

    Raises:
        EvidenceError: A record is there twice.
    """
    ids: dict[tuple[str, str], list[object]] = {}
    for record in sorted(samples.records, key=_read_id):
        key = digest("imported", task, identify_document(record), canonical(identify_prompt(record)))
        same = ids.setdefault((key, str(record["filter"])), [])
        number = record.get("doc_id")
        if number is not None and number in same:
            raise EvidenceError(
                f"{samples.path}: has the sample of document {number} of {task} twice; give each sample once"
            )
        same.append(number)
        yield (digest(key, str(len(same))) if len(same) > 1 else key), record


def _read_id(record: Record) -> int:
    """Return a record's `doc_id`: the position of its document in the task."""
    return int(record.get("doc_id") or 0)


def _find_fault(metric: Metric, records: Sequence[Record]) -> str | None:
    """Return which record's value of a metric is not a number, and what it is instead; None if all are numbers."""
    for record in records:
        value = record.get(metric.name)
        if value is not None and record["filter"] == metric.filter and not _is_value(value, metric):
            kind = "the text " if isinstance(value, str) else ""
            return (
                f"{metric.name} of document {record.get('doc_id')} is {kind}{json.dumps(value)}, must be a number; "
                "score the task again, or correct the file that was changed"
            )
    return None


def _is_value(value: Any, metric: Metric) -> bool:
    """Whether a sample's value of a metric is a finite number, or two where a weight belongs to it."""
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair == (metric.aggregation in WEIGHTED) and all(
        isinstance(number, int | float) and math.isfinite(number) for number in (value if is_pair else [value])
    )


def _check_level(published: Result, metric: Metric, scores: Sequence[Score], samples: TaskRecords) -> Result:
    """Return the level of the samples, which must be the published one.

    Raises:
        EvidenceError: It is not.
    """
    result = aggregate(published.task, metric, scores, published.primary)
    if not math.isclose(result.value, published.value, rel_tol=1e-6, abs_tol=1e-9):
        path = samples.path
        if fault := _find_fault(metric, samples.records):
            raise EvidenceError(f"{path}: task {result.task}: {fault}")
        raise EvidenceError(
            f"{path}: task {result.task}: its {result.n} samples give {metric.name} {result.value:g}, "
            f"but the results {published.value:g}; give the samples of the same run"
        )
    return result


def _sample(key: str, record: Record) -> Sample:
    document = record.get("doc", {"doc_hash": identify_document(record)})
    return Sample(
        digest=key,
        doc_id=_read_id(record),
        doc=canonical(document),
        target=str(record.get("target", "")),
        requests=(),
    )


def _lm_eval_scores(key: str, record: Record, metrics: Iterable[Metric]) -> list[Score]:
    scores = []
    filter_name = str(record["filter"])
    for metric in metrics:
        value = record.get(metric.name)
        if metric.filter != filter_name or value is None:
            continue
        score = Score(sample=key, metric=metric.name, filter=filter_name, value=None)
        if metric.aggregation in WEIGHTED:
            if _is_value(value, metric):
                amount, weight = value
                scores.append(replace(score, value=float(amount), weight=float(weight)))
        elif _is_value(value, metric):
            answer, invalid, confidence = _answer(record, metric.name)
            scores.append(replace(score, value=float(value), answer=answer, invalid=invalid, confidence=confidence))
        elif metric.aggregation not in SMOOTH:
            scores.append(replace(score, detail=canonical(value)))
    return scores


def _answer(record: Record, metric: str) -> tuple[int | None, bool | None, float | None]:
    """Return answer, invalidity and confidence: the chosen option and its probability, or the text's digest.

    See `records.Score`.
    """
    responses = record.get("filtered_resps")
    if not isinstance(responses, list) or not responses:
        return None, None, None
    if len(responses) == 1 and isinstance(responses[0], str):
        return identify_answer(responses[0]), responses[0] in {"[invalid]", ""}, None
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


def _compute_chance(records: Sequence[Record]) -> float | None:
    """Return the accuracy of guessing among the options of multiple-choice records, of which several may be right."""
    chosen = [record for record in records if isinstance(record.get("filtered_resps"), list)]
    sizes = [len(record["filtered_resps"]) for record in chosen]
    if not sizes or min(sizes) < 2:
        return None
    return guessing_accuracy([count_golds(record.get("target")) for record in chosen], sizes)


def _build_published(task: str, row: Mapping[str, Any], metric: Metric, size: int, primary: bool = False) -> Result:
    value = next(value for name, key, value in read_values(row) if (name, key) == (metric.name, metric.filter))
    return Result(
        task=task,
        metric=metric.name,
        filter=metric.filter,
        n=size,
        value=value,
        stderr=read_stderr(row, metric),
        higher_is_better=metric.higher_is_better,
        primary=primary,
    )
