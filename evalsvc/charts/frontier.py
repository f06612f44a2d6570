"""Figure of the frontier: learning and retention or a cost, one point per arm, the base at the origin."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from evalsvc.charts.style import (
    GREY,
    build_error_bars,
    describe_unit,
    escape_label,
    frame_figure,
    pick_colour,
    pick_marker,
)
from evalsvc.records.arms import COSTS
from evalsvc.records.frontier import Frontier, Point

_SMALL, _LARGE = 7.0, 26.0
MAX_DETAILED = 60
"""With more arms, only those on the frontier have intervals, and the legend lists methods instead of runs."""

Trace = dict[str, Any]
"""A trace as a dict, which plotly validates only once, when the figure is built: validation is slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Options of a frontier figure.

    Attributes:
        x, y: "learning", "retention", or a field of `Cost`.
        size: A field of `Cost` shown as marker area; None for larger markers on the frontier.
        ellipses: Joint 90 % ellipses instead of an interval per axis.
        methods: Whether to draw each method's own frontier.
        only: Methods to draw; None for all.
    """

    x: str = "learning"
    y: str = "retention"
    size: str | None = None
    ellipses: bool = False
    methods: bool = False
    only: tuple[str, ...] | None = None


def frontier_figure(frontier: Frontier, view: View = View()) -> go.Figure:
    """Draw every arm of a base, by default learning (x) and retention (y); right and up is better."""
    lines: dict[tuple[str, str], list[Point]] = defaultdict(list)
    placed = [p for p in frontier.points if _value(p, view.x) is not None and _value(p, view.y) is not None]
    for point in placed:
        if point.method != "base" and (view.only is None or point.method in view.only):
            lines[point.method, point.trajectory or point.arm].append(point)
    methods = list(dict.fromkeys(method for method, _ in lines))
    sizes = _sizes([p for points in lines.values() for p in points], view.size)
    crowded = len(sizes) > MAX_DETAILED
    for points in lines.values():
        points.sort(key=lambda point: point.step or 0)
    drawn: Mapping[tuple[str, str], Sequence[Point | None]] = _by_method(lines) if crowded else lines
    # Outlines separate overlapping markers; with a thousand markers they take a fifth of the drawing time.
    outline = 0 if crowded else 1
    traces = [_line(*run, methods.index(run[0]), points, view, sizes, outline) for run, points in drawn.items()]
    for number, method in enumerate(methods):
        own = [point for point in placed if point.method == method]
        with_intervals = [point for point in own if point.on_frontier or not crowded]
        if with_intervals and not view.ellipses:
            traces.append(_intervals(method, with_intervals, number, view))
        elif with_intervals and (view.x, view.y) == ("learning", "retention"):
            traces.append(_ellipses(method, with_intervals, number))
        if view.methods:
            front = [point for point in own if point.on_method_frontier]
            traces.append(_front(front, view, pick_colour(number), f"frontier of {method}", "dash"))
    traces.append(_front([p for p in placed if p.on_frontier], view, GREY, "frontier", "solid"))
    traces += [_base(point, view) for point in placed if point.method == "base"]
    figure = frame_figure(go.Figure(traces), _title(view.x, frontier), _title(view.y, frontier), 560)
    # Fixed margins: with automatic margins the browser draws all points twice.
    figure.update_layout(margin={"l": 70, "b": 60}, xaxis_automargin=False, yaxis_automargin=False)
    for axis, add in ((view.y, figure.add_hline), (view.x, figure.add_vline)):
        if axis not in COSTS:
            add(0, line_width=1, line_color=GREY, opacity=0.5)
    return figure


def _by_method(lines: Mapping[tuple[str, str], Sequence[Point]]) -> dict[tuple[str, str], list[Point | None]]:
    """Join each method's training runs into one line with gaps: browsers are slow with hundreds of lines."""
    joined: dict[tuple[str, str], list[Point | None]] = defaultdict(list)
    for (method, _), points in lines.items():
        joined[method, method] += [*points, None]
    return joined


def _value(point: Point, axis: str) -> float | None:
    if axis == "learning":
        return point.learning
    if axis == "retention":
        return -point.forgetting
    cost = getattr(point.cost, axis)
    if cost is None and point.method == "base" and axis != "tokens_per_query":
        return 0.0  # a base was not adapted
    return None if cost is None else float(cost)


def _ends(point: Point, axis: str) -> tuple[float, float | None, float | None]:
    """Return a point's value on an axis with its interval; costs have no interval."""
    if axis == "learning":
        return point.learning, point.learning_low, point.learning_high
    if axis == "retention":
        low, high = (None if end is None else -end for end in (point.forgetting_high, point.forgetting_low))
        return -point.forgetting, low, high
    return _value(point, axis) or 0.0, None, None


def _title(axis: str, frontier: Frontier) -> str:
    if axis == "learning":
        return f"learning: gain on domain suites ({describe_unit(frontier.learning_unit)})"
    if axis == "retention":
        return f"retention: change on general suites ({describe_unit(frontier.forgetting_unit)})"
    return f"{COSTS[axis]} (less is better)"


