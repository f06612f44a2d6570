"""Check a suite before anything is scored."""

from __future__ import annotations

from dataclasses import dataclass

from evalsvc.harness import plan as planning
from evalsvc.harness import tasks as loading
from evalsvc.harness.suites import find_suite
from evalsvc.records.plans import Rendering
from evalsvc.stats.margins import z_of
from evalsvc.stats.power import ALPHA, ASSUMED_DISCORDANCE, UnchangedMean


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTask:
    """A task that loads, whose golds are in range and whose metric and filter exist.

    Attributes:
        n: Items that are scored.
        margin: Smallest loss that n binary items resolve with 80 % power, as a difference of mean scores; None for
            other metrics.
    """

    task: str
    kind: str
    n: int
    shots: int
    metric: str
    filter: str
    runs_code: bool
    margin: float | None


def check(name: str, *, allow_task_code: bool = False) -> list[CheckedTask]:
    """Load and plan a suite.

    Raises:
        SuiteError: The first problem of the suite.
    """
    loaded = loading.load(find_suite(name), allow_task_code=allow_task_code)
    plan = planning.plan(loaded, Rendering(None, loaded.suite.system_prompt)).plan
    return [
        CheckedTask(
            task=task.name,
            kind=task.output_type,
            n=len(task.samples),
            shots=task.shots,
            metric=task.metrics[0].name,
            filter=task.metrics[0].filter,
            runs_code=loaded_task.runs_code,
            margin=_resolvable_margin(len(task.samples)) if task.metrics[0].aggregation == "mean" else None,
        )
        for task, loaded_task in zip(plan.tasks, loaded.tasks, strict=True)
    ]


def _resolvable_margin(n: int) -> float:
    """Return the smallest margin that n items resolve, at the discordance that is assumed before scoring."""
    variances = (ASSUMED_DISCORDANCE / n,)
    return UnchangedMean(shares=(1.0,), items=(n,), variances=variances, z_alpha=z_of(ALPHA)).resolvable_margin()
