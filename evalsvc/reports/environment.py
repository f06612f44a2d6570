"""What works on this machine -> a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from evalsvc.reports.formatting import new_table

if TYPE_CHECKING:
    from evalsvc.scoring.environment import EnvironmentCheck


def findings_table(findings: Sequence[EnvironmentCheck]) -> Table:
    """Show what works on this machine."""
    table = new_table("Doctor", "", "what", "found")
    marks = {"ok": "✓", "note": "!", "bad": "✗"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.found)
    return table
