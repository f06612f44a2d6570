"""Build a suite's requests once, for all checkpoints, unsharded and in lm-eval's order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from lm_eval.api.instance import Instance
from lm_eval.api.registry import AGGREGATION_REGISTRY
from lm_eval.api.task import Task
from lm_eval.utils import handle_non_serializable, hash_string

from evalsvc.errors import SuiteError
from evalsvc.harness.documents import BuiltRequests, Render, build_requests
from evalsvc.harness.lm_eval_globals import collecting_later, drawing_from, quiet
from evalsvc.harness.suites import Suite
from evalsvc.harness.tasks import LoadedSuite, LoadedTask
from evalsvc.records.digests import canonical, digest
from evalsvc.records.direction import is_higher_better
from evalsvc.records.generation import find_problem, make_explicit, read_decoding
from evalsvc.records.plans import Metric, Plan, PlannedTask, Rendering, Request, Sample
from evalsvc.records.vocabulary import Aggregation, Kind


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and the lm-eval tasks that it was built from; grading needs both.

    Attributes:
        instances: Per task, lm-eval's instances by document, in the order of the plan's samples.
        notes: What a user should know about the plan, one line each.
    """

    plan: Plan
    loaded: LoadedSuite
    instances: dict[str, list[list[Instance]]]
    notes: tuple[str, ...] = ()


def plan(loaded: LoadedSuite, rendering: Rendering, render: Render | None = None) -> Planned:
    """Build all requests of a suite.

    Args:
        rendering: Chat template and system prompt of the prompts; part of the plan's identity.
        render: Applies the chat template; None exactly if `rendering` names none.

    Raises:
        SuiteError: A task has no such metric or filter, its requests cannot be built, or a request is not text.
    """
    suite = loaded.suite
    requests: dict[str, Request] = {}
    with quiet(), collecting_later():
        built = _build_all(loaded, rendering, render)
        tasks = [
            _plan_task(loaded_task, suite, built_requests, requests)
            for loaded_task, built_requests in zip(loaded.tasks, built, strict=True)
        ]
    tasks = _share_group_weights(tasks)
    identity = digest(
        "plan",
        loaded.digest,
        canonical([rendering.template, rendering.system_prompt]),
        *(s.digest for task in tasks for s in task.samples),
    )
    complete = Plan(
        digest=identity,
        suite=suite.name,
        role=suite.role,
        description=suite.description,
        suite_digest=loaded.digest,
        suite_path=str(suite.path),
        rendering=rendering,
        tasks=tuple(tasks),
        requests=tuple(requests.values()),
        files=loaded.files,
    )
    instances = {task.name: requests.instances for task, requests in zip(tasks, built, strict=True)}
    notes = [
        f"task {task.name}: {text}" for task, requests in zip(tasks, built, strict=True) for text in requests.notes
    ]
    return Planned(complete, loaded, instances, tuple(notes))


def select_samples(planned: Planned, chosen: Mapping[str, Sequence[bool]]) -> Planned:
    """Return the part of a plan with only the chosen samples, as a plan of its own.

    Args:
        chosen: By task name, a flag for each sample; every task keeps at least one.
    """
    tasks, instances = [], {}
    for task in planned.plan.tasks:
        mask = chosen[task.name]
        tasks.append(replace(task, samples=tuple(s for s, kept in zip(task.samples, mask, strict=True) if kept)))
        pairs = zip(planned.instances[task.name], mask, strict=True)
        instances[task.name] = [same_doc for same_doc, kept in pairs if kept]
    request_digests = {key for task in tasks for sample in task.samples for key in sample.requests}
    whole = planned.plan
    built = replace(
        whole,
        digest=digest("part", whole.digest, *(sample.digest for task in tasks for sample in task.samples)),
        tasks=tuple(tasks),
        requests=tuple(request for request in whole.requests if request.digest in request_digests),
        part_of=whole.digest,
    )
    return replace(planned, plan=built, instances=instances)


def _build_all(loaded: LoadedSuite, rendering: Rendering, render: Render | None) -> list[BuiltRequests]:
    """Build the requests of every task; an entry's tasks draw from global generators one after another."""
    built: list[BuiltRequests] = []
    for number, loaded_task in enumerate(loaded.tasks):
        follows = number and loaded.tasks[number - 1].entry is loaded_task.entry
        with drawing_from(built[-1].generators if follows else loaded_task.generators):
            built.append(build_requests(loaded_task, loaded.suite, rendering, render))
    return built


def _plan_task(
    loaded_task: LoadedTask, suite: Suite, built: BuiltRequests, requests: dict[str, Request]
) -> PlannedTask:
    """Plan a task, and add its requests to `requests`."""
    task, entry = loaded_task.task, loaded_task.entry
    metrics = _metrics(loaded_task, suite)
    return PlannedTask(
        name=str(task.config.task),
        group=loaded_task.group,
        version=str(task.VERSION),
        output_type=str(task.OUTPUT_TYPE),
        shots=int(task.get_config("num_fewshot") or 0),
        metrics=metrics,
        weight=entry.weight,
        chance=entry.chance if entry.chance is not None else _chance(built.chance, metrics[0]),
        samples=_samples(loaded_task, built.instances, suite.think_end, requests),
        format_of=entry.format_of,
    )


