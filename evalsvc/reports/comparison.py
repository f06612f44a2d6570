"""The comparison of two arms, with details of every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.analysis.stored import ArmComparison
from evalsvc.records.comparisons import FullComparison, RoleTotal
from evalsvc.records.direction import arrow
from evalsvc.reports.formatting import (
    LEVEL_NOTE,
    format_count,
    format_interval,
    format_number,
    format_p_value,
    format_signed,
    label_tasks,
    new_line,
    new_table,
)
from evalsvc.reports.report import Report


@dataclass(frozen=True, slots=True, repr=False)
class ComparisonReport(Report):
    """A comparison of two arms, as `compare` shows it; differences are adapted - base, in the metric's unit."""

    ROWS: ClassVar[str] = "tasks"
    comparison: ArmComparison

    @property
    def tasks(self) -> tuple[FullComparison, ...]:
        """Every task."""
        return self.comparison.tasks

    @property
    def roles(self) -> tuple[RoleTotal, ...]:
        """The mean of every role; positive is better."""
        return self.comparison.roles

    @property
    def labels(self) -> dict[tuple[str, str], str]:
        """What each (suite, task) is called in tables without a column of suites."""
        return label_tasks((task.suite, task.task) for task in self.tasks)

    def content(self) -> dict[str, Any]:
        """Return both arms, every task and every role."""
        base, adapted = self.comparison.base, self.comparison.adapted
        return {
            "base": base.label,
            "base_digest": base.checkpoint.digest,
            "adapted": adapted.label,
            "adapted_digest": adapted.checkpoint.digest,
            "tasks": self.tasks,
            "roles": self.roles,
            "missing": self.comparison.missing,
            "warnings": self.comparison.warnings,
        }

    def tables(self) -> list[Table | Text]:
        """Return tables of tasks (worst first within each suite), of role means, and of task details."""
        return [self._tasks(), self._roles(), *self._details(), new_line(LEVEL_NOTE)]

    def _tasks(self) -> Table:
        table = new_table(
            f"{self.comparison.adapted.label} against {self.comparison.base.label}",
            *("suite", "task", "metric", "#n", "#base", "#adapted", "#difference", "#90 % interval", "#lost"),
            *("#gained", "test"),
            caption="\n".join(
                (
                    "difference = adapted - base in the metric's unit; ↑ higher is better, ↓ lower is better",
                    *(
                        f"not compared, as {entry.arm} lacks them: {', '.join(entry.lacks)}"
                        for entry in self.comparison.missing
                    ),
                    *(f"warning: {finding.checkpoint}: {finding.text}" for finding in self.comparison.warnings),
                )
            ),
        )
        for task in sort_by_loss(self.tasks):
            table.add_row(
                task.suite,
                task.task,
                f"{task.metric} {arrow(task.higher_is_better)}",
                format_count(task.n),
                format_number(task.base),
                format_number(task.adapted),
                format_signed(task.difference),
                format_interval(task.low, task.high),
                format_count(task.lost),
                format_count(task.gained),
                task.test,
            )
        return table

    def _roles(self) -> Table:
        table = new_table(
            "Mean of each role (positive is better)",
            *("role", "unit", "#suites", "#tasks", "#difference", "#90 % interval", "worst task"),
            "#worst-task difference",
        )
        for total in self.roles:
            table.add_row(
                total.role,
                total.unit,
                str(total.suites),
                str(total.tasks),
                format_signed(total.difference),
                format_interval(total.low, total.high),
                self.labels[total.worst_suite, total.worst_task],
                format_signed(total.worst_difference),
            )
        return table

    def _details(self) -> list[Table]:
        """Return a table of significance and details of tasks; none if no task has p-value or blind spots."""
        tasks = [t for t in sort_by_loss(self.tasks) if t.p_value is not None or t.blind_spots]
        if not tasks:
            return []
        table = new_table(
            "Task details",
            *("task", "moved", "#p (Holm)", "#q (BH)", "#lost", "#gained", "#by chance", "#re-run lost", "#agreement"),
            *("#unparsed", "#Brier drift", "notes"),
            caption="moved: significant at 5 % after Holm's correction over all tasks; q: false discovery rate, for "
            "exploration;\nlost, gained: shares of the items; by chance: share that guessing may explain, "
            "an upper bound;\nre-run lost: share lost between two runs of the base; agreement: share of items with the "
            "same answer, right or wrong;\nunparsed: answers that could not be parsed, base / adapted",
        )
        for task in tasks:
            label = self.labels[task.suite, task.task]
            table.add_row(label, *_detail_cells(task), style="bold" if task.moved else None)
        return [table]


def sort_by_loss(tasks: Sequence[FullComparison]) -> list[FullComparison]:
    """Return tasks by suite, the largest loss first within each suite."""
    suites = list(dict.fromkeys(task.suite for task in tasks))
    return sorted(tasks, key=lambda task: (suites.index(task.suite), task.gain))


def _detail_cells(task: FullComparison) -> list[str]:
    chance, floor, calibration = task.chance, task.floor, task.calibration
    return [
        task.moved or "",
        format_p_value(task.p_holm),
        format_p_value(task.q_value),
        format_number(None if task.lost is None else task.lost / task.n),
        format_number(None if task.gained is None else task.gained / task.n),
        "-" if chance is None else f"{format_number(chance.spurious)}{' clipped' if chance.clipped else ''}",
        format_number(None if floor is None else floor.lost),
        format_number(task.agreement),
        "-" if task.invalid_base is None else f"{task.invalid_base} / {task.invalid_adapted}",
        format_signed(None if calibration is None else calibration.brier_drift),
        "; ".join(list_notes(task)),
    ]


def list_notes(task: FullComparison) -> list[str]:
    """Return warnings about a comparison: blind spots, coverage, clusters, format loss."""
    lines = list(task.blind_spots)
    if task.coverage < 1:
        lines.append(f"only {task.coverage:.1%} of the base's items")
    if task.clusters is not None and not any("clusters" in line for line in lines):
        lines.append(f"{task.clusters} clusters")
    if task.format_loss:
        lines.append(task.format_loss)
    return lines
