"""Turn stored responses into lm-eval's scores, with the task's own filters, `process_results` and aggregation.

Grading runs no model and may be repeated. Standard errors are computed by evalsvc: lm-eval's bootstrap forks a process
pool, takes minutes per metric, and does not support bits per byte.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.utils import handle_non_serializable

from evalsvc.errors import EvidenceError, SuiteError
from evalsvc.harness.answers import ParsedAnswer, Reader
from evalsvc.harness.lm_eval_globals import drawing_from, quiet
from evalsvc.harness.plan import Planned
from evalsvc.harness.resample import resample_level
from evalsvc.records.direction import is_higher_better
from evalsvc.records.plans import Metric, Plan, PlannedTask, Response
from evalsvc.records.scores import Graded, Result, Score
from evalsvc.stats.estimates import SMOOTH, WEIGHTED, estimate

Raw = dict[tuple[str, str], list[Any]]
"""(metric, filter) -> values in the order of the samples."""


def grade(planned: Planned, responses: Mapping[str, Response], counted: Plan | None = None) -> Graded:
    """Grade one arm's responses.

    Args:
        responses: By request digest; must cover the plan.
        counted: The plan whose tasks and samples these stand for, one by one, if the arm has prompts of its own.

    Raises:
        EvidenceError: A response is missing.
        SuiteError: A task's own grading code failed.
    """
    results: list[Result] = []
    scores: dict[str, tuple[Score, ...]] = {}
    counted_tasks = (counted or planned.plan).tasks
    with quiet(), np.errstate(divide="ignore", invalid="ignore"):  # acc_norm divides by an empty choice's length
        for task, loaded_task, stands_for in zip(planned.plan.tasks, planned.loaded.tasks, counted_tasks, strict=True):
            with drawing_from(loaded_task.generators):  # so that grading again gives the same
                raw, scores[task.name] = _grade_task(task, loaded_task.task, planned, responses)
            of_task = _aggregate(task, loaded_task.task, raw)
            if planned.plan.role != "diversity":  # whose metric is a placeholder
                functions = loaded_task.task.aggregation()
                of_task = [_resample(r, functions, raw, task, stands_for, scores[task.name]) for r in of_task]
            results += of_task
        for group in planned.loaded.groups:
            results += _aggregate_group(group, results)
    return Graded(tuple(results), scores)


def _grade_task(
    planned_task: PlannedTask, task: Task, planned: Planned, responses: Mapping[str, Response]
) -> tuple[Raw, tuple[Score, ...]]:
    docs = planned.instances[planned_task.name]
    for sample, instances in zip(planned_task.samples, docs, strict=True):
        answers = [_answer(responses, key, planned_task.name) for key in sample.requests]
        share = len(answers) // len(instances)
        for position, instance in enumerate(instances):
            instance.resps = answers[position * share : (position + 1) * share]
            instance.filtered_resps = {}
    # Filters and metrics read `_instances`: exactly the selected documents, in order.
    task._instances = [instance for instances in docs for instance in instances]
    raw: Raw = defaultdict(list)
    scores: list[Score] = []
    weighted = {m.name for m in planned_task.metrics if m.aggregation in WEIGHTED}
    try:
        task.apply_filters()
        for name in docs[0][0].filtered_resps:
            reader = Reader(task, name)
            for sample, instances in zip(planned_task.samples, docs, strict=True):
                doc, filtered = instances[0].doc, [i.filtered_resps[name] for i in instances]
                for metric, value in task.process_results(doc, filtered).items():
                    raw[metric, name].append(value)
                    answer = reader.parse(doc, filtered, metric)
                    scores.append(_score(sample.digest, metric, name, value, metric in weighted, answer))
    except Exception as error:  # the task author's code
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SuiteError(f"task {planned_task.name}: grading failed: {reason}") from error
    return raw, tuple(scores)


def _answer(responses: Mapping[str, Response], key: str, task: str) -> Any:
    """Return a response in the form in which lm-eval's models return it."""
    try:
        response = responses[key]
    except KeyError:
        raise EvidenceError(f"task {task}: the response to request {key} is missing; submit again to resume") from None
    if response.text is not None:
        return response.text
    if response.greedy is None:
        return response.loglikelihood
    return response.loglikelihood, response.greedy


