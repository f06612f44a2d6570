"""Forest plots of tasks and of rules, and bar charts of items lost and gained."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from evalsvc.charts.style import (
    BETTER,
    GREY,
    WORSE,
    build_error_bars,
    describe_unit,
    escape_label,
    frame_figure,
    pick_colour,
    pick_marker,
)
from evalsvc.gating.verdict import RuleOutcome
from evalsvc.records.comparisons import FullComparison

_ROW = 26


def forest_figure(arms: Sequence[tuple[str, Sequence[FullComparison]]], margin: float | None = None) -> go.Figure:
    """Draw the paired difference of every task with its interval, the worst task at the top.

    Args:
        arms: Name and comparisons of each arm; all with the same unit.
        margin: The largest tolerated loss, in that unit.
    """
    worst: dict[str, float] = {}
    for _, tasks in arms:
        for task in tasks:
            name = f"{task.suite}/{task.task}"
            worst[name] = min(worst.get(name, task.gain), task.gain)
    rows = {name: place for place, name in enumerate(sorted(worst, key=lambda name: worst[name]))}
    figure = go.Figure()
    for number, (arm, tasks) in enumerate(arms):
        shift = (number - (len(arms) - 1) / 2) * min(0.25, 0.7 / max(1, len(arms)))
        figure.add_trace(_tasks(arm, tasks, number, [rows[f"{t.suite}/{t.task}"] + shift for t in tasks]))
    units = {task.unit for _, tasks in arms for task in tasks}
    title = f"adapted - base ({describe_unit(next(iter(units), None))})<br>positive is better"
    if margin:
        title += f"<br>dashed: margin {margin:g}"
    frame_figure(figure, title, "", 145 + _ROW * len(rows) * max(1, (len(arms) + 1) // 2))
    figure.update_yaxes(
        tickvals=list(rows.values()), ticktext=[escape_label(name) for name in rows], range=[len(rows) - 0.4, -0.6]
    )
    figure.add_vline(x=0, line_width=1, line_color=GREY)
    if margin:
        figure.add_vline(x=-margin, line_width=1, line_color=WORSE, line_dash="dash", name="margin")
    return figure


def _tasks(arm: str, tasks: Sequence[FullComparison], number: int, rows: Sequence[float]) -> go.Scatter:
    ends = [(task.gain, *task.gain_interval) for task in tasks]
    return go.Scatter(
        x=[middle for middle, _, _ in ends],
        y=list(rows),
        error_x=build_error_bars(ends, pick_colour(number)),
        mode="markers",
        name=escape_label(arm),
        marker={
            # Filled markers: significant after Holm's correction over all tasks.
            "symbol": [pick_marker(number) + ("" if task.moved else "-open") for task in tasks],
            "size": 9,
            "color": pick_colour(number),
        },
        hovertext=[
            f"<b>{escape_label(arm)}</b><br>{escape_label(task.suite)}/{escape_label(task.task)}, "
            f"{escape_label(task.metric)}, n = {task.n:,}<br>"
            f"{_interval(*end)}<br>" + (f"significantly {task.moved}" if task.moved else "no significant change")
            for task, end in zip(tasks, ends, strict=True)
        ],
        hoverinfo="text",
    )


def _interval(middle: float, low: float | None, high: float | None) -> str:
    return f"{middle:+.3f}" if low is None or high is None else f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]"


def transitions_figure(tasks: Sequence[FullComparison]) -> go.Figure:
    """Draw the shares of items lost (left) and gained (right) per binary task, and the A/A floor of losses."""
    known = [(task, task.lost, task.gained) for task in tasks if task.lost is not None and task.gained is not None]
    known.sort(key=lambda row: row[0].gain)
    names = [escape_label(f"{task.suite}/{task.task}") for task, _, _ in known]
    figure = go.Figure()
    for change, side, shade in (("lost", -1, WORSE), ("gained", 1, BETTER)):
        counts = [lost if side < 0 else gained for _, lost, gained in known]
        figure.add_trace(
            go.Bar(
                x=[side * count / task.n for (task, _, _), count in zip(known, counts, strict=True)],
                y=names,
                orientation="h",
                name=change,
                marker={"color": shade, "pattern": {"shape": "/" if side < 0 else ""}},
                hovertext=[f"{change} {c:,} of {task.n:,}" for (task, _, _), c in zip(known, counts, strict=True)],
                hoverinfo="text",
            )
        )
    floors = [(name, task.floor) for name, (task, _, _) in zip(names, known, strict=True) if task.floor is not None]
    if floors:
        figure.add_trace(
            go.Scatter(
                x=[-floor.lost for _, floor in floors],
                y=[name for name, _ in floors],
                mode="markers",
                name="lost between two runs of the base (A/A floor)",
                marker={"symbol": "line-ns-open", "size": 16, "color": GREY, "line": {"width": 2}},
            )
        )
    frame_figure(figure, "share of items", "", 110 + _ROW * len(known))
    figure.update_layout(barmode="relative", bargap=0.35)
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(autorange="reversed")
    return figure


def rules_figure(rules: Sequence[RuleOutcome]) -> go.Figure:
    """Draw every rule's interval and threshold: a rule passes if its interval is to the right of the threshold."""
    figure = go.Figure()
    names = [escape_label(rule.rule) for rule in rules]
    markers = {"pass": ("circle", BETTER), "fail": ("x", WORSE), "inconclusive": ("diamond-open", GREY)}
    for verdict, (symbol, shade) in markers.items():
        decided = [(name, rule) for name, rule in zip(names, rules, strict=True) if rule.verdict == verdict]
        figure.add_trace(
            go.Scatter(
                x=[rule.estimate for _, rule in decided],
                y=[name for name, _ in decided],
                error_x=build_error_bars([(rule.estimate, rule.low, rule.high) for _, rule in decided], shade),
                mode="markers",
                name=verdict,
                marker={"symbol": symbol, "size": 10, "color": shade},
                hovertext=[
                    f"<b>{name}</b>: {rule.verdict}<br>{_interval(rule.estimate, rule.low, rule.high)} "
                    f"{escape_label(rule.unit)}<br>must exceed {rule.threshold:+g}, n = {rule.n:,}"
                    for name, rule in decided
                ],
                hoverinfo="text",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=[rule.threshold for rule in rules],
            y=names,
            mode="markers",
            name="must exceed",
            marker={"symbol": "line-ns-open", "size": 18, "color": WORSE, "line": {"width": 2}},
            hoverinfo="skip",
        )
    )
    frame_figure(figure, "adapted - base (rule's unit)<br>positive is better", "", 130 + _ROW * len(rules))
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    figure.add_vline(x=0, line_width=1, line_color=GREY)
    return figure
