"""Results files of lm-eval, of all releases since 2021 -> tasks, groups, metrics with their direction, sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast, get_args

from evalsvc.errors import UsageError
from evalsvc.files.json_files import read_json
from evalsvc.interchange.arms import Target
from evalsvc.records.direction import find_direction
from evalsvc.records.plans import Metric
from evalsvc.records.vocabulary import Aggregation

DATE = r"\d{4}-\d{2}-\d{2}T\d{2}(?:[-:]\d{2}){0,2}(?:\.\d+)?"
"""Pattern of the date in the names of lm-eval's files."""

_AGGREGATIONS: dict[str, Aggregation] = {
    "bits_per_byte": "bits_per_byte",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "perplexity": "perplexity",
    "ppl": "perplexity",
    **dict.fromkeys(("f1", "mcc", "bleu", "chrf", "chrf++", "ter"), "other"),  # of the whole corpus
}
"""Aggregations of metrics whose file does not tell; "mean" of all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LmEvalResults:
    """A results file.

    Attributes:
        rows: Task to its row: metrics by "NAME,FILTER", or by NAME before 0.4.
        groups: Group to its row, which may be empty.
        members: Group to the tasks below it.
        better: Task or group to metric to whether it is better when higher, where the file says so.
        aggregations: Task to metric to the name of its aggregation, where the file says so.
        declared: Task to the names of its metrics, and those of its filters, as its configuration lists them.
        sizes: Task to the number of documents that were scored.
    """

    path: Path
    rows: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Mapping[str, Any]]
    members: Mapping[str, tuple[str, ...]]
    better: Mapping[str, Mapping[str, bool]]
    aggregations: Mapping[str, Mapping[str, str]]
    declared: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    sizes: Mapping[str, int]
    model: str | None

    def select_tasks(self, patterns: Sequence[str]) -> list[str]:
        """Return the tasks that match a shell pattern, or are below a group that matches one.

        Raises:
            UsageError: None does.
        """

        def matches(name: str) -> bool:
            return any(fnmatchcase(name, pattern) for pattern in patterns)

        below = {task for group, tasks in self.members.items() if matches(group) for task in tasks}
        chosen = [name for name in self.rows if matches(name) or name in below]
        if not chosen:
            raise UsageError(f"{self.path}: no task matches {', '.join(patterns)}; its tasks are {self.list_tasks()}")
        return chosen

    def list_tasks(self) -> str:
        """Return the names of the tasks, of many the first."""
        names = list(self.rows)
        return ", ".join(names[:20]) + (f", and {len(names) - 20} more" if len(names) > 20 else "")

    def list_filters(self, task: str) -> list[str]:
        """Return the filters of a task, in the file's order, which is that of the samples."""
        return list(dict.fromkeys(filter_name for _, filter_name, _ in read_values(self.rows[task]))) or ["none"]

    def read_metrics(self, task: str, target: Target) -> tuple[tuple[Metric, ...], tuple[str, ...]]:
        """Return the metrics of a task or group, the primary one first, and the names of those without a direction.

        The primary one is the target's, else the task's first, as of a task that is submitted.

        Raises:
            UsageError: The metric that the target names is missing, or the primary one's direction is not known.
        """
        metrics: list[Metric] = []
        unknown: list[str] = []
        keys = self._order_metrics(task)
        for name, filter_name in keys:
            higher = self._find_direction(task, name, target)
            if higher is None:
                unknown.append(name)
            else:
                metrics.append(Metric(name, filter_name, self._find_aggregation(task, name), higher))
        primary = target.metric or ",".join(keys[0] if keys else ())
        first = next((m for m in metrics if primary in (m.name, f"{m.name},{m.filter}")), None)
        if first is None and target.metric and target.metric.split(",")[0] not in unknown:
            names = ", ".join(sorted({*(metric.name for metric in metrics), *unknown}))
            raise UsageError(f"task {task}: has no metric {target.metric!r}; choose from {names}")
        if first is None and unknown:
            name = primary.split(",")[0]
            raise UsageError(
                f"{self.path}: task {task}: neither the file nor lm-eval says whether a higher or a lower {name} is "
                f"better; give --higher-is-better {name} or --lower-is-better {name}"
            )
        if first is not None:
            metrics = [first, *(metric for metric in metrics if metric != first)]
        return tuple(metrics), tuple(dict.fromkeys(unknown))

    def _order_metrics(self, task: str) -> list[tuple[str, str]]:
        """Return metric and filter of a task's or group's numbers, in the order of its configuration, else of its row.

        A configuration whose first name is not in the row has no say: functions have other names there.
        """
        keys = [(name, filter_name) for name, filter_name, _ in read_values(self.rows.get(task) or self.groups[task])]
        metrics, filters = (list(dict.fromkeys(key[part] for key in keys)) for part in (0, 1))
        of_metrics, of_filters = self.declared.get(task, ((), ()))
        metrics = [*(of_metrics if of_metrics and of_metrics[0] in metrics else ()), *metrics]
        filters = [*(of_filters if of_filters and of_filters[0] in filters else ()), *filters]
        return sorted(keys, key=lambda key: (metrics.index(key[0]), filters.index(key[1])))

    def _find_direction(self, task: str, metric: str, target: Target) -> bool | None:
        if metric in (*target.higher, *target.lower):
            return metric in target.higher
        declared = self.better.get(task, {}).get(metric)
        return find_direction(metric) if declared is None else declared

    def _find_aggregation(self, task: str, metric: str) -> Aggregation:
        declared = self.aggregations.get(task, {}).get(metric)
        if declared is None:
            return _AGGREGATIONS.get(metric, "mean")
        name = {"nanmean": "mean"}.get(declared, declared)
        return cast(Aggregation, name if name in get_args(Aggregation) else "other")


