"""Figures of a checkpoint's weight changes by layer, and of power by number of items."""

from __future__ import annotations

import re
from collections.abc import Sequence

import plotly.graph_objects as go

from evalsvc.charts.style import BETTER, GREY, WORSE, escape_label, frame_figure
from evalsvc.records.weight_changes import WeightChange

_LAYER = re.compile(r"^(?:.*\.)?(?:layers|h|blocks|block|layer)\.(\d+)\.(.+)$")
OUTSIDE = "outside"


def change_figure(change: WeightChange) -> go.Figure:
    """Draw the relative norm of the change of every tensor, with layers on x and their parts on y.

    Tensors outside of layers are in the first column.
    """
    cells: dict[tuple[str, str], float] = {}
    for tensor in change.tensors:
        match = _LAYER.match(tensor.name)
        layer, part = match.groups() if match else (OUTSIDE, tensor.name)
        if tensor.base_norm:
            cells[part.removesuffix(".weight"), layer] = tensor.norm / tensor.base_norm
    layers = sorted({layer for _, layer in cells}, key=lambda name: -1 if name == OUTSIDE else int(name))
    names = list(dict.fromkeys(part for part, _ in cells))
    figure = go.Figure(
        go.Heatmap(
            z=[[cells.get((part, layer)) for layer in layers] for part in names],
            x=layers,
            y=[escape_label(part) for part in names],
            colorscale="Cividis",
            colorbar={"title": "relative<br>norm"},
            hovertemplate="layer %{x}, %{y}: %{z:.3g}<extra></extra>",
        )
    )
    frame_figure(figure, "layer", "", 140 + 24 * len(names))
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    return figure


def power_figure(ns: Sequence[int], powers: Sequence[float], n: int) -> go.Figure:
    """Draw the probability that an unchanged checkpoint passes by number of items; `n` is marked."""
    figure = go.Figure(
        go.Scatter(x=list(ns), y=list(powers), mode="lines", line={"color": BETTER, "width": 2}, name="power")
    )
    figure.add_hline(y=0.8, line_width=1, line_color=GREY, line_dash="dash", annotation_text="80 %")
    figure.add_vline(x=n, line_width=1, line_color=WORSE, annotation_text=f"n = {n:,}")
    frame_figure(figure, "items", "power: P(pass if unchanged)", 320)
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_layout(showlegend=False)
    return figure