def _score(sample: str, metric: str, name: str, value: Any, weighted: bool, answer: ParsedAnswer) -> Score:
    if weighted:
        amount, weight = value
        return Score(sample=sample, metric=metric, filter=name, value=float(amount), weight=float(weight))
    if isinstance(value, Real | np.bool_ | np.number):
        return Score(
            sample=sample,
            metric=metric,
            filter=name,
            value=float(value),
            answer=answer.answer,
            invalid=answer.invalid,
            confidence=answer.confidence,
        )
    return Score(
        sample=sample, metric=metric, filter=name, value=None, detail=json.dumps(value, default=handle_non_serializable)
    )


def _aggregate(planned_task: PlannedTask, task: Task, raw: Raw) -> list[Result]:
    known = {(metric.name, metric.filter): metric for metric in planned_task.metrics}
    primary = planned_task.metrics[0]
    results = []
    for (name, filter_name), values in raw.items():
        metric = known.get((name, filter_name), Metric(name, filter_name, "other", is_higher_better(name)))
        function = task.aggregation().get(name) or (lambda items: sum(items) / len(items))
        results.append(
            Result(
                task=planned_task.name,
                metric=name,
                filter=filter_name,
                n=len(values),
                value=float(function(values)),
                stderr=_stderr(values, metric),
                higher_is_better=metric.higher_is_better,
                primary=metric == primary,
            )
        )
    return results


def _resample(
    result: Result,
    functions: Mapping[str, Callable[[Sequence[Any]], Any]],
    raw: Raw,
    task: PlannedTask,
    counted: PlannedTask,
    scores: Sequence[Score],
) -> Result:
    """Return a result with its levels on resampled units, if it is compared and no mean over items."""
    key, primary = (result.metric, result.filter), counted.metrics[0]
    if key != (primary.name, primary.filter) or primary.aggregation in SMOOTH:
        return result
    samples = {s.digest: item for s, item in zip(task.samples, counted.samples, strict=True)}
    items = [samples[score.sample] for score in scores if (score.metric, score.filter) == key]
    return replace(result, resamples=resample_level(functions[result.metric], raw[key], counted.name, items))


def _stderr(values: list[Any], metric: Metric) -> float | None:
    if metric.aggregation not in SMOOTH or len(values) < 2:
        return None
    array = np.asarray(values, dtype=np.float64)
    weighted = metric.aggregation in WEIGHTED
    result = estimate(array[:, 0] if weighted else array, array[:, 1] if weighted else None, metric.aggregation)
    return result.stderr


def _aggregate_group(group: Group, results: list[Result]) -> list[Result]:
    """Let lm-eval aggregate a group from its tasks' results."""
    table: dict[str, Any] = defaultdict(dict)
    for result in results:
        if not result.is_group:
            key = f"{result.metric}{{}},{result.filter}"
            table[result.task][key.format("")] = result.value
            table[result.task][key.format("_stderr")] = "N/A" if result.stderr is None else result.stderr
            table[result.task]["sample_len"] = max(table[result.task].get("sample_len", 0), result.n)
    group_results = []
    aggregated = group.aggregate(table)
    for name, value in aggregated.items():
        metric, _, filter_name = name.partition(",")
        if not filter_name or metric.endswith("_stderr"):
            continue
        stderr = aggregated.get(f"{metric}_stderr,{filter_name}")
        better = next((r.higher_is_better for r in results if (r.metric, r.filter) == (metric, filter_name)), None)
        group_results.append(
            Result(
                task=group.name,
                metric=metric,
                filter=filter_name,
                n=int(aggregated.get("sample_len", 0)),
                value=float(value),
                stderr=float(stderr) if isinstance(stderr, Real) and math.isfinite(stderr) else None,
                higher_is_better=is_higher_better(metric, better),
                primary=False,
                is_group=True,
            )
        )
    return group_results
