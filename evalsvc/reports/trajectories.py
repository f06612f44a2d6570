"""Training runs -> tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from evalsvc.analysis.trajectory import ChangeEstimate, Trajectory
from evalsvc.records.direction import arrow
from evalsvc.reports.formatting import SCHEMA, format_interval, format_number, format_signed, new_table


def trajectories_json(found: Sequence[Trajectory]) -> dict[str, Any]:
    """Return trajectories as `trajectory --json` prints them."""
    return {"schema": SCHEMA, "trajectories": [asdict(one) for one in found]}


def trajectory_tables(one: Trajectory) -> list[Table]:
    """Show a run: its steps against the margin, then every task's curve."""
    steps = new_table(
        f"{one.name} ({one.method}) against {one.base}",
        *("#step", "#learning", "#90 % interval", "#forgetting", "#90 % interval", f"margin {one.margin:g}"),
        caption="\n".join(_sentences(one)),
    )
    for step in one.steps:
        steps.add_row(
            str(step.step),
            *_cells(step.learning),
            *_cells(step.forgetting),
            _against(step.forgetting, one.margin),
            style="bold" if step.step == one.best_step else None,
        )
    shown = [step.step for step in one.steps]
    shown = shown if len(shown) <= 8 else [shown[round(i * (len(shown) - 1) / 7)] for i in range(8)]
    at = [i for i, step in enumerate(one.steps) if step.step in shown]
    curves = new_table(
        "Curves",
        *("role", "task", "metric", "#base", *(f"#{step}" for step in shown), "#below best", "trend"),
        caption="below best: the best of base and steps less the last; a maximum of noisy scores is a little too high"
        + ("" if all(curve.paired for curve in one.curves) else "\npublished levels, not paired by item"),
    )
    for curve in one.curves:
        levels = [format_number(curve.levels[i]) for i in at]
        metric = f"{curve.metric} {arrow(curve.higher_is_better)}"
        curves.add_row(
            curve.role,
            curve.task,
            metric,
            format_number(curve.base),
            *levels,
            format_signed(curve.below_best),
            curve.trend,
        )
    return [steps, curves]


def _sentences(one: Trajectory) -> list[str]:
    units = f"learning in {one.learning_unit or '-'}, forgetting in {one.forgetting_unit or '-'}"
    missing = [f"not shown, scores are missing: {', '.join(one.incomplete)}"] if one.incomplete else []
    return [units, *conclusions(one), *missing]


def conclusions(one: Trajectory) -> tuple[str, str]:
    """Return in words where a run breaks the margin, and which step to keep."""
    if one.first_proven is not None:
        broken = f"step {one.first_proven:,} is the first whose forgetting is above the margin beyond doubt"
    elif one.first_above is not None:
        broken = f"step {one.first_above:,} is the first estimated above the margin; none is so beyond doubt"
    else:
        broken = "no step is estimated above the margin"
    if one.learning_unit is None:
        kept = "no step to recommend: there is no domain suite"
    elif one.best_step is None:
        kept = "no step is below the margin beyond doubt"
    else:
        kept = f"step {one.best_step:,} learned most of those below it beyond doubt; chosen on these items"
    return broken, kept


def _cells(change: ChangeEstimate | None) -> tuple[str, str]:
    return ("-", "-") if change is None else (format_signed(change.value), format_interval(change.low, change.high))


def _against(forgetting: ChangeEstimate | None, margin: float) -> str:
    if forgetting is None or forgetting.low is None or forgetting.high is None:
        return "-"
    if forgetting.low > margin:
        return "above"
    return "below" if forgetting.high <= margin else "undecided"