def _chance(chance: float | None, metric: Metric) -> float | None:
    """Return the accuracy of guessing, None if the metric is not the share of right choices."""
    return chance if metric.name in {"acc", "acc_norm", "acc_bytes"} else None


def _cluster(loaded_task: LoadedTask, doc: Any) -> str | None:
    field = loaded_task.entry.cluster
    if field is None:
        return None
    if field not in doc:
        raise SuiteError(
            f"task {loaded_task.task.config.task}: cluster {field!r} is not a field of its documents; "
            f"choose from {', '.join(doc)}"
        )
    return str(doc[field])


def _samples(
    loaded_task: LoadedTask, docs: list[list[Instance]], think_end: str | int | None, requests: dict[str, Request]
) -> tuple[Sample, ...]:
    """Make a task's samples, and add their requests to `requests`."""
    task = loaded_task.task
    seen: Counter[str] = Counter()
    samples = []
    for same_doc in docs:
        doc_requests = [request for instance in same_doc for request in _requests(task, instance, think_end)]
        for request in doc_requests:
            requests.setdefault(request.digest, request)
        text = json.dumps(same_doc[0].doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
        content = digest("sample", task.config.task, hash_string(text), *(request.digest for request in doc_requests))
        samples.append(
            Sample(
                digest=digest(content, str(seen[content])) if seen[content] else content,
                doc_id=cast(int, same_doc[0].doc_id),
                doc=json.dumps(same_doc[0].doc, default=handle_non_serializable, ensure_ascii=False),
                target=str(task.doc_to_target(same_doc[0].doc)),
                requests=tuple(request.digest for request in doc_requests),
                cluster=_cluster(loaded_task, same_doc[0].doc),
            )
        )
        seen[content] += 1
    return tuple(samples)


def _requests(task: Task, instance: Instance, think_end: str | int | None) -> list[Request]:
    """Return an instance's requests: several if sampled answers are repeated, one if repeats would be equal."""
    arguments: list[str] = []
    sampled = False
    for argument in instance.args:
        if isinstance(argument, dict) and instance.request_type == "generate_until":
            if problem := find_problem(argument):
                raise SuiteError(f"task {task.config.task}: {problem}")
            sampled = read_decoding(argument).strategy["do_sample"]
            arguments.append(canonical(make_explicit(argument, think_end)))
        elif isinstance(argument, str):
            arguments.append(argument)
        else:
            raise SuiteError(
                f"task {task.config.task}: document {instance.doc_id}: a request contains a {type(argument).__name__}, "
                "must be text; check doc_to_text, doc_to_target and doc_to_choice"
            )
    kind = cast(Kind, instance.request_type)
    if kind not in get_args(Kind):
        raise SuiteError(
            f"task {task.config.task}: request type {kind!r} is not supported; must be one of "
            f"{', '.join(get_args(Kind))}"
        )
    repeats = range(instance.repeats or 1)
    return [Request.of(kind, tuple(arguments), repeat if sampled else 0) for repeat in repeats]


def _metrics(loaded_task: LoadedTask, suite: Suite) -> tuple[Metric, ...]:
    """Return all metrics of a task, the primary one first."""
    task, entry = loaded_task.task, loaded_task.entry
    better = task.higher_is_better()
    by_function = {function: name for name, function in AGGREGATION_REGISTRY.items()}
    filters = [ensemble.name for ensemble in task._filters]
    metrics = []
    for name, function in task.aggregation().items():
        known = by_function.get(function, "other")
        aggregation = cast(Aggregation, known if known in get_args(Aggregation) else "other")
        metrics += [
            Metric(str(name), key, aggregation, is_higher_better(str(name), better.get(name))) for key in filters
        ]
    for noun, name_in_suite, names in (
        ("metric", entry.metric, sorted({metric.name for metric in metrics})),
        ("filter", entry.filter, sorted(filters)),
    ):
        if name_in_suite is not None and name_in_suite not in names:
            raise SuiteError(
                f"suite {suite.name}: task {task.config.task} has no {noun} {name_in_suite!r}, only {', '.join(names)}"
            )
    first = next(
        metric
        for metric in metrics
        if metric.name == (entry.metric or metrics[0].name) and metric.filter == (entry.filter or filters[0])
    )
    return (first, *(metric for metric in metrics if metric != first))


def _share_group_weights(tasks: list[PlannedTask]) -> list[PlannedTask]:
    """Split a group's weight over its tasks by size, as lm-eval weighs a group's mean."""
    size: Counter[str] = Counter()
    for task in tasks:
        if task.group:
            size[task.group] += len(task.samples)
    return [
        replace(task, weight=task.weight * len(task.samples) / size[task.group]) if task.group else task
        for task in tasks
    ]
