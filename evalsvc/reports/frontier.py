"""Learning and forgetting: points, the frontier of each method, methods at equal levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.records.frontier import EqualLevels, Frontier, LevelComparison, MethodDifference, MethodValue, Point
from evalsvc.reports.formatting import (
    format_interval,
    format_number,
    format_signed,
    new_line,
    new_table,
)
from evalsvc.reports.report import Report, describe_missing

NO_EQUAL_LEARNING = "Not compared at equal learning: there is none that all methods reach in 95 % of the resamples."


@dataclass(frozen=True, slots=True, repr=False)
class FrontierReport(Report):
    """A frontier, as `frontier` shows it.

    Attributes:
        equal: Methods compared at equal learning, and at equal forgetting.
    """

    ROWS: ClassVar[str] = "points"
    frontier: Frontier
    equal: EqualLevels = EqualLevels()

    @property
    def points(self) -> tuple[Point, ...]:
        """One point per arm, the base's included."""
        return self.frontier.points

    def content(self) -> dict[str, Any]:
        """Return the points, each method's frontier, and methods at equal levels."""
        frontier = self.frontier
        return {
            "base": frontier.base,
            "axes": frontier.axes,
            "points": frontier.points,
            "methods": frontier.methods,
            "equal_learning": self.equal.learning,
            "equal_forgetting": self.equal.forgetting,
            "hypervolume": {"value": frontier.hypervolume, "reference": frontier.reference},
            "learning_unit": frontier.learning_unit,
            "forgetting_unit": frontier.forgetting_unit,
            "suites": frontier.suites,
            "unshared": frontier.unshared,
            "left_out": frontier.left_out,
            "incomplete": [entry.arm for entry in frontier.missing],
            "missing": frontier.missing,
        }

    def tables(self) -> list[Table | Text]:
        """Return a table of points and, with several methods, tables of their frontiers and at equal levels."""
        tables: list[Table | Text] = [points_table(self.frontier)]
        if len(self.frontier.methods) < 2:
            return tables
        table = new_table("Frontier of each method", "method", "#hypervolume", "arms on it")
        for method in self.frontier.methods:
            table.add_row(method.method, f"{method.hypervolume:.4f}", ", ".join(method.arms))
        tables.append(table)
        if self.equal.learning:
            tables.append(_level_table(self.equal.learning, "Forgetting", "learning"))
        elif set(self.frontier.axes) >= {"learning", "forgetting"}:
            tables.append(new_line(NO_EQUAL_LEARNING))
        if self.equal.forgetting:
            tables.append(_level_table(self.equal.forgetting, "Learning", "forgetting"))
        return tables


def points_table(frontier: Frontier) -> Table:
    """Return a table of the points of a frontier, ordered by learning."""
    reference = ", ".join(
        f"{name} {round(at, 3):g}" for name, at in zip(frontier.axes, frontier.reference, strict=True)
    )
    caption = [
        "● on the frontier: no other arm dominates it; P(frontier): share of resamples in which it is on the frontier",
        f"units: learning {frontier.learning_unit}, forgetting {frontier.forgetting_unit} (positive is worse); "
        f"hypervolume {frontier.hypervolume:.4f} from {reference}",
    ]
    costs = [name for name in frontier.axes if name not in {"learning", "forgetting"}]
    if any(point.p_on_frontier is None for point in frontier.points):
        caption.append("no P(frontier): levels of an arm are published without standard errors")
    if frontier.unshared:
        names = ", ".join(frontier.unshared)
        caption.append(f"suites not on the axes, because most arms do not share them: {names}; --suite takes them")
    if frontier.left_out:
        caption.append(f"tasks not on the axes, because of another unit: {', '.join(frontier.left_out)}")
    if frontier.missing:
        caption.append(f"arms not placed: {describe_missing(frontier.missing)}")
        if "trainable_share" in costs:
            caption.append("a missing trainable_share is computed by: evalsvc checkpoints compare ARM")
    table = new_table(
        f"Learning and forgetting against {frontier.base}",
        *("", "arm", "method", "#learning", "#90 % interval", "#forgetting", "#90 % interval", "#P(frontier)"),
        *(f"#{name}" for name in costs),
        "dominated by (95 %)",
        caption="\n".join(caption),
    )
    for point in sort_by_learning(frontier):
        table.add_row(
            "●" if point.on_frontier else "",
            point.arm,
            point.method,
            format_signed(point.learning),
            format_interval(point.learning_low, point.learning_high),
            format_signed(point.forgetting),
            format_interval(point.forgetting_low, point.forgetting_high),
            "-" if point.p_on_frontier is None else f"{point.p_on_frontier:.2f}",
            *(format_number(getattr(point.cost, name)) for name in costs),
            point.dominated_by or "",
            style="bold" if point.on_frontier else None,
        )
    return table


def sort_by_learning(frontier: Frontier) -> list[Point]:
    """Return a frontier's points in order of decreasing learning."""
    return sorted(frontier.points, key=lambda point: (-point.learning, point.forgetting))


def _level_table(comparison: LevelComparison, compared: str, level: str) -> Table:
    """Return a table of methods compared in learning at equal forgetting, or the other way round."""
    captions = [
        "by linear interpolation between the points of each method's frontier, base included;",
        f"reached: share of resamples in which the method reaches this {level}; no interval where fewer than half do",
    ]
    if level == "learning":
        captions.append("level, unless given: the highest that all methods reach in 95 % of the resamples")
    table = new_table(
        f"{compared} at equal {level} ({level} {format_signed(comparison.at)})",
        *("method", "#value", "#90 % interval", "#reached"),
        caption="\n".join(captions),
    )
    reads: Sequence[tuple[str, MethodValue | MethodDifference]] = [
        *((read.method, read) for read in comparison.methods),
        *((f"{gap.first} - {gap.second}", gap) for gap in comparison.gaps),
    ]
    for name, read in reads:
        table.add_row(
            name,
            format_signed(read.value),
            format_interval(read.low, read.high),
            "-" if read.reached is None else f"{read.reached:.1%}",
        )
    return table
