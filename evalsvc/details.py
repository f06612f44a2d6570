"""What stands behind a comparison or a frontier, and claims about them, as tables.

Of a comparison: what its means hide. Of a frontier: the frontier of each method, and methods compared at equal learning
or equal forgetting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from evalsvc.claims import Card
from evalsvc.collapse import TaskDiversity
from evalsvc.points import EqualLevels, Frontier, Gap, Matched, Read
from evalsvc.records import FullComparison
from evalsvc.report import SCHEMA, in_order_of_harm, interval, new_table, number, signed
from evalsvc.service import Compared
from evalsvc.stats.diversity import WORSE_WHEN
from evalsvc.studies import Drifted


def comparison_tables(compared: Compared) -> list[Table]:
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
        "-" if calibration is None else signed(calibration.brier_drift),
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


def frontier_tables(frontier: Frontier, equal: EqualLevels) -> list[Table]:
    """Show the frontier of each method, and methods against each other at one level; nothing for a single method."""
    if len(frontier.methods) < 2:
        return []
    table = new_table("Frontier of each method", "method", "#hypervolume", "arms on it")
    for method in frontier.methods:
        table.add_row(method.method, f"{method.hypervolume:.4f}", ", ".join(method.arms))
    matched = [
        _matched_table(found, f"{what} at equal {level}", level)
        for found, what, level in (
            (equal.learning, "Forgetting", "learning"),
            (equal.forgetting, "Learning", "forgetting"),
        )
        if found is not None
    ]
    return [table, *matched]


def _matched_table(matched: Matched, title: str, level: str) -> Table:
    table = new_table(
        f"{title} ({level} {signed(matched.at)})",
        *("method", "#value", "#90 % interval", "#reached"),
        caption="read off each method's frontier, base included, by straight lines; reached: in so many resamples",
    )
    rows: list[tuple[str, Read | Gap]] = [(read.method, read) for read in matched.methods]
    rows += [(f"{gap.first} - {gap.second}", gap) for gap in matched.gaps]
    for name, row in rows:
        table.add_row(name, signed(row.value), interval(row.low, row.high), f"{row.reached:.0%}")
    return table


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
                number(ratio.base),
                number(ratio.adapted),
                number(ratio.ratio),
                "-" if ratio.low is None else f"{number(ratio.low)} .. {number(ratio.high)}",
            )
        tables.append(table)
    return tables


def drift_json(found: Sequence[Drifted], card: Card) -> dict[str, Any]:
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


def drift_table(found: Sequence[Drifted]) -> Table:
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
                signed(one.forgetting),
            )
    return table


def claims_json(cards: Sequence[Card]) -> dict[str, Any]:
    """Return claim cards as `claims --json` prints them."""
    return {"schema": SCHEMA, "claims": [asdict(card) for card in cards]}


def claims_table(cards: Sequence[Card]) -> Table:
    """Show every claim with its verdict, the test that decided, and the numbers behind it."""
    table = new_table("Claims", "claim", "about", "verdict", "test", "because", "evidence")
    styles = {"supported": "bold green", "refuted": "bold red", "undecided": ""}
    for card in cards:
        verdict = Text(card.verdict, style=styles[card.verdict])
        table.add_row(card.text, card.about, verdict, card.test, card.reason, "\n".join(card.evidence))
    return table
