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
    def power(self) -> float | None:
        """The probability that an unchanged checkpoint passes all rules with a power, if independent; None without."""
        powers = [rule.power for rule in self.rules if rule.power is not None]
        return math.prod(powers) if powers else None

    @property
    def exit_code(self) -> int:
        """4 if a rule cannot pass, whatever the checkpoint, as then a gate is inconclusive; else 0."""
        return 4 if any(rule.resolvable is None for rule in self.rules) else 0

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
        """Return a table, a row per rule, what scoring takes, and the rules without a power analysis."""
        parts: list[Table | Text] = [self._rules_table()] if self.rules else []
        seconds = self.plan.seconds
        time = "time unknown" if seconds is None else f"about {format_duration(seconds)}"
        requests = f"{self.plan.requests:,} requests, {time}" if self.plan.requests else "nothing"
        parts.append(new_line(f"to score: {requests}"))
        parts.append(new_line(describe_candidate(asdict(self.plan.candidate), self.plan.alpha, is_next=True)))
        return parts + [new_line(note) for note in self.plan.notes]

    def _rules_table(self) -> Table:
        captions = [
            "changed: share of items that change; source: measured on stored arms, or assumed",
            "resolves: smallest margin with 80 % power; needs n: units for 80 % power at the policy's margin",
        ]
        if self.power is not None:
            passes = "probability that an unchanged checkpoint passes all retention rules"
            captions.insert(0, f"{passes}: about {format_percent(self.power)}")
        table = new_table(
            "Power analysis",
            *("rule", "#margin", "#n", "#units", "#changed", "source", "#resolves", "#power", "#needs n"),
            caption="\n".join(captions),
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
        return table
