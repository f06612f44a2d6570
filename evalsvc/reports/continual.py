"""Matrices of tasks learned one after the other -> tables and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from evalsvc.records.matrices import Matrix
from evalsvc.reports.formatting import SCHEMA, format_interval, format_number, format_signed, new_table
from evalsvc.stats.continual import Figure
from evalsvc.stats.paired import t_interval

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
        figures = [format_number(summary.acc.value), format_number(summary.la.value)]
        figures += [_figure(getattr(summary, name)) for name in ("bwt", "forgetting", "fwt", "intransigence")]
        seed = "-" if matrix.seed is None else str(matrix.seed)
        runs.add_row(matrix.name, matrix.method, seed, str(summary.tasks), *figures)
    methods = new_table(
        "Methods, over their runs", "method", "#runs", "figure", "#mean", "#90 % interval", "divided by"
    )
    for row in _by_method(found):
        ends = format_interval(row["low"], row["high"])
        methods.add_row(
            row["method"], str(row["runs"]), row["figure"], format_signed(row["mean"]), ends, row["divisor"]
        )
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
    return "-" if figure is None else format_signed(figure.value)
