"""Suites and their checks -> tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from evalsvc.reports.formatting import new_table

if TYPE_CHECKING:
    from evalsvc.harness.suite_check import CheckedTask
    from evalsvc.harness.suites import Suite


def suites_table(suites: Sequence[Suite]) -> Table:
    """Show suites by role."""
    table = new_table("Suites", "suite", "role", "#tasks", "description")
    for suite in suites:
        table.add_row(suite.name, suite.role, str(len(suite.tasks)), suite.description)
    return table


def check_table(tasks: Sequence[CheckedTask]) -> Table:
    """Show what a suite's tasks are, and how small a loss their items can exclude."""
    table = new_table(
        "Checked",
        *("task", "kind", "#n", "#shots", "metric", "filter", "code", "#margin"),
        caption="margin: the smallest loss that n binary items can exclude in 80 % of runs of an unchanged model,\n"
        "if one item in ten changes; a larger n resolves a smaller margin",
    )
    for task in tasks:
        table.add_row(
            task.task,
            task.kind,
            f"{task.n:,}",
            str(task.shots),
            task.metric,
            task.filter,
            "runs code" if task.runs_code else "",
            f"{task.margin:.3f}" if task.margin is not None else "-",
        )
    return table
