"""The cheapest arm that passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.gating.advisor import Advice, JudgedArm
from evalsvc.reports.formatting import new_line, new_table
from evalsvc.reports.report import Report


@dataclass(frozen=True, slots=True, repr=False)
class AdviceReport(Report):
    """The arms of a base in order of cost, each judged by the same criteria until one passes."""

    ROWS: ClassVar[str] = "tried"
    advice: Advice

    @property
    def choice(self) -> JudgedArm | None:
        """The cheapest arm that passes; None if none does."""
        return self.advice.choice

    @property
    def arms(self) -> tuple[JudgedArm, ...]:
        """All arms, and the groups of methods without an arm, in order of cost."""
        return self.advice.arms

    def content(self) -> dict[str, Any]:
        """Return the choice, and every arm with its verdict."""
        return {"chosen": self.choice and self.choice.arm, "tried": self.arms}

    def tables(self) -> list[Table | Text]:
        """Return the advice in one line, and a table with a row per arm."""
        if self.choice is None:
            advice = "no arm passes"
        else:
            advice = f"use {self.choice.arm} ({self.choice.rung}): no cheaper arm passes"
        table = new_table("Arms, cheapest first", "kind", "arm", "verdict", "reason")
        for arm in self.arms:
            table.add_row(
                arm.rung, arm.arm or "", arm.verdict, arm.reason, style="bold" if arm == self.choice else None
            )
        return [new_line(advice, "bold"), table]
