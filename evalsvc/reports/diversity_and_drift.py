"""Diversity of sampled answers, and token drift from the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.analysis.claims import DecidedClaim
from evalsvc.analysis.diversity_and_drift import TaskDiversity
from evalsvc.analysis.stored_drift import ArmDrift
from evalsvc.reports.claims import claims_table
from evalsvc.reports.formatting import format_count, format_levels, format_number, format_signed, label_tasks, new_table
from evalsvc.reports.report import Report
from evalsvc.stats.diversity import WORSE_WHEN


@dataclass(frozen=True, slots=True, repr=False)
class DiversityReport(Report):
    """The diversity of an arm's sampled answers compared with its base's, as `diversity` shows it."""

    ROWS: ClassVar[str] = "tasks"
    arm: str
    tasks: tuple[TaskDiversity, ...]

    def content(self) -> dict[str, Any]:
        """Return every measure of every task."""
        return {"arm": self.arm, "tasks": self.tasks}

    def tables(self) -> list[Table | Text]:
        """Return one table per task: how much of the base's diversity is kept, by every measure."""
        tables: list[Table | Text] = []
        labels = label_tasks((task.suite, task.task) for task in self.tasks)
        for task in self.tasks:
            table = new_table(
                f"{self.arm}: {labels[task.suite, task.task]}, {task.answers} answers per prompt",
                *("measure", "worse if", "#prompts", "#base", "#adapted", "#kept", "#90 % interval"),
                caption="means over the prompts on which a measure is defined, same seeds; kept: share of the base's, "
                "adapted / base, or (1 - adapted) / (1 - base) where higher is worse",
            )
            for ratio in task.ratios:
                table.add_row(
                    ratio.measure,
                    WORSE_WHEN[ratio.measure],
                    str(ratio.prompts),
                    format_number(ratio.base),
                    format_number(ratio.adapted),
                    format_number(ratio.ratio),
                    format_levels(ratio.low, ratio.high),
                )
            tables.append(table)
        return tables


@dataclass(frozen=True, slots=True, repr=False)
class DriftReport(Report):
    """Token drift of arms from their base, as `drift` shows it.

    Attributes:
        claim: The claim that drift predicts forgetting, with its verdict.
    """

    ROWS: ClassVar[str] = "arms"
    arms: tuple[ArmDrift, ...]
    claim: DecidedClaim

    def content(self) -> dict[str, Any]:
        """Return every arm's drift on every task, and the claim."""
        arms = [
            {
                "arm": drift.arm.label,
                "digest": drift.arm.checkpoint.digest,
                "forgetting": drift.forgetting,
                "tasks": drift.tasks,
                "refusal": drift.refusal,
            }
            for drift in self.arms
        ]
        return {"arms": arms, "claim": self.claim}

    def tables(self) -> list[Table | Text]:
        """Return every arm's drift, task by task, and the claim."""
        refusals = [f"{drift.arm.label}: {drift.refusal}" for drift in self.arms if drift.refusal]
        table = new_table(
            "Drift from the base, KL(base || arm) in nats per token",
            *("arm", "role", "task", "#texts", "#tokens", "#mean", "#90 % interval", "#p95", "#forgetting"),
            caption="\n".join(refusals) or None,
        )
        labels = label_tasks((task.suite, task.task) for arm in self.arms for task in arm.tasks)
        for arm in self.arms:
            for task in arm.tasks:
                drift = task.drift
                table.add_row(
                    *(arm.arm.label, task.role, labels[task.suite, task.task]),
                    *(format_count(drift.texts), format_count(drift.tokens)),
                    *(f"{drift.mean:.4f}", f"{drift.low:.4f} .. {drift.high:.4f}", f"{drift.p95:.4f}"),
                    format_signed(arm.forgetting),
                )
        return [table, claims_table([self.claim])]
