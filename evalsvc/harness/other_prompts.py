"""The same documents with other prompts: few-shot examples (ICL) or retrieved passages (RAG) instead of training.

Such an arm has a plan of its own, is scored and graded on it, and its scores are then assigned to the samples of its
base's plan, document by document. The user declared that only the prompts differ, so the two are comparable.
"""

from __future__ import annotations

from dataclasses import replace

from evalsvc.errors import SuiteError
from evalsvc.harness.plan import Planned, select_samples
from evalsvc.harness.suites import Suite
from evalsvc.records.plans import Plan
from evalsvc.records.scores import Graded


def with_shots(suite: Suite, shots: int) -> Suite:
    """Return a suite whose tasks all have this many few-shot examples, and no limit."""
    tasks = tuple(entry.model_copy(update={"shots": shots, "limit": None}) for entry in suite.tasks)
    return suite.model_copy(update={"tasks": tasks, "defaults": suite.defaults.model_copy(update={"limit": None})})


def select_documents(planned: Planned, other: Planned) -> Planned:
    """Return the part of another plan that covers a plan's documents, task by task in their order.

    Raises:
        SuiteError: The other plan lacks some of these documents, or the metric.
    """
    plan_tasks, other_tasks = planned.plan.tasks, other.plan.tasks
    where = f"suite {other.plan.suite_path}"
    if len(plan_tasks) != len(other_tasks):
        raise SuiteError(
            f"{where}: has {len(other_tasks)} tasks, but suite {planned.plan.suite} has {len(plan_tasks)}; list one "
            "task for each, in the same order"
        )
    chosen = {}
    for task, other_task in zip(plan_tasks, other_tasks, strict=True):
        doc_ids = {sample.doc_id for sample in task.samples}
        chosen[other_task.name] = [sample.doc_id in doc_ids for sample in other_task.samples]
        targets = [(s.doc_id, s.target) for s in other_task.samples if s.doc_id in doc_ids]
        if targets != [(s.doc_id, s.target) for s in task.samples]:
            raise SuiteError(
                f"{where}: task {other_task.name}: its documents, their order or their gold answers differ from task "
                f"{task.name}; only the prompts may differ"
            )
        first = task.metrics[0]
        if (first.name, first.filter) not in {(metric.name, metric.filter) for metric in other_task.metrics}:
            raise SuiteError(
                f"{where}: task {other_task.name}: has no metric {first.name} under filter {first.filter!r}"
            )
    return select_samples(other, chosen)


def assign_to_plan(graded: Graded, prompted_plan: Plan, plan: Plan) -> Graded:
    """Return scores of a plan with other prompts as scores of the original plan's tasks and samples."""
    tasks = {prompted_task.name: task for task, prompted_task in zip(plan.tasks, prompted_plan.tasks, strict=True)}
    results = []
    for result in graded.results:
        if task := tasks.get(result.task):
            is_primary = (result.metric, result.filter) == (task.metrics[0].name, task.metrics[0].filter)
            results.append(replace(result, task=task.name, primary=is_primary))
        elif result.is_group:
            results.append(result)
    scores = {}
    for prompted_task in prompted_plan.tasks:
        task = tasks[prompted_task.name]
        stands_for = {s.digest: own.digest for s, own in zip(prompted_task.samples, task.samples, strict=True)}
        scores[task.name] = tuple(
            replace(score, sample=stands_for[score.sample]) for score in graded.scores[prompted_task.name]
        )
    return Graded(tuple(results), scores)
