"""Checkpoints: cost, weight changes, findings of checks."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.checkpoints.costs import TrainingMemory
from evalsvc.records.arms import Checkpoint, Cost, Finding
from evalsvc.records.weight_changes import WeightChange, group_changes
from evalsvc.reports.formatting import format_amount, format_count, new_table
from evalsvc.reports.report import Report, describe_arm

if TYPE_CHECKING:
    from evalsvc.scoring.inspect_checkpoint import CheckpointReport

_MARKS = {"error": "✗", "warning": "!", "note": "·"}


@dataclass(frozen=True, slots=True, repr=False)
class CheckpointsReport(Report):
    """Checkpoints, as `checkpoints list` shows them."""

    ROWS: ClassVar[str] = "checkpoints"
    checkpoints: tuple[Checkpoint, ...]

    def content(self) -> dict[str, Any]:
        """Return every checkpoint with its cost."""
        return {
            "checkpoints": [
                {**describe_arm(c), "parent": c.parent, "seed": c.seed, "cost": c.cost} for c in self.checkpoints
            ]
        }

    def tables(self) -> list[Table | Text]:
        """Return one table, a row per checkpoint."""
        labels = {checkpoint.digest: checkpoint.label for checkpoint in self.checkpoints}
        table = new_table(
            "Checkpoints",
            *("checkpoint", "method", "base", "digest", "#GPU-hours", "#CPU-hours", "#tokens", "#peak GB", "folder"),
        )
        for checkpoint in self.checkpoints:
            cost = checkpoint.cost
            table.add_row(
                checkpoint.label,
                checkpoint.method,
                labels.get(checkpoint.parent or "", ""),
                checkpoint.digest.removeprefix("sha256:")[:12],
                format_amount(cost.gpu_hours),
                format_amount(cost.cpu_hours),
                format_amount(cost.train_tokens),
                format_amount(cost.peak_memory_gb),
                checkpoint.path,
            )
        return [table]


@dataclass(frozen=True, slots=True, repr=False)
class CheckReport(Report):
    """Findings of checks of checkpoints, as `checkpoints check` shows them."""

    ROWS: ClassVar[str] = "findings"
    checkpoints: tuple[Checkpoint, ...]
    findings: tuple[Finding, ...]

    def content(self) -> dict[str, Any]:
        """Return the checkpoints and the findings."""
        return {"checkpoints": [describe_arm(checkpoint) for checkpoint in self.checkpoints], "findings": self.findings}

    def tables(self) -> list[Table | Text]:
        """Return a table of findings, errors first, with a row for each checkpoint without findings."""
        return [_findings_table(self.findings, self.checkpoints)]


def _findings_table(findings: Sequence[Finding], checkpoints: Sequence[Checkpoint]) -> Table:
    table = new_table("Findings", "", "checkpoint", "check", "finding")
    order = list(_MARKS)
    for finding in sorted(findings, key=lambda finding: order.index(finding.severity)):
        text = f"{finding.severity}: {finding.text}"
        table.add_row(_MARKS[finding.severity], finding.checkpoint, finding.check, text)
    labels = {finding.checkpoint.split(" (")[0] for finding in findings}
    for checkpoint in checkpoints:
        if checkpoint.label not in labels:
            table.add_row("✓", checkpoint.label, "", "no findings")
    return table


@dataclass(frozen=True, slots=True, repr=False)
class InspectionReport(Report):
    """One checkpoint, as `checkpoints show` and `checkpoints compare` show it.

    Attributes:
        command: Command that computes the weight change, shown if it is not computed yet.
    """

    ROWS: ClassVar[str] = "tensors"
    inspection: CheckpointReport
    command: str = ""

    def content(self) -> dict[str, Any]:
        """Return identity, cost, weight change and findings."""
        checkpoint, change, memory = self.inspection.checkpoint, self.inspection.change, self.inspection.memory
        changed = None
        if change is not None:
            changed = {
                "parameters": change.parameters,
                "trainable": change.trainable,
                "tolerance": change.tolerance,
                "groups": group_changes(change) if change.tensors else [],
                "tensors": change.tensors,
            }
        return {
            **describe_arm(checkpoint),
            "tokenizer": checkpoint.tokenizer,
            "parent": checkpoint.parent,
            "seed": checkpoint.seed,
            "cost": checkpoint.cost,
            "change": changed,
            "training_memory_gb": {"model_states_only": True, **asdict(memory)} if memory else None,
            "findings": self.inspection.findings,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per changed tensor."""
        change = self.to_dict()["change"]
        return [] if change is None else list(change["tensors"])

    def tables(self) -> list[Table | Text]:
        """Return tables of facts with cost, of the weight change, and of findings."""
        inspection = self.inspection
        facts = new_table(inspection.checkpoint.label, "", "")
        facts.show_header = False
        for name, value in _list_facts(inspection, self.command):
            facts.add_row(name, value)
        tables: list[Table | Text] = [facts]
        if inspection.change is not None and inspection.change.tensors:
            tables.append(_change_table(inspection.change))
        if inspection.findings:
            tables.append(_findings_table(inspection.findings, []))
        return tables


