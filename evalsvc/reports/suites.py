"""Suites, and the checks of their tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.reports.formatting import format_count, format_number, new_table
from evalsvc.reports.report import Report

if TYPE_CHECKING:
    from evalsvc.harness.suite_check import CheckedSuite
    from evalsvc.harness.suites import Suite


@dataclass(frozen=True, slots=True, repr=False)
class SuitesReport(Report):
    """Suites, as `suites list` shows them."""

    ROWS: ClassVar[str] = "suites"
    suites: tuple[Suite, ...]

    def content(self) -> dict[str, Any]:
        """Return the content of every suite's file."""
        return {"suites": [suite.model_dump(mode="json") for suite in self.suites]}

    def tables(self) -> list[Table | Text]:
        """Return one table, a row per suite."""
        table = new_table("Suites", "suite", "role", "#tasks", "description")
        for suite in self.suites:
            table.add_row(suite.name, suite.role, str(len(suite.tasks)), suite.description)
        return [table]


@dataclass(frozen=True, slots=True, repr=False)
class SuiteReport(Report):
    """A suite, as `suites show` shows it."""

    ROWS: ClassVar[str] = "tasks"
    suite: Suite

    def content(self) -> dict[str, Any]:
        """Return the content and the path of the suite's file."""
        return {"suite": self.suite.model_dump(mode="json"), "path": self.suite.path}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per task."""
        tasks: list[dict[str, Any]] = self.to_dict()["suite"]["tasks"]
        return tasks

    def tables(self) -> list[Table | Text]:
        """Return the text of the suite's file."""
        return [Text(f"# {self.suite.path}\n{self.suite.path.read_text(encoding='utf-8')}", end="")]


@dataclass(frozen=True, slots=True, repr=False)
class SuiteCheckReport(Report):
    """A suite's tasks, as `suites check` shows them."""

    ROWS: ClassVar[str] = "tasks"
    suite: CheckedSuite

    def content(self) -> dict[str, Any]:
        """Return every task, and the notes."""
        return {"tasks": self.suite.tasks, "notes": self.suite.notes}

    def tables(self) -> list[Table | Text]:
        """Return one table: the tasks, and the smallest loss that their items exclude; and the notes."""
        table = new_table(
            "Tasks",
            *("task", "kind", "#n", "#units", "#shots", "metric", "filter", "code", "rule", "#margin"),
            caption='units: independent documents or clusters; rule: what a policy may demand of it, "-" for nothing\n'
            "margin: smallest loss that so many binary units exclude with 80 % power, for an unchanged model of which "
            "10 % of the answers change;\nmore units resolve a smaller margin",
        )
        for task in self.suite.tasks:
            table.add_row(
                task.task,
                task.kind,
                format_count(task.n),
                format_count(task.units),
                str(task.shots),
                task.metric,
                task.filter,
                "runs code" if task.runs_code else "",
                task.rule or "-",
                format_number(task.margin),
            )
        return [table, *(Text(f"warning: {note}") for note in self.suite.notes)]
