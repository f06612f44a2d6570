"""A frontier -> tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from evalsvc.records.frontier import EqualLevels, Frontier, Gap, Matched, Point, Read
from evalsvc.reports.formatting import SCHEMA, format_interval, format_number, format_signed, new_table


def frontier_json(frontier: Frontier, equal: EqualLevels) -> dict[str, Any]:
    """Return a frontier as `frontier --json` prints it."""
    return {
        "schema": SCHEMA,
        "base": frontier.base,
        "axes": list(frontier.axes),
        "points": [asdict(point) for point in frontier.points],
        "methods": [asdict(method) for method in frontier.methods],
        "equal_learning": equal.learning and asdict(equal.learning),
        "equal_forgetting": equal.forgetting and asdict(equal.forgetting),
        "hypervolume": {"value": frontier.hypervolume, "reference": list(frontier.reference)},
        "learning_unit": frontier.learning_unit,
        "forgetting_unit": frontier.forgetting_unit,
        "left_out": list(frontier.left_out),
        "incomplete": list(frontier.incomplete),
    }


def frontier_table(frontier: Frontier) -> Table:
    """Show the points of a frontier, by learning."""
    caption = [
        f"learning in {frontier.learning_unit}, forgetting in {frontier.forgetting_unit}; positive forgetting is worse",
        f"hypervolume {frontier.hypervolume:.4f} from ("
        + ", ".join(f"{name} {round(at, 3):g}" for name, at in zip(frontier.axes, frontier.reference, strict=True))
        + ")",
    ]
    costs = [name for name in frontier.axes if name not in {"learning", "forgetting"}]
    if frontier.left_out:
        caption.append(f"not on the axes, in other units: {', '.join(frontier.left_out)}")
    if frontier.incomplete:
        caption.append(f"not placed, scores are missing{_or(costs)}: {', '.join(frontier.incomplete)}")
        if "trainable_share" in costs:
            caption.append("a missing trainable_share is computed by: evalsvc checkpoints compare ARM")
    table = new_table(
        f"Learning and forgetting against {frontier.base}",
        *("", "arm", "method", "#learning", "#90 % interval", "#forgetting", "#90 % interval", "#P(frontier)"),
        *(f"#{name}" for name in costs),
        "beaten for certain by",
        caption="\n".join(caption),
    )
    for point in by_learning(frontier):
        table.add_row(
            "●" if point.on_frontier else "",
            point.arm,
            point.method,
            format_signed(point.learning),
            format_interval(point.learning_low, point.learning_high),
            format_signed(point.forgetting),
            format_interval(point.forgetting_low, point.forgetting_high),
            f"{point.p_on_frontier:.2f}",
            *(format_number(getattr(point.cost, name)) for name in costs),
            point.dominated_by or "",
            style="bold" if point.on_frontier else None,
        )
    return table


def _or(costs: Sequence[str]) -> str:
    """Return, of costs that are axes, what else an arm may lack."""
    return f", or {' or '.join(costs)} is not known" if costs else ""


def by_learning(frontier: Frontier) -> list[Point]:
    """Return a frontier's points, the one that learned most first."""
    return sorted(frontier.points, key=lambda point: (-point.learning, point.forgetting))


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
        f"{title} ({level} {format_signed(matched.at)})",
        *("method", "#value", "#90 % interval", "#reached"),
        caption="read off each method's frontier, base included, by straight lines; reached: in so many resamples",
    )
    rows: list[tuple[str, Read | Gap]] = [(read.method, read) for read in matched.methods]
    rows += [(f"{gap.first} - {gap.second}", gap) for gap in matched.gaps]
    for name, row in rows:
        table.add_row(name, format_signed(row.value), format_interval(row.low, row.high), f"{row.reached:.0%}")
    return table