def _list_facts(inspection: CheckpointReport, command: str) -> list[tuple[str, str]]:
    checkpoint, change, memory = inspection.checkpoint, inspection.change, inspection.memory
    facts = [
        ("method", checkpoint.method),
        *([("seed", str(checkpoint.seed))] if checkpoint.seed is not None else []),
        ("folder", checkpoint.path),
        ("digest", checkpoint.digest),
        ("tokenizer", checkpoint.tokenizer),
        ("adapted from", checkpoint.parent or "- (a base)"),
    ]
    if change is not None:
        share = change.trainable / change.parameters
        facts.append(("trainable", f"{change.trainable:,} parameters, {share:.3%} of {change.parameters:,}"))
    elif checkpoint.parent is not None and not checkpoint.is_prompted:
        facts.append(("weight change", f"not computed yet; run: {command}"))
    facts += list_costs(checkpoint.cost)
    if memory is not None:
        facts.append(("training memory", _describe_memory(memory)))
    return facts


def compare_command(source: str, base: str | None = None) -> str:
    """Return the command that computes a checkpoint's weight change.

    Args:
        source: Folder, or label or digest in the store.
        base: Folder or Hub id of the base, if neither the store nor the checkpoint names it.
    """
    return shlex.join(["evalsvc", "checkpoints", "compare", source, *(["--base", base] if base else [])])


def list_costs(cost: Cost) -> list[tuple[str, str]]:
    """Return name and value of every cost, "-" if it is not known."""
    return [
        (name, format_amount(value))
        for name, value in (
            ("GPU-hours", cost.gpu_hours),
            ("CPU-hours", cost.cpu_hours),
            ("peak memory, GB", cost.peak_memory_gb),
            ("training tokens", cost.train_tokens),
            ("training samples", cost.train_samples),
            ("annotation cost", cost.annotation_cost),
            ("trainable share", cost.trainable_share),
            ("tokens per query", cost.tokens_per_query),
        )
    ]


def _describe_memory(memory: TrainingMemory) -> str:
    full = f"full fine-tuning with Adam {memory.full:.3g} GB"
    if memory.adapter is None or memory.adapter_4bit is None:
        return f"{full} (model states only)"
    return (
        f"this adapter {memory.adapter:.3g} GB, on a 4-bit base {memory.adapter_4bit:.3g} GB; {full} "
        "(model states only)"
    )


def _change_table(change: WeightChange) -> Table:
    table = new_table(
        "Weight change",
        *("layers", "#tensors", "#parameters", "#changed", "#relative norm", "#rank-90", "#effective rank"),
        caption=f"changed: {change.tolerance}; relative norm: norm of the change / norm of the base's weights;\n"
        "ranks: medians over changed matrices, estimated if the smaller side is above 1024; descriptive only",
    )
    for group in group_changes(change):
        table.add_row(
            group.group,
            str(group.tensors),
            format_count(group.parameters),
            f"{group.changed:.2%}",
            "-" if math.isinf(group.norm) else format_amount(group.norm),
            format_amount(group.rank_90),
            format_amount(group.effective_rank),
        )
    return table
