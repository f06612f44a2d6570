"""Diversity of sampled answers and token drift -> tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from evalsvc.analysis.claims import DecidedClaim
from evalsvc.analysis.diversity_and_drift import TaskDiversity
from evalsvc.analysis.stored_drift import ArmDrift
from evalsvc.reports.formatting import SCHEMA, format_number, format_signed, new_table
from evalsvc.stats.diversity import WORSE_WHEN


def diversity_json(arm: str, found: Sequence[TaskDiversity]) -> dict[str, Any]:
    """Return diversity as `diversity --json` prints it."""
    return {"schema": SCHEMA, "arm": arm, "tasks": [asdict(task) for task in found]}


def diversity_tables(arm: str, found: Sequence[TaskDiversity]) -> list[Table]:
    """Show every measure of every task as a ratio to the base."""
    tables = []
    for task in found:
        table = new_table(
            f"{arm}: {task.task}, {task.answers} answers per prompt",
            *("measure", "collapse is", "#prompts", "#base", "#adapted", "#ratio", "#90 % interval"),
            caption="means over prompts; ratio of the means, same prompts and seeds",
        )
        for ratio in task.ratios:
            table.add_row(
                ratio.measure,
                WORSE_WHEN[ratio.measure],
                str(ratio.prompts),
                format_number(ratio.base),
                format_number(ratio.adapted),
                format_number(ratio.ratio),
                "-" if ratio.low is None else f"{format_number(ratio.low)} .. {format_number(ratio.high)}",
            )
        tables.append(table)
    return tables


def drift_json(found: Sequence[ArmDrift], card: DecidedClaim) -> dict[str, Any]:
    """Return drift as `drift --json` prints it."""
    arms = [
        {
            "arm": one.arm.label,
            "digest": one.arm.checkpoint.digest,
            "forgetting": one.forgetting,
            "tasks": [asdict(task) for task in one.tasks],
            "refusal": one.refusal,
        }
        for one in found
    ]
    return {"schema": SCHEMA, "arms": arms, "claim": asdict(card)}


def drift_table(found: Sequence[ArmDrift]) -> Table:
    """Show every arm's drift, task by task."""
    table = new_table(
        "Drift from the base, KL(base || arm) in nats per token",
        *("arm", "role", "task", "#texts", "#tokens", "#mean", "#90 % interval", "#p95", "#forgetting"),
        caption="\n".join(f"{one.arm.label}: {one.refusal}" for one in found if one.refusal) or None,
    )
    for one in found:
        for task in one.tasks:
            drift = task.drift
            table.add_row(
                *(one.arm.label, task.role, task.task, f"{drift.texts:,}", f"{drift.tokens:,}"),
                *(f"{drift.mean:.4f}", f"{drift.low:.4f} .. {drift.high:.4f}", f"{drift.p95:.4f}"),
                format_signed(one.forgetting),
            )
    return table
