"""What works on this machine."""

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
    """What works on this machine, as `doctor` shows it."""

    ROWS: ClassVar[str] = "findings"
    checks: tuple[EnvironmentCheck, ...]

    def content(self) -> dict[str, Any]:
        """Return every check."""
        return {"findings": [check._asdict() for check in self.checks]}

    def tables(self) -> list[Table | Text]:
        """Return one table, a row per check."""
        table = new_table("This machine", "", "check", "found")
        for check in self.checks:
            table.add_row(_MARKS[check.state], check.what, check.found)
        return [table]
