"""Check a suite before anything is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evalsvc.harness import plan as planning
from evalsvc.harness import tasks as loading
from evalsvc.harness.suites import find_suite
from evalsvc.records.plans import PlannedTask, Rendering, number_samples
from evalsvc.records.vocabulary import Aggregation, Role
from evalsvc.stats.bootstrap import number_units
from evalsvc.stats.margins import z_of
from evalsvc.stats.power import ALPHA, ASSUMED_DISCORDANCE, PartUnits, UnchangedMean
from evalsvc.stats.unit_means import count_effective

GateRule = Literal["margin", "drift", "diversity"]
_RULES: Mapping[Aggregation, GateRule] = {"mean": "margin", "bits_per_byte": "drift"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTask:
    """A task that loads, whose golds are in range and whose metric and filter exist.

    Attributes:
        n: Items that are scored.
        units: Effective number of independent units: documents, or the clusters that the suite declares.
        rule: What a policy may demand of it: "margin" of a mean score, "drift" of bits per byte, or "diversity"; None
            for other metrics, on which a policy is refused.
        margin: Smallest loss that so many binary units resolve with 80 % power, as a difference of mean scores; None
            without such a rule.
    """

    task: str
    kind: str
    n: int
    units: int
    shots: int
    metric: str
    filter: str
    runs_code: bool
    rule: GateRule | None
    margin: float | None


@dataclass(frozen=True, slots=True)
class CheckedSuite:
    """A suite that can be scored.

    Attributes:
        notes: What its author should know, one line each.
    """

    tasks: tuple[CheckedTask, ...]
    notes: tuple[str, ...]


def check(name: str, *, allow_task_code: bool = False) -> CheckedSuite:
    """Load and plan a suite.

    Raises:
        SuiteError: The first problem of the suite.
    """
    loaded = loading.load(find_suite(name), allow_task_code=allow_task_code)
    planned = planning.plan(loaded, Rendering(None, loaded.suite.system_prompt))
    tasks = [
        _describe_task(task, planned.plan.role, runs_code=loaded_task.runs_code)
        for task, loaded_task in zip(planned.plan.tasks, loaded.tasks, strict=True)
    ]
    return CheckedSuite(tuple(tasks), planned.notes)


def _describe_task(task: PlannedTask, role: Role, *, runs_code: bool) -> CheckedTask:
    units, metric = _count_units(task), task.metrics[0]
    rule: GateRule | None = "diversity" if role == "diversity" else _RULES.get(metric.aggregation)
    return CheckedTask(
        task=task.name,
        kind=task.output_type,
        n=len(task.samples),
        units=round(units.effective),
        shots=task.shots,
        metric=metric.name,
        filter=metric.filter,
        runs_code=runs_code,
        rule=rule,
        margin=_resolvable_margin(units) if rule == "margin" else None,
    )


def _count_units(task: PlannedTask) -> PartUnits:
    """Count the units of one task."""
    sizes = np.bincount(number_units(*number_samples("", task.name, task.samples))).astype(np.float64)
    return PartUnits(count_effective(sizes), is_items=len(sizes) == len(task.samples))


def _resolvable_margin(units: PartUnits) -> float:
    """Return the smallest margin that units resolve, at the discordance that is assumed before scoring."""
    variances = (ASSUMED_DISCORDANCE / units.effective,)
    return UnchangedMean(shares=(1.0,), units=(units,), variances=variances, z_alpha=z_of(ALPHA)).resolvable_margin()
