"""A comparison of two arms -> tables and JSON, with what stands behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from evalsvc.analysis.stored import ArmComparison
from evalsvc.records.comparisons import FullComparison
from evalsvc.records.direction import arrow
from evalsvc.reports.formatting import SCHEMA, format_interval, format_number, format_signed, new_table


def compared_json(compared: ArmComparison) -> dict[str, Any]:
    """Return a comparison as `compare --json` prints it; differences are adapted - base, in the metric's unit."""
    return {
        "schema": SCHEMA,
        "base": compared.base.label,
        "base_digest": compared.base.checkpoint.digest,
        "adapted": compared.adapted.label,
        "adapted_digest": compared.adapted.checkpoint.digest,
        "tasks": [asdict(task) for task in compared.tasks],
        "roles": [asdict(role) for role in compared.roles],
    }


def _metric(comparison: FullComparison) -> str:
    return f"{comparison.metric} {arrow(comparison.higher_is_better)}"


def comparison_tables(compared: ArmComparison) -> list[Table]:
    """Show a comparison: every task, worst first within its suite, then the mean of every role."""
    base, adapted = compared.base.label, compared.adapted.label
    tasks = new_table(
        f"{adapted} against {base}",
        *("suite", "task", "metric", "#n", "#base", "#adapted", "#difference", "#90 % interval", "#lost", "#gained"),
        "test",
        caption="difference = adapted - base in the metric's unit; ↑ higher is better, ↓ lower is better",
    )
    for comparison in in_order_of_harm(compared.tasks):
        tasks.add_row(
            comparison.suite,
            comparison.task,
            _metric(comparison),
            f"{comparison.n:,}",
            format_number(comparison.base),
            format_number(comparison.adapted),
            format_signed(comparison.difference),
            format_interval(comparison.low, comparison.high),
            "-" if comparison.lost is None else str(comparison.lost),
            "-" if comparison.gained is None else str(comparison.gained),
            comparison.test,
        )
    roles = new_table(
        "By role (better counted positive)",
        *("role", "unit", "#suites", "#tasks", "#difference", "#90 % interval", "worst task", "#its difference"),
    )
    for total in compared.roles:
        roles.add_row(
            total.role,
            total.unit,
            str(total.suites),
            str(total.tasks),
            format_signed(total.difference),
            format_interval(total.low, total.high),
            total.worst_task,
            format_signed(total.worst_difference),
        )
    return [tasks, roles]


def in_order_of_harm(comparisons: Sequence[FullComparison]) -> list[FullComparison]:
    """Return comparisons by suite, the greatest loss first within each."""
    suites = list(dict.fromkeys(comparison.suite for comparison in comparisons))
    return sorted(comparisons, key=lambda c: (suites.index(c.suite), c.gain))


def detail_tables(compared: ArmComparison) -> list[Table]:
    """Show which tasks moved, and what a difference of means does not say; nothing for tasks that have none of it."""
    shown = [comparison for comparison in in_order_of_harm(compared.tasks) if _says_something(comparison)]
    if not shown:
        return []
    table = new_table(
        "What the means hide",
        *("task", "moved", "#p (Holm)", "#q (BH)", "#lost", "#gained", "#by chance", "#re-run lost", "#agreement"),
        *("#unparsed", "#Brier drift", "notes"),
        caption="moved: Holm at 5 % over all tasks; q: exploratory, at 10 %; by chance: what guessing alone may\n"
        "explain of lost and of gained, a rough bracket; re-run lost: between two runs of the base; agreement:\n"
        "the same answer, right or wrong; unparsed: base / adapted",
    )
    for comparison in shown:
        table.add_row(*_row(comparison), style="bold" if comparison.moved else None)
    return [table]


def _says_something(comparison: FullComparison) -> bool:
    return comparison.p_value is not None or bool(comparison.blind_spots)


def _row(comparison: FullComparison) -> list[str]:
    chance, floor, calibration = comparison.chance, comparison.floor, comparison.calibration
    return [
        comparison.task,
        comparison.moved or "",
        _probability(comparison.p_holm),
        _probability(comparison.q_value),
        _share(comparison.lost, comparison.n),
        _share(comparison.gained, comparison.n),
        "-" if chance is None else f"{chance.spurious:.3f}{' clipped' if chance.clipped else ''}",
        "-" if floor is None else f"{floor.lost:.3f}",
        "-" if comparison.agreement is None else f"{comparison.agreement:.3f}",
        "-" if comparison.invalid_base is None else f"{comparison.invalid_base} / {comparison.invalid_adapted}",
        "-" if calibration is None else format_signed(calibration.brier_drift),
        "; ".join(notes(comparison)),
    ]


def notes(comparison: FullComparison) -> Sequence[str]:
    """Return what a reader must know before believing a comparison."""
    found = list(comparison.blind_spots)
    if comparison.coverage < 1:
        found.append(f"only {comparison.coverage:.1%} of the base's samples")
    if comparison.clusters is not None:
        found.append(f"{comparison.clusters} clusters")
    if comparison.format_loss:
        found.append(comparison.format_loss)
    return found


def _probability(p: float | None) -> str:
    if p is None:
        return "-"
    return "<.001" if p < 0.001 else f"{p:.3f}"


def _share(count: int | None, n: int) -> str:
    return "-" if count is None else f"{count / n:.3f}"
