"""Files that lm-eval's `--log_samples` wrote, of all releases since 0.4.0 -> records by task, each with its filter.

0.4.0 to 0.4.2 wrote one JSON array per task, `MODEL_TASK.jsonl`; since 0.4.3 it is JSON lines,
`samples_TASK_DATE.jsonl`. Before 0.4.7 a record does not say its filter: all documents follow each other once for every
filter, in the order in which the results have them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsvc.errors import EvidenceError, UsageError
from evalsvc.files.json_files import read_json_or_lines
from evalsvc.interchange.lm_eval_results import DATE, LmEvalResults

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TaskRecords:
    """The records of one task, and the file that they are from."""

    path: Path
    records: Sequence[Record]


def read_samples(paths: Sequence[Path], results: LmEvalResults) -> dict[str, TaskRecords]:
    """Read the samples of some of a results file's tasks.

    Args:
        paths: Files of one task each, or a JSON object of task to records; gzipped or not.

    Returns:
        Task to its records; every record has a `filter`.

    Raises:
        UsageError: A file cannot be read, belongs to no task of the results, or to one that another file has.
        EvidenceError: The records are not those of the results' filters.
    """
    of_task: dict[str, TaskRecords] = {}
    for path in paths:
        content = _read_records(path)
        tables = content if isinstance(content, dict) else {_find_task(path, results): content}
        for task, records in tables.items():
            if task not in results.rows:
                raise UsageError(_explain_stranger(path, task, results))
            if task in of_task:
                raise UsageError(f"{path}: has samples of {task}, as {of_task[task].path} has; give one of the two")
            of_task[task] = TaskRecords(path, _name_filters(path, task, records, results))
    return of_task


def _read_records(path: Path) -> list[Record] | dict[str, list[Record]]:
    """Read records, whatever the file is called: JSON lines, a JSON array, or a JSON object of task to records."""
    content = read_json_or_lines(path)
    if isinstance(content, dict) and "doc_id" in content:
        content = [content]
    tables = list(content.values()) if isinstance(content, dict) else [content]
    if not all(isinstance(table, list) and all(isinstance(record, dict) for record in table) for table in tables):
        raise UsageError(f"{path}: has no samples; give a file that lm-eval's --log_samples wrote")
    return content  # type: ignore[no-any-return]


def _find_task(path: Path, results: LmEvalResults) -> str:
    """Return the task in a file's name."""
    stem = re.sub(rf"_{DATE}$", "", re.sub(r"\.jsonl?(\.gz)?$", "", path.name))
    if stem.startswith("samples_"):
        return stem.removeprefix("samples_")
    # In 0.4.0 to 0.4.2 the model's arguments are before the task, and both may contain "_".
    matches = [task for task in results.rows if stem == task or stem.endswith(f"_{task}")]
    return max(matches, key=len, default=stem)


def _explain_stranger(path: Path, task: str, results: LmEvalResults) -> str:
    if task in results.groups:
        return f"{path}: {task} is a group of tasks; give the samples of its tasks"
    return (
        f"{path}: has samples of {task!r}, which is no task of {results.path} ({results.list_tasks()}); give samples "
        "of the same run, under the name that lm-eval gave the file"
    )


def _name_filters(path: Path, task: str, records: Sequence[Record], results: LmEvalResults) -> list[Record]:
    """Return the records with a `filter` each.

    Raises:
        EvidenceError: A record names another filter than the results, or the records cannot be divided among them.
    """
    filters = results.list_filters(task)
    if not records:
        raise EvidenceError(f"{path}: has no sample of {task}; give the samples of the same run")
    if all("filter" in record for record in records):
        names = list(dict.fromkeys(str(record["filter"]) for record in records))
        strange = [name for name in names if name not in filters]
        if not strange:
            return list(records)
        if (len(names), filters) == (1, ["none"]):  # results of a release that did not name filters
            return [{**record, "filter": "none"} for record in records]
        raise EvidenceError(
            f"{path}: has samples of filter {strange[0]!r}, which the results of {task} lack ({', '.join(filters)}); "
            "give the samples of the same run"
        )
    size, rest = divmod(len(records), len(filters))
    documents = [identify_document(record) for record in records]
    blocks = [documents[start * size : (start + 1) * size] for start in range(len(filters))]
    if rest or any(Counter(block) != Counter(blocks[0]) for block in blocks):
        raise EvidenceError(
            f"{path}: its {len(records)} samples are not the same documents once for each filter of {task} "
            f"({', '.join(filters)}); give the samples of the same run"
        )
    return [{**record, "filter": filters[number // size]} for number, record in enumerate(records)]


def identify_document(record: Record) -> str:
    """Return lm-eval's hash of a record's document; computed as lm-eval does where its release did not write it."""
    if record.get("doc_hash"):
        return str(record["doc_hash"])
    text = json.dumps(record.get("doc"), indent=2, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def identify_prompt(record: Record) -> Any:
    """Return a record's requests in the form of the files since 0.4.3, whichever release wrote them."""
    arguments = record.get("arguments")
    if not isinstance(arguments, list):
        return arguments
    requests = [request if isinstance(request, list) else [request] for request in arguments]
    return {
        f"gen_args_{i}": {f"arg_{j}": argument for j, argument in enumerate(request)}
        for i, request in enumerate(requests)
    }
