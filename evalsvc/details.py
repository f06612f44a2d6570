"""Comparisons in, a table of what their means hide out: lost and gained beside their floors, agreement, failures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from evalsvc.records import Comparison
from evalsvc.report import in_order_of_harm, new_table, signed
from evalsvc.service import Compared


def tables(compared: Compared) -> list[Table]:
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


def _says_something(comparison: Comparison) -> bool:
    return comparison.p_value is not None or bool(comparison.blind_spots)


def _row(comparison: Comparison) -> list[str]:
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
        "-" if calibration is None else signed(calibration.brier_drift),
        "; ".join(notes(comparison)),
    ]


def notes(comparison: Comparison) -> Sequence[str]:
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
