"""Training runs by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.analysis.trajectory import ChangeEstimate, Trajectory
from evalsvc.records.direction import arrow
from evalsvc.reports.formatting import format_interval, format_number, format_signed, label_tasks, new_table
from evalsvc.reports.report import Report, describe_missing

MOST_COLUMNS = 8
"""Maximum number of steps in a table of curves; of more steps, evenly spaced ones are shown."""


@dataclass(frozen=True, slots=True, repr=False)
class TrajectoryReport(Report):
    """Training runs, as `trajectory` shows them."""

    ROWS: ClassVar[str] = "steps"
    trajectories: tuple[Trajectory, ...]

    def content(self) -> dict[str, Any]:
        """Return every run with its steps and its tasks' curves."""
        return {"trajectories": self.trajectories}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per step of every run."""
        return [
            {"name": run["name"], "method": run["method"], "base": run["base"], **step}
            for run in self.to_dict()["trajectories"]
            for step in run["steps"]
        ]

    def tables(self) -> list[Table | Text]:
        """Return two tables per run: its steps compared with the margin, and every task's curve."""
        return [table for run in self.trajectories for table in (_steps_table(run), _curves_table(run))]


def _steps_table(run: Trajectory) -> Table:
    captions = [f"units: learning {run.learning_unit or '-'}, forgetting {run.forgetting_unit or '-'}"]
    if len(run.steps) > 1:
        captions.append(f"margin: side of it at {_describe_level(run)}; the intervals are not corrected")
    captions += describe_conclusions(run)
    missing = [f"steps not shown: {describe_missing(run.missing)}"] if run.missing else []
    if run.unshared:
        missing.append(f"tasks not shown, because most steps do not share them: {', '.join(run.unshared)}")
    table = new_table(
        f"{run.name} ({run.method}) against {run.base}",
        *("#step", "#learning", "#90 % interval", "#forgetting", "#90 % interval", f"margin {run.margin:g}"),
        caption="\n".join([*captions, *missing]),
    )
    for step in run.steps:
        table.add_row(
            str(step.step),
            *_change_cells(step.learning),
            *_change_cells(step.forgetting),
            step.side or "-",
            style="bold" if step.step == run.best_step else None,
        )
    return table


def _curves_table(run: Trajectory) -> Table:
    last = len(run.steps) - 1
    shown = sorted({round(i * last / (MOST_COLUMNS - 1)) for i in range(MOST_COLUMNS)}) if run.steps else []
    caption = "below best: the best of base and steps, minus the last step; slightly biased upward, as it is a maximum"
    if not all(curve.paired for curve in run.curves):
        caption += "\npublished results, not paired by item"
    table = new_table(
        "Curves",
        *("role", "task", "metric", "#base", *(f"#{run.steps[i].step}" for i in shown), "#below best", "trend"),
        caption=caption,
    )
    labels = label_tasks((curve.suite, curve.task) for curve in run.curves)
    for curve in run.curves:
        table.add_row(
            curve.role,
            labels[curve.suite, curve.task],
            f"{curve.metric} {arrow(curve.higher_is_better)}",
            format_number(curve.base),
            *(format_number(curve.levels[i]) for i in shown),
            format_signed(curve.below_best),
            curve.trend,
        )
    return table


def describe_conclusions(run: Trajectory) -> tuple[str, str]:
    """Return in words the first step above the margin, and the step to keep."""
    level = _describe_level(run)
    if run.first_proven is not None:
        broken = f"step {run.first_proven:,} is the first whose forgetting is significantly above the margin ({level})"
    elif run.first_above is not None:
        broken = f"step {run.first_above:,} is the first estimated above the margin; none is significantly above it"
    else:
        broken = "no step is estimated above the margin"
    if run.learning_unit is None:
        kept = "no step to recommend: there is no domain suite"
    elif run.best_step is None:
        kept = f"no step is significantly below the margin ({level})"
    else:
        kept = f"step {run.best_step:,} is significantly below it ({level})"
        if sum(step.side == "below" for step in run.steps) > 1:
            kept = (
                f"step {run.best_step:,} has the highest learning among steps significantly below it ({level}); its "
                "learning is a maximum, which is biased upward"
            )
    return broken, kept


def _describe_level(run: Trajectory) -> str:
    count = len(run.steps)
    return "one-sided 5 %" + (f", corrected for {count} steps" if count > 1 else "")


def _change_cells(change: ChangeEstimate | None) -> tuple[str, str]:
    return ("-", "-") if change is None else (format_signed(change.value), format_interval(change.low, change.high))