def read_results(path: Path) -> LmEvalResults:
    """Read a results file.

    Raises:
        UsageError: It cannot be read, or is none.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not _is_table(content.get("results")):
        raise UsageError(f"{path}: has no `results`; give the results_*.json that lm-eval wrote")
    rows: dict[str, Mapping[str, Any]] = content["results"]
    configs = _read_table(content, "configs")
    group_rows = _read_table(content, "groups")
    subtasks = {name: names for name, names in _read_list_table(content, "group_subtasks").items() if names}
    # Only tasks have a configuration, in every release that has groups.
    groups = {
        name: row
        for name, row in rows.items()
        if name in group_rows or name in subtasks or (configs and name not in configs)
    }
    tasks = {name: row for name, row in rows.items() if name not in groups}
    better, aggregations = _read_declarations(content, configs)
    return LmEvalResults(
        path=path,
        rows=tasks,
        groups=groups,
        members={name: tuple(_list_members(name, subtasks, tasks)) for name in (*groups, *subtasks)},
        better=better,
        aggregations=aggregations,
        declared={
            task: (_list_names(config, "metric_list", "metric"), _list_names(config, "filter_list", "name"))
            for task, config in configs.items()
        },
        sizes=_read_sizes(content),
        model=_find_model(content),
    )


def read_values(row: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield metric, filter and value of a row's finite numbers, standard errors and sizes apart."""
    for key, value in row.items():
        name, _, filter_name = key.partition(",")
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if is_number and not name.endswith("_stderr") and name not in {"sample_len", "sample_count", "alias", "name"}:
            yield name, filter_name or "none", float(value)


def read_stderr(row: Mapping[str, Any], metric: Metric) -> float | None:
    """Return a metric's standard error, None if the row has none."""
    value = row.get(f"{metric.name}_stderr,{metric.filter}", row.get(f"{metric.name}_stderr"))
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(row, dict) for row in value.values())


def _read_table(content: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """Return a section of a results file as name to row; empty where it is missing or not of that form."""
    section = content.get(key)
    return {name: row for name, row in section.items() if isinstance(row, dict)} if isinstance(section, dict) else {}


def _read_list_table(content: Mapping[str, Any], key: str) -> dict[str, list[str]]:
    section = content.get(key)
    return {name: row for name, row in section.items() if isinstance(row, list)} if isinstance(section, dict) else {}


def _list_members(
    group: str, subtasks: Mapping[str, Sequence[str]], tasks: Mapping[str, object], above: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yield the tasks below a group, at any depth."""
    for name in subtasks.get(group, ()):
        if name in tasks:
            yield name
        elif name not in above:
            yield from _list_members(name, subtasks, tasks, (*above, group))


def _read_declarations(
    content: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, bool]], dict[str, dict[str, str]]]:
    """Return direction and aggregation by task and metric: the direction as computed, else as configured."""
    better: dict[str, dict[str, bool]] = {}
    aggregations: dict[str, dict[str, str]] = {}
    for task, config in configs.items():
        for entry in _list_entries(config, "metric_list", "metric"):
            if isinstance(entry.get("higher_is_better"), bool):
                better.setdefault(task, {})[entry["metric"]] = entry["higher_is_better"]
            if isinstance(entry.get("aggregation"), str):
                aggregations.setdefault(task, {})[entry["metric"]] = entry["aggregation"]
    for task, row in _read_table(content, "higher_is_better").items():
        better.setdefault(task, {}).update({name: value for name, value in row.items() if isinstance(value, bool)})
    return better, aggregations


def _list_entries(config: Mapping[str, Any], section: str, key: str) -> list[dict[str, Any]]:
    """Return the entries of a list in a task's configuration that have a text under `key`."""
    entries = config.get(section)
    entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get(key), str)]


def _list_names(config: Mapping[str, Any], section: str, key: str) -> list[str]:
    return [entry[key] for entry in _list_entries(config, section, key)]


def _read_sizes(content: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of scored documents by task: of the section `n-samples`, else of the row."""
    sizes = {}
    for task, row in content["results"].items():
        counts = _read_table(content, "n-samples").get(task, {})
        numbers = [n for n in (counts.get("effective"), row.get("sample_len")) if isinstance(n, int | float) and n >= 1]
        if numbers:  # releases that were run on a share of the documents wrote the share
            sizes[task] = int(numbers[0])
    return sizes


def _find_model(content: Mapping[str, Any]) -> str | None:
    """Return the last part of the model's name: "pythia-160m" of "EleutherAI/pythia-160m"."""
    name = content.get("model_name")
    if not isinstance(name, str):
        config = content.get("config")
        arguments = config.get("model_args") if isinstance(config, dict) else None
        if isinstance(arguments, dict):
            name = arguments.get("pretrained")
        elif isinstance(arguments, str):
            match = re.search(r"(?:^|,)pretrained=([^,]+)", arguments)
            name = match[1] if match else None
    return re.split(r"/|__", name.rstrip("/"))[-1] or None if isinstance(name, str) else None
