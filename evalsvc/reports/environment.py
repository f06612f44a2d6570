"""Checks of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.reports.formatting import new_table
from evalsvc.reports.report import Report
from evalsvc.scoring.environment import EnvironmentCheck

_MARKS = {"ok": "✓", "note": "!", "bad": "✗"}


@dataclass(frozen=True, slots=True, repr=False)
class EnvironmentReport(Report):
    """Checks of this machine, as `doctor` shows them."""

    ROWS: ClassVar[str] = "findings"
    checks: tuple[EnvironmentCheck, ...]

    def content(self) -> dict[str, Any]:
        """Return every check."""
        return {"findings": [{"what": c.name, "state": c.state, "found": c.result} for c in self.checks]}

    def tables(self) -> list[Table | Text]:
        """Return one table, a row per check."""
        table = new_table("This machine", "", "check", "result")
        for check in self.checks:
            table.add_row(_MARKS[check.state], check.name, check.result)
        return [table]
