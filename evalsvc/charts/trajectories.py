"""Figures of a metric over training steps, and of forgetting by token drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from evalsvc.analysis.claims import TrainingRun
from evalsvc.analysis.trajectory import ChangeEstimate
from evalsvc.charts.style import GREY, WORSE, build_error_bars, escape_label, frame_figure, pick_colour, pick_marker
from evalsvc.stats.regression import Line


@dataclass(frozen=True, slots=True)
class PlottedCurve:
    """One measure of a training run.

    Attributes:
        marked_step: The first step that is estimated above the margin, if any.
    """

    name: str
    steps: tuple[int, ...]
    changes: tuple[ChangeEstimate, ...]
    marked_step: int | None = None


def curves_figure(curves: Sequence[PlottedCurve], title: str, limit: float | None = None) -> go.Figure:
    """Draw training runs by step, from the base at step 0; marked steps are circled."""
    figure = go.Figure()
    for number, curve in enumerate(curves):
        rows = [(0.0, 0.0, 0.0), *((change.value, change.low, change.high) for change in curve.changes)]
        steps = [0, *curve.steps]
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=[middle for middle, _, _ in rows],
                error_y=build_error_bars(rows, pick_colour(number)),
                mode="lines+markers",
                name=escape_label(curve.name),
                line={"color": pick_colour(number), "width": 2},
                marker={"symbol": pick_marker(number), "size": 8},
            )
        )
        if curve.marked_step is not None and curve.marked_step in steps:
            figure.add_trace(
                go.Scatter(
                    x=[curve.marked_step],
                    y=[rows[steps.index(curve.marked_step)][0]],
                    mode="markers",
                    name=f"{escape_label(curve.name)}: first step estimated above the margin",
                    showlegend=False,
                    marker={"symbol": "circle-open", "size": 20, "color": WORSE, "line": {"width": 3}},
                    hovertext=[
                        f"{escape_label(curve.name)}: first estimated above the margin at {curve.marked_step:,}"
                    ],
                    hoverinfo="text",
                )
            )
    frame_figure(figure, "training step", title, 420)
    figure.add_hline(y=0, line_width=1, line_color=GREY)
    if limit is not None:
        figure.add_hline(y=limit, line_width=1, line_color=WORSE, line_dash="dash", annotation_text="margin")
    return figure


def drift_figure(runs: Sequence[TrainingRun], fitted: Line | None) -> go.Figure:
    """Draw forgetting by token drift, one point per checkpoint, with the least-squares line."""
    figure = go.Figure()
    known = [(run, run.drift, run.forgetting) for run in runs if run.drift is not None and run.forgetting is not None]
    for number, name in enumerate(dict.fromkeys(run.name for run, _, _ in known)):
        rows = [row for row in known if row[0].name == name]
        figure.add_trace(
            go.Scatter(
                x=[drift for _, drift, _ in rows],
                y=[forgetting for _, _, forgetting in rows],
                mode="markers",
                name=escape_label(name),
                marker={"symbol": pick_marker(number), "size": 9, "color": pick_colour(number)},
                hovertext=[
                    f"<b>{escape_label(run.arm)}</b><br>KL {x:.4f} nats<br>forgetting {y:+.3f}" for run, x, y in rows
                ],
                hoverinfo="text",
            )
        )
    if fitted is not None:
        ends = [min(x for _, x, _ in known), max(x for _, x, _ in known)]
        figure.add_trace(
            go.Scatter(
                x=ends,
                y=[fitted.intercept + fitted.slope * x for x in ends],
                mode="lines",
                name=f"least squares, R2 {fitted.r2:.2f}",
                line={"color": GREY, "dash": "dash"},
                hoverinfo="skip",
            )
        )
    title = "forgetting: mean loss on general suites (positive is worse)"
    return frame_figure(figure, "drift from the base: KL(base || arm), nats per token", title, 420)
