"""Runs over time, as tables and JSON: trajectories, and matrices of tasks learned one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from evalsvc.matrices import Matrix
from evalsvc.report import SCHEMA, interval, new_table, number, signed
from evalsvc.stats.continual import Figure
from evalsvc.stats.paired import t_interval
from evalsvc.trajectory import Change, Trajectory


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
        levels = [number(curve.levels[i]) for i in at]
        metric = f"{curve.metric} {'↑' if curve.higher_is_better else '↓'}"
        curves.add_row(
            curve.role, curve.task, metric, number(curve.base), *levels, signed(curve.below_best), curve.trend
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


def _cells(change: Change | None) -> tuple[str, str]:
    return ("-", "-") if change is None else (signed(change.value), interval(change.low, change.high))


def _against(forgetting: Change | None, margin: float) -> str:
    if forgetting is None or forgetting.low is None or forgetting.high is None:
        return "-"
    if forgetting.low > margin:
        return "above"
    return "below" if forgetting.high <= margin else "undecided"


# --------------------------------------------------------------------------------------------------------- matrices


def matrices_json(found: Sequence[Matrix]) -> dict[str, Any]:
    """Return matrices as `continual --json` prints them; every figure with its divisor."""
    runs = [
        {
            "name": matrix.name,
            "method": matrix.method,
            "seed": matrix.seed,
            "tasks": list(matrix.tasks),
            **asdict(matrix.summary),
        }
        for matrix in found
    ]
    return {"schema": SCHEMA, "runs": runs, "methods": _by_method(found)}


def matrices_tables(found: Sequence[Matrix]) -> list[Table]:
    """Show the continual-learning family of every run, and the mean of every method over its runs."""
    sizes = sorted({matrix.summary.tasks for matrix in found})
    runs = new_table(
        "Tasks learned one after the other",
        *("run", "method", "#seed", "#tasks", "#ACC", "#LA", "#BWT", "#forgetting", "#FWT", "#intransigence"),
        caption=f"BWT, forgetting and FWT are divided by T - 1, ACC, LA and intransigence by T (T = "
        f"{', '.join(map(str, sizes))});\nBWT is negative, forgetting positive where something is lost; "
        "forgetting is from the best stage, so at least -BWT",
    )
    for matrix in found:
        summary = matrix.summary
        figures = [number(summary.acc.value), number(summary.la.value)]
        figures += [_figure(getattr(summary, name)) for name in ("bwt", "forgetting", "fwt", "intransigence")]
        seed = "-" if matrix.seed is None else str(matrix.seed)
        runs.add_row(matrix.name, matrix.method, seed, str(summary.tasks), *figures)
    methods = new_table(
        "Methods, over their runs", "method", "#runs", "figure", "#mean", "#90 % interval", "divided by"
    )
    for row in _by_method(found):
        ends = interval(row["low"], row["high"])
        methods.add_row(row["method"], str(row["runs"]), row["figure"], signed(row["mean"]), ends, row["divisor"])
    return [runs, methods]


def _by_method(found: Sequence[Matrix]) -> list[dict[str, Any]]:
    """Return the mean over runs of each method's figures, with Student's t over runs."""
    rows = []
    for method in dict.fromkeys(matrix.method for matrix in found):
        summaries = [matrix.summary for matrix in found if matrix.method == method]
        for name in ("acc", "bwt", "forgetting"):
            figures = [getattr(summary, name) for summary in summaries]
            values = np.array([figure.value for figure in figures if figure is not None])
            if not len(values):
                continue
            low = high = None
            if len(values) > 1:
                stderr = float(values.std(ddof=1)) / math.sqrt(len(values))
                low, high = t_interval(float(values.mean()), stderr, len(values) - 1)
            divisors = {figure.divisor for figure in figures if figure is not None}
            rows.append(
                {
                    "method": method,
                    "figure": name,
                    "runs": len(values),
                    "mean": float(values.mean()),
                    "low": low,
                    "high": high,
                    "divisor": ", ".join(sorted(divisors)),
                }
            )
    return rows


def _figure(figure: Figure | None) -> str:
    return "-" if figure is None else signed(figure.value)
