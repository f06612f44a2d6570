"""What is known of checkpoints: tables for people, JSON for machines. Decides nothing."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from evalsvc.checkpoints.costs import TrainingMemory
from evalsvc.records.arms import Checkpoint, Cost, Finding
from evalsvc.records.weight_changes import WeightChange, group_changes
from evalsvc.reports.formatting import SCHEMA, new_table
from evalsvc.reports.runs import arm_fields

_MARKS = {"error": "✗", "warning": "!", "note": "·"}


def checkpoints_table(checkpoints: Sequence[Checkpoint]) -> Table:
    """Show checkpoints, one row each."""
    labels = {checkpoint.digest: checkpoint.label for checkpoint in checkpoints}
    table = new_table(
        "Checkpoints", *("checkpoint", "method", "base", "digest", "#GPU-hours", "#tokens", "#peak GB", "folder")
    )
    for checkpoint in checkpoints:
        cost = checkpoint.cost
        table.add_row(
            escape(checkpoint.label),
            escape(checkpoint.method),
            escape(labels.get(checkpoint.parent or "", "")),
            checkpoint.digest.removeprefix("sha256:")[:12],
            _amount(cost.gpu_hours),
            _amount(cost.train_tokens),
            _amount(cost.peak_memory_gb),
            escape(checkpoint.path),
        )
    return table


def _amount(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def findings_table(findings: Sequence[Finding], looked_at: Sequence[Checkpoint]) -> Table:
    """Show findings, errors first; a checkpoint without any is named as clean."""
    table = new_table("Checked", "", "checkpoint", "check", "found")
    order = list(_MARKS)
    for finding in sorted(findings, key=lambda f: order.index(f.severity)):
        text = f"{finding.severity}: {finding.text}"
        table.add_row(_MARKS[finding.severity], escape(finding.checkpoint), finding.check, escape(text))
    spoken_of = {finding.checkpoint.split(" (")[0] for finding in findings}
    for checkpoint in looked_at:
        if checkpoint.label not in spoken_of:
            table.add_row("✓", escape(checkpoint.label), "", "nothing found")
    return table


def findings_json(findings: Sequence[Finding], looked_at: Sequence[Checkpoint]) -> dict[str, Any]:
    """Return findings as `checkpoints check --json` prints them."""
    return {
        "schema": SCHEMA,
        "checkpoints": [arm_fields(checkpoint) for checkpoint in looked_at],
        "findings": [asdict(finding) for finding in findings],
    }


def dossier_tables(
    checkpoint: Checkpoint,
    change: WeightChange | None,
    memory: TrainingMemory | None,
    findings: Sequence[Finding],
    command: str,
) -> list[Table]:
    """Show one checkpoint: method, cost, change in its weights, findings.

    Args:
        command: Computes the change, where it is not known.
    """
    facts = Table(title=escape(checkpoint.label), title_justify="left", show_header=False)
    for name, value in _facts(checkpoint, change, memory, command):
        facts.add_row(name, escape(value))
    tables = [facts]
    if change is not None and change.tensors:
        tables.append(_change_table(change))
    if findings:
        tables.append(findings_table(findings, []))
    return tables


def _facts(
    checkpoint: Checkpoint, change: WeightChange | None, memory: TrainingMemory | None, command: str
) -> list[tuple[str, str]]:
    facts = [
        ("method", checkpoint.method),
        ("folder", checkpoint.path),
        ("digest", checkpoint.digest),
        ("tokenizer", checkpoint.tokenizer),
        ("adapted from", checkpoint.parent or "nothing: it is a base"),
    ]
    if change is not None:
        share = change.trainable / change.parameters
        facts.append(("trainable", f"{change.trainable:,} parameters, {share:.3%} of {change.parameters:,}"))
    elif checkpoint.parent is not None and not checkpoint.is_prompted:
        facts.append(("change in weights", f"not computed yet: {command}"))
    facts += cost_lines(checkpoint.cost)
    if memory is not None:
        facts.append(("memory to train", _memory(checkpoint, memory)))
    return facts


def compare_command(source: str, base: str | None = None) -> str:
    """Return the command that computes what adapting changed in a checkpoint's weights.

    Args:
        source: Folder, or label or digest in the store.
        base: Folder or hub id, unless the store or the checkpoint says what it was adapted from.
    """
    words = ["evalsvc", "checkpoints", "compare", source, *(["--base", base] if base else [])]
    return shlex.join(words)


def cost_lines(cost: Cost) -> list[tuple[str, str]]:
    """Return what a cost card says, what is not known included."""
    return [
        (name, _amount(value))
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


def _memory(checkpoint: Checkpoint, memory: TrainingMemory) -> str:
    wholly = f"full fine-tuning with Adam {memory.full:.3g} GB"
    if not checkpoint.is_adapter:
        return f"{wholly} (model states only)"
    return (
        f"this adapter {memory.adapter:.3g} GB, on a 4-bit base {memory.adapter_4bit:.3g} GB; {wholly} "
        "(model states only)"
    )


def _change_table(change: WeightChange) -> Table:
    table = new_table(
        "What changed",
        *("layers", "#tensors", "#parameters", "#changed", "#relative norm", "#rank-90", "#effective rank"),
        caption=f"changed: {change.tolerance}; relative norm: of the change over that of the base; ranks: medians over "
        "changed matrices,\nestimated where the smaller side is above 1024. A description, not a verdict.",
    )
    for group in group_changes(change):
        table.add_row(
            group.group,
            str(group.tensors),
            f"{group.parameters:,}",
            f"{group.changed:.2%}",
            "-" if math.isinf(group.norm) else f"{group.norm:.3g}",
            _amount(group.rank_90),
            _amount(group.effective_rank),
        )
    return table


def dossier_json(
    checkpoint: Checkpoint, change: WeightChange | None, memory: TrainingMemory | None, findings: Sequence[Finding]
) -> dict[str, Any]:
    """Return a checkpoint as `checkpoints show --json` prints it."""
    changed = None
    if change is not None:
        changed = {
            "parameters": change.parameters,
            "trainable": change.trainable,
            "tolerance": change.tolerance,
            "groups": [asdict(group) for group in group_changes(change)] if change.tensors else [],
            "tensors": [asdict(tensor) for tensor in change.tensors],
        }
    return {
        "schema": SCHEMA,
        **arm_fields(checkpoint),
        "tokenizer": checkpoint.tokenizer,
        "parent": checkpoint.parent,
        "cost": asdict(checkpoint.cost),
        "change": changed,
        "training_memory_gb": {"model_states_only": True, **asdict(memory)} if memory else None,
        "findings": [asdict(finding) for finding in findings],
    }


def checkpoints_json(checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """Return checkpoints as `checkpoints list --json` prints them."""
    return {
        "schema": SCHEMA,
        "checkpoints": [{**arm_fields(c), "parent": c.parent, "cost": asdict(c.cost)} for c in checkpoints],
    }