def _sizes(points: Sequence[Point], size: str | None) -> dict[str, float]:
    """Return marker diameters by arm; the area is proportional to the cost."""
    known = {p.arm: _value(p, size) for p in points} if size else {}
    most = max((value for value in known.values() if value is not None), default=0.0)
    if not most:
        return {point.arm: 13.0 if point.on_frontier else 8.0 for point in points}
    return {arm: max(_SMALL, _LARGE * math.sqrt(max(0.0, value or 0.0) / most)) for arm, value in known.items()}


def _line(
    method: str,
    name: str,
    number: int,
    points: Sequence[Point | None],
    view: View,
    sizes: Mapping[str, float],
    outline: int,
) -> Trace:
    """Draw a training run, or several with gaps between them."""
    shade = pick_colour(number)
    return {
        "type": "scatter",
        "x": [point and _value(point, view.x) for point in points],
        "y": [point and _value(point, view.y) for point in points],
        "mode": "lines+markers",
        "name": escape_label(name if name == method or name.startswith(method) else f"{method}: {name}"),
        "legendgroup": escape_label(method),
        "line": {"width": 1, "dash": "dot", "color": shade},
        "marker": {
            "symbol": pick_marker(number),
            "size": [sizes[point.arm] if point else 0.0 for point in points],
            "color": shade,
            "line": {"width": outline, "color": "white"},
        },
        "customdata": [point and point.digest for point in points],
        "hovertext": [point and _hover(point) for point in points],
        "hoverinfo": "text",
    }


def _intervals(method: str, points: Sequence[Point], number: int, view: View) -> Trace:
    x, y = ([_ends(point, axis) for point in points] for axis in (view.x, view.y))
    return {
        "type": "scatter",
        "x": [middle for middle, _, _ in x],
        "y": [middle for middle, _, _ in y],
        "error_x": build_error_bars(x, pick_colour(number)),
        "error_y": build_error_bars(y, pick_colour(number)),
        "mode": "none",
        "legendgroup": escape_label(method),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _ellipses(method: str, points: Sequence[Point], number: int) -> Trace:
    x: list[float | None] = []
    y: list[float | None] = []
    for point in points:
        if point.ellipse is None:
            continue
        turn = math.radians(point.ellipse.angle)
        for step in range(41):
            t = 2 * math.pi * step / 40
            a, b = point.ellipse.major * math.cos(t), point.ellipse.minor * math.sin(t)
            x.append(point.learning + a * math.cos(turn) - b * math.sin(turn))
            # The ellipse's angle is for forgetting on the y axis; here it is retention.
            y.append(-(point.forgetting + a * math.sin(turn) + b * math.cos(turn)))
        x.append(None)
        y.append(None)
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "lines",
        "line": {"width": 1, "color": pick_colour(number)},
        "opacity": 0.6,
        "legendgroup": escape_label(method),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _front(points: Sequence[Point], view: View, shade: str, name: str, dash: str) -> Trace:
    """Draw the frontier as a staircase; points behind it are dominated."""
    ends = sorted((_value(point, view.x) or 0.0, _value(point, view.y) or 0.0) for point in points)
    return {
        "type": "scatter",
        "x": [x for x, _ in ends],
        "y": [y for _, y in ends],
        "mode": "lines",
        # Between two points the attained value is that of the point that is worse on y, or more expensive on x.
        "line": {"shape": "hv" if view.x in COSTS else "vh", "width": 2, "color": shade, "dash": dash},
        "opacity": 0.6,
        "name": escape_label(name),
        "hoverinfo": "skip",
    }


def _base(point: Point, view: View) -> Trace:
    return {
        "type": "scatter",
        "x": [_value(point, view.x)],
        "y": [_value(point, view.y)],
        "mode": "markers+text",
        "name": "base",
        "text": ["base"],
        "textposition": "top right",
        "marker": {"symbol": "cross", "size": 14, "color": GREY},
        "hovertext": [f"{escape_label(point.arm)}: the base (gain 0 by definition)"],
        "hoverinfo": "text",
    }


def _hover(point: Point) -> str:
    lines = [
        f"<b>{escape_label(point.arm)}</b> ({escape_label(point.method)})",
        f"learning {_with_interval(point.learning, point.learning_low, point.learning_high)}",
        f"forgetting {_with_interval(point.forgetting, point.forgetting_low, point.forgetting_high)}",
    ]
    if point.p_on_frontier is not None:
        lines.append(f"on the frontier in {point.p_on_frontier:.0%} of resamples")
    if point.exchange is not None:
        lines.append(
            f"forgetting per unit learned {point.exchange:.2f} [{point.exchange_low:.2f}, {point.exchange_high:.2f}]"
        )
    known = [(words, getattr(point.cost, name)) for name, words in COSTS.items()]
    lines += [f"{words} {value:,.4g}" for words, value in known if value is not None]
    if point.dominated_by:
        lines.append(f"dominated by {escape_label(point.dominated_by)} (95 %)")
    return "<br>".join(lines)


def _with_interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:+.3f}" if low is None or high is None else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
