"""Records in, plotly figures out: what report and dashboard both draw. The only importer of plotly.

Colours are Okabe and Ito's, told apart by every kind of colour vision; each method has a marker shape as well. Text
from checkpoints is escaped: plotly renders a subset of HTML in labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from evalsvc.points import Frontier, Point

# Okabe and Ito (2008), "Color Universal Design", without black and yellow, which fail on one of the two themes.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]
_MARKERS = ["circle", "square", "diamond", "triangle-up", "x", "star"]
_BASE_COLOUR = "#7f7f7f"


def frontier_figure(frontier: Frontier) -> go.Figure:
    """Draw learning (x) against retained general ability (y): right and up is better, the base is at the origin."""
    figure = go.Figure()
    lines: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in frontier.points:
        if point.method != "base":
            lines[point.method, point.trajectory or point.arm].append(point)
    methods = list(dict.fromkeys(method for method, _ in lines))
    for (method, name), points in lines.items():
        points.sort(key=lambda point: point.step or 0)
        figure.add_trace(_line(method, name, points, methods.index(method)))
    _add_front(figure, frontier)
    figure.add_trace(_base(frontier))
    figure.update_layout(
        xaxis_title=f"learning: gain on domain suites ({_unit(frontier.learning_unit)})",
        yaxis_title=f"retention: change on general suites ({_unit(frontier.forgetting_unit)})",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        height=560,
        hovermode="closest",
        template="plotly_white",
    )
    figure.add_hline(y=0, line_width=1, line_color=_BASE_COLOUR, opacity=0.5)
    figure.add_vline(x=0, line_width=1, line_color=_BASE_COLOUR, opacity=0.5)
    return figure


def _line(method: str, name: str, points: list[Point], number: int) -> go.Scatter:
    colour = _COLOURS[number % len(_COLOURS)]
    return go.Scatter(
        x=[point.learning for point in points],
        y=[-point.forgetting for point in points],
        error_x=_bars([(p.learning, p.learning_low, p.learning_high) for p in points], colour),
        error_y=_bars([(-p.forgetting, -p.forgetting_high, -p.forgetting_low) for p in points], colour),
        mode="lines+markers",
        name=escape(name if name == method or name.startswith(method) else f"{method}: {name}"),
        legendgroup=escape(method),
        line={"width": 1, "dash": "dot", "color": colour},
        marker={
            "symbol": _MARKERS[number % len(_MARKERS)],
            "size": [13 if point.on_frontier else 8 for point in points],
            "color": colour,
            "line": {"width": 1, "color": "white"},
        },
        customdata=[point.digest for point in points],
        hovertext=[_hover(point) for point in points],
        hoverinfo="text",
    )


def _bars(ends: Iterable[tuple[float, float, float]], colour: str) -> dict[str, object]:
    rows = list(ends)
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - middle) for middle, _, high in rows],
        "arrayminus": [max(0.0, middle - low) for middle, low, _ in rows],
        "thickness": 1,
        "width": 0,
        "color": colour,
    }


def _add_front(figure: go.Figure, frontier: Frontier) -> None:
    """Draw the staircase below which every point is dominated."""
    front = sorted((p for p in frontier.points if p.on_frontier), key=lambda point: point.learning)
    figure.add_trace(
        go.Scatter(
            x=[point.learning for point in front],
            y=[-point.forgetting for point in front],
            mode="lines",
            line={"shape": "vh", "width": 2, "color": _BASE_COLOUR},
            opacity=0.6,
            name="frontier",
            hoverinfo="skip",
        )
    )


def _base(frontier: Frontier) -> go.Scatter:
    return go.Scatter(
        x=[0],
        y=[0],
        mode="markers+text",
        name="base",
        text=["base"],
        textposition="top right",
        marker={"symbol": "cross", "size": 14, "color": _BASE_COLOUR},
        hovertext=[f"{escape(frontier.base)}: the base, by definition at the origin"],
        hoverinfo="text",
    )


def _hover(point: Point) -> str:
    return (
        f"<b>{escape(point.arm)}</b> ({escape(point.method)})<br>"
        f"learning {point.learning:+.3f} [{point.learning_low:+.3f}, {point.learning_high:+.3f}]<br>"
        f"forgetting {point.forgetting:+.3f} [{point.forgetting_low:+.3f}, {point.forgetting_high:+.3f}]<br>"
        f"on the frontier in {point.p_on_frontier:.0%} of resamples"
    )


def _unit(unit: str) -> str:
    return "mean score" if unit == "score" else unit.replace("_", " ")


def inlined_plotly() -> str:
    """Return plotly's JavaScript, for pages that must work without a network."""
    return str(get_plotlyjs())
