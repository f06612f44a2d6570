"""Scores of suites and tasks, as lm-eval aggregates them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.reports.formatting import format_count, format_number, new_table
from evalsvc.reports.report import Report, describe_arm
from evalsvc.store.scores import StoredResult


@dataclass(frozen=True, slots=True, repr=False)
class ResultsReport(Report):
    """Scores, as `results` shows them.

    Attributes:
        by_suite: Whether tables have one row per arm and suite, instead of one per task.
    """

    ROWS: ClassVar[str] = "scores"
    scores: tuple[StoredResult, ...]
    by_suite: bool = True

    def content(self) -> dict[str, Any]:
        """Return every metric of every task."""
        scores = [
            {
                **describe_arm(score.arm.checkpoint, score.arm.label),
                "suite": score.suite,
                "role": score.role,
                "task": score.task,
                "metric": score.metric,
                "filter": score.filter,
                "n": score.n,
                "value": score.value,
                "stderr": score.stderr,
                "primary": score.primary,
                "group": score.is_group,
            }
            for score in self.scores
        ]
        return {"scores": scores}

    def tables(self) -> list[Table | Text]:
        """Return one table: of suites, or of the primary metric of every task and group."""
        return [self._suites() if self.by_suite else self._tasks()]

    def _suites(self) -> Table:
        suites: dict[tuple[str, str], list[StoredResult]] = {}
        for score in self.scores:
            if score.primary:
                suites.setdefault((score.arm.digest, score.suite), []).append(score)
        table = new_table(
            "Results",
            *("arm", "method", "suite", "role", "#tasks", "#items", "metric", "#mean"),
            caption="mean: over tasks with the same metric\n"
            "all tasks: evalsvc results --arm ARM or --suite SUITE; all metrics: --json",
        )
        for tasks in suites.values():
            metrics = sorted({task.metric for task in tasks})
            mean = sum(task.value for task in tasks) / len(tasks) if len(metrics) == 1 else None
            table.add_row(
                tasks[0].arm.label,
                tasks[0].arm.checkpoint.method,
                tasks[0].suite,
                tasks[0].role,
                str(len(tasks)),
                format_count(sum(task.n for task in tasks)),
                ", ".join(metrics),
                format_number(mean),
            )
        return table

    def _tasks(self) -> Table:
        table = new_table("Results", "arm", "method", "suite", "task", "metric", "#n", "#value", "#stderr")
        for score in self.scores:
            if score.primary or score.is_group:
                table.add_row(
                    score.arm.label,
                    score.arm.checkpoint.method,
                    score.suite,
                    f"{score.task} (group)" if score.is_group else score.task,
                    score.metric if score.filter == "none" else f"{score.metric} ({score.filter})",
                    format_count(score.n),
                    format_number(score.value),
                    format_number(score.stderr),
                )
        return table
