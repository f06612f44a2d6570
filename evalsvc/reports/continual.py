"""Matrices of tasks learned one after the other: ACC, BWT, FWT, forgetting, intransigence."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from rich.table import Table
from rich.text import Text

from evalsvc.records.matrices import Matrix
from evalsvc.reports.formatting import format_interval, format_number, format_signed, new_table
from evalsvc.reports.report import Report
from evalsvc.stats.continual import Figure
from evalsvc.stats.paired import t_interval


@dataclass(frozen=True, slots=True, repr=False)
class ContinualReport(Report):
    """Metrics of matrices, as `continual` shows them; every figure with its divisor."""

    ROWS: ClassVar[str] = "runs"
    matrices: tuple[Matrix, ...]

    def content(self) -> dict[str, Any]:
        """Return the figures of every run, and the mean of every method over its runs."""
        runs = [
            {
                "name": matrix.name,
                "method": matrix.method,
                "seed": matrix.seed,
                "tasks": matrix.tasks,
                **asdict(matrix.summary),
            }
            for matrix in self.matrices
        ]
        return {"runs": runs, "methods": self._methods()}

    def tables(self) -> list[Table | Text]:
        """Return the figures of every run, and the mean of every method over its runs."""
        sizes = sorted({matrix.summary.tasks for matrix in self.matrices})
        runs = new_table(
            "Tasks learned one after the other",
            *("run", "method", "#seed", "#tasks", "#ACC", "#LA", "#BWT", "#forgetting", "#FWT", "#intransigence"),
            caption=f"BWT, forgetting and FWT are divided by T - 1, ACC, LA and intransigence by T (T = "
            f"{', '.join(map(str, sizes))});\nBWT is negative and forgetting positive where scores dropped; "
            "forgetting is measured from the best stage, so it is at least -BWT",
        )
        for matrix in self.matrices:
            summary = matrix.summary
            runs.add_row(
                matrix.name,
                matrix.method,
                "-" if matrix.seed is None else str(matrix.seed),
                str(summary.tasks),
                format_number(summary.acc.value),
                format_number(summary.la.value),
                *(_format_figure(figure) for figure in (summary.bwt, summary.forgetting)),
                *(_format_figure(figure) for figure in (summary.fwt, summary.intransigence)),
            )
        methods = new_table(
            "Methods, over their runs", "method", "#runs", "figure", "#mean", "#90 % interval", "divided by"
        )
        for row in self._methods():
            methods.add_row(
                row["method"],
                str(row["runs"]),
                row["figure"],
                format_signed(row["mean"]),
                format_interval(row["low"], row["high"]),
                row["divisor"],
            )
        return [runs, methods]

    def _methods(self) -> list[dict[str, Any]]:
        """Return the mean over runs of each method's figures, with Student's t over runs."""
        rows = []
        for method in dict.fromkeys(matrix.method for matrix in self.matrices):
            summaries = [matrix.summary for matrix in self.matrices if matrix.method == method]
            for name in ("acc", "bwt", "forgetting"):
                figures = [figure for summary in summaries if (figure := getattr(summary, name)) is not None]
                if not figures:
                    continue
                values = np.array([figure.value for figure in figures])
                low = high = None
                if len(values) > 1:
                    stderr = float(values.std(ddof=1)) / math.sqrt(len(values))
                    low, high = t_interval(float(values.mean()), stderr, len(values) - 1)
                rows.append(
                    {
                        "method": method,
                        "figure": name,
                        "runs": len(values),
                        "mean": float(values.mean()),
                        "low": low,
                        "high": high,
                        "divisor": ", ".join(sorted({figure.divisor for figure in figures})),
                    }
                )
        return rows


def _format_figure(figure: Figure | None) -> str:
    return format_signed(None if figure is None else figure.value)
