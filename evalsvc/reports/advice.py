"""Which way of adapting is enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.gating.advisor import Advice, TriedArm
from evalsvc.reports.formatting import new_line, new_table
from evalsvc.reports.report import Report


@dataclass(frozen=True, slots=True, repr=False)
class AdviceReport(Report):
    """The arms of a base from the cheapest kind upwards, each judged on the same terms until one passes."""

    ROWS: ClassVar[str] = "tried"
    advice: Advice

    @property
    def chosen(self) -> TriedArm | None:
        """The cheapest arm that passes; None if none does."""
        return self.advice.chosen

    @property
    def tried(self) -> tuple[TriedArm, ...]:
        """All arms, and the kinds of which there is none, in order of cost."""
        return self.advice.tried

    def content(self) -> dict[str, Any]:
        """Return the chosen arm, and what became of every arm."""
        return {"chosen": self.chosen and self.chosen.arm, "tried": self.tried}

    def tables(self) -> list[Table | Text]:
        """Return the advice in a line, and a row per arm."""
        if self.chosen is None:
            advice = "no arm passes on these terms"
        else:
            advice = f"take {self.chosen.arm} ({self.chosen.rung}): nothing cheaper passes"
        table = new_table("Arms, cheapest first", "kind", "arm", "verdict", "reason")
        for arm in self.tried:
            table.add_row(
                arm.rung, arm.arm or "", arm.verdict, arm.reason, style="bold" if arm == self.chosen else None
            )
        return [new_line(advice, "bold"), table]
