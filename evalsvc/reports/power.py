"""Power analysis of a policy, before scoring."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.gating.candidates import describe_candidate
from evalsvc.reports.formatting import (
    format_count,
    format_duration,
    format_number,
    format_percent,
    new_line,
    new_table,
)
from evalsvc.reports.report import Report

if TYPE_CHECKING:
    from evalsvc.gating.power import RuleForecast
    from evalsvc.gating.power_plan import PowerPlan


@dataclass(frozen=True, slots=True, repr=False)
class PowerReport(Report):
    """The power analysis of a policy, as `gate --plan` shows it."""

    ROWS: ClassVar[str] = "rules"
    plan: PowerPlan

    @property
    def rules(self) -> tuple[RuleForecast, ...]:
        """The learning and retention rules, each with the margin that its items resolve."""
        return self.plan.rules

    @property
    def power(self) -> float:
        """The probability that an unchanged checkpoint passes all retention rules, if they were independent."""
        return math.prod(1.0 if rule.power is None else rule.power for rule in self.rules)

    def content(self) -> dict[str, Any]:
        """Return every rule's power, the requests to score, and the rules without a power analysis."""
        return {
            "rules": self.rules,
            "power": self.power,
            "alpha": self.plan.alpha,
            "candidate": self.plan.candidate,
            "requests": self.plan.requests,
            "seconds": self.plan.seconds,
            "notes": self.plan.notes,
        }

    def tables(self) -> list[Table | Text]:
        """Return one table, a row per rule, and the rules that it leaves out."""
        seconds = self.plan.seconds
        time = "time unknown" if seconds is None else f"about {format_duration(seconds)}"
        table = new_table(
            "Power analysis",
            *("rule", "#margin", "#n", "#units", "#changed", "source", "#resolves", "#power", "#needs n"),
            caption=f"probability that an unchanged checkpoint passes all retention rules: about "
            f"{format_percent(self.power)}\nto score: {self.plan.requests:,} requests, {time}\n"
            "changed: share of items that change; source: measured on stored arms, or assumed\n"
            "resolves: smallest margin with 80 % power; needs n: units for 80 % power at the policy's margin",
        )
        for rule in self.rules:
            table.add_row(
                rule.rule,
                f"{rule.margin:g}",
                format_count(rule.n),
                format_count(rule.units),
                f"{rule.discordance:.1%}",
                "measured" if rule.seen else "assumed",
                format_number(rule.resolvable),
                format_percent(rule.power),
                format_count(rule.needed_n),
            )
        candidate = describe_candidate(asdict(self.plan.candidate), self.plan.alpha, is_next=True)
        return [table, new_line(candidate), *(new_line(note) for note in self.plan.notes)]
