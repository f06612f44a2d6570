"""Claims about adaptation, with the verdict on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.analysis.claims import DecidedClaim
from evalsvc.reports.formatting import new_table
from evalsvc.reports.report import Report

_STYLES = {"supported": "bold green", "refuted": "bold red", "undecided": ""}


@dataclass(frozen=True, slots=True, repr=False)
class ClaimsReport(Report):
    """Claims, as `claims` shows them."""

    ROWS: ClassVar[str] = "claims"
    claims: tuple[DecidedClaim, ...]

    def content(self) -> dict[str, Any]:
        """Return every claim with its verdict."""
        return {"claims": self.claims}

    def tables(self) -> list[Table | Text]:
        """Return one table, a row per claim."""
        return [claims_table(self.claims)]


def claims_table(claims: Sequence[DecidedClaim]) -> Table:
    """Return a table of every claim with its verdict, test, reason and numbers."""
    table = new_table("Claims", "claim", "about", "verdict", "test", "reason", "evidence")
    for claim in claims:
        verdict = Text(claim.verdict, style=_STYLES[claim.verdict])
        table.add_row(claim.text, claim.about, verdict, claim.test, claim.reason, "\n".join(claim.evidence))
    return table
