"""The same documents with other prompts: worked examples (ICL) or retrieved passages (RAG) instead of training.

Such an arm is asked a plan of its own, and graded by it. Its scores then stand under its base's samples, document by
document: that the prompts differ was declared, so that they can be compared.
"""

from __future__ import annotations

from dataclasses import replace

from evalsvc.errors import SuiteError
from evalsvc.harness.plan import Planned, part
from evalsvc.harness.suites import Suite
from evalsvc.records.plans import Plan
from evalsvc.records.scores import Graded


def with_shots(suite: Suite, shots: int) -> Suite:
    """Return a suite whose tasks all have this many worked examples, and no limit of their own."""
    tasks = tuple(entry.model_copy(update={"shots": shots, "limit": None}) for entry in suite.tasks)
    return suite.model_copy(update={"tasks": tasks, "defaults": suite.defaults.model_copy(update={"limit": None})})


def same_documents(planned: Planned, other: Planned) -> Planned:
    """Return the part of another plan that asks a plan's documents, task by task in their order.

    Raises:
        SuiteError: It has not all of these documents, or is not graded by the same metric.
    """
    mine, theirs = planned.plan.tasks, other.plan.tasks
    where = f"suite {other.plan.suite_path}"
    if len(mine) != len(theirs):
        raise SuiteError(
            f"{where}: has {len(theirs)} tasks, and suite {planned.plan.suite} has {len(mine)}; give one for each, in "
            "the same order"
        )
    chosen = {}
    for task, its in zip(mine, theirs, strict=True):
        wanted = {sample.doc_id for sample in task.samples}
        chosen[its.name] = [sample.doc_id in wanted for sample in its.samples]
        found = [(s.doc_id, s.target) for s in its.samples if s.doc_id in wanted]
        if found != [(s.doc_id, s.target) for s in task.samples]:
            raise SuiteError(
                f"{where}: task {its.name}: its documents are not those of {task.name} in the same order, with the "
                "same answers; only the prompts may differ"
            )
        first = task.metrics[0]
        if (first.name, first.filter) not in {(metric.name, metric.filter) for metric in its.metrics}:
            raise SuiteError(f"{where}: task {its.name}: has no metric {first.name} under filter {first.filter!r}")
    return part(other, chosen)


def as_of(graded: Graded, asked: Plan, plan: Plan) -> Graded:
    """Return scores on what was asked as scores of a plan's own tasks and samples."""
    tasks = {its.name: task for task, its in zip(plan.tasks, asked.tasks, strict=True)}
    results = []
    for result in graded.results:
        if task := tasks.get(result.task):
            is_primary = (result.metric, result.filter) == (task.metrics[0].name, task.metrics[0].filter)
            results.append(replace(result, task=task.name, primary=is_primary))
        elif result.is_group:
            results.append(result)
    scores = {}
    for its in asked.tasks:
        task = tasks[its.name]
        stands_for = {s.digest: own.digest for s, own in zip(its.samples, task.samples, strict=True)}
        scores[task.name] = tuple(replace(score, sample=stands_for[score.sample]) for score in graded.scores[its.name])
    return Graded(tuple(results), scores)
