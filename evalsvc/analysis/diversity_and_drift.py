"""Diversity of sampled answers and token drift of an arm, compared with its base. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalsvc.errors import EvidenceError
from evalsvc.records.vocabulary import Role
from evalsvc.stats.diversity import Ratio, compare_diversity
from evalsvc.stats.drift import Drift, drift
from evalsvc.store.scores import SampledAnswers, TokenDrift


@dataclass(frozen=True, slots=True)
class TaskDiversity:
    """One task's diversity by every measure, as the share of the base's that is kept."""

    suite: str
    task: str
    answers: int
    ratios: tuple[Ratio, ...]


@dataclass(frozen=True, slots=True)
class TaskDrift:
    """One task's token drift; the role distinguishes domain texts from general ones."""

    suite: str
    role: Role
    task: str
    drift: Drift


def compare_sampled(base: Sequence[SampledAnswers], adapted: Sequence[SampledAnswers]) -> list[TaskDiversity]:
    """Compare sampled answers, prompt by prompt.

    Raises:
        EvidenceError: The two arms have no prompt in common on some task, or only one answer per prompt.
    """
    adapted_tasks = {(task.suite, task.task): task for task in adapted}
    compared = []
    for base_task in base:
        where = f"{base_task.suite}/{base_task.task}"
        adapted_task = adapted_tasks.get((base_task.suite, base_task.task))
        if adapted_task is None:
            raise EvidenceError(f"{where}: the adapted arm has no sampled answers; submit it again")
        common, in_base, in_adapted = np.intersect1d(
            base_task.samples, adapted_task.samples, assume_unique=True, return_indices=True
        )
        answers = [[task.answers[i] for i in at] for task, at in ((base_task, in_base), (adapted_task, in_adapted))]
        if not len(common):
            raise EvidenceError(f"{where}: the two arms have no prompt in common; submit both with the same suite")
        k = len(answers[0][0])
        if k < 2:
            raise EvidenceError(
                f"{where}: has one answer per prompt, must have several; give the task `repeats` and `do_sample: true`"
            )
        ended = base_task.unfinished[in_base], adapted_task.unfinished[in_adapted]
        ratios = compare_diversity(answers[0], answers[1], ended)
        compared.append(TaskDiversity(base_task.suite, base_task.task, k, tuple(ratios)))
    return compared


def summarise_drift(tasks: Sequence[TokenDrift]) -> list[TaskDrift]:
    """Summarise an arm's token drift, task by task."""
    return [TaskDrift(task.suite, task.role, task.task, drift(task.kl, task.texts)) for task in tasks]
