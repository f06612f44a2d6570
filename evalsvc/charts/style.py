"""Style of all figures: colours, markers, error bars, layout.

Colours are Okabe and Ito's, which are distinguishable with any kind of colour vision; each series also has its own
marker. Text from checkpoints is escaped, because plotly renders a subset of HTML in labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# Okabe and Ito (2008), "Color Universal Design", without black and yellow, which lack contrast in one of the themes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "star")
GREY, FAINT = "#7f7f7f", "rgba(127,127,127,0.2)"
WORSE, BETTER = COLOURS[1], COLOURS[0]
LONGEST = 60
_FAMILY = "Source Sans, sans-serif"  # the dashboard's
CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "toImageButtonOptions": {"format": "svg", "filename": "evalsvc"},
    "modeBarButtonsToAdd": ["toggleSpikelines"],
}
"""plotly's options for showing a figure; the camera button saves it as SVG."""


def escape_label(text: str) -> str:
    """Return text escaped for plotly and truncated to `LONGEST` characters."""
    return escape(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def pick_colour(number: int) -> str:
    """Return the colour of a series."""
    return COLOURS[number % len(COLOURS)]


def pick_marker(number: int) -> str:
    """Return the marker of a series; combinations of colour and marker repeat after thirty series."""
    return MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def build_error_bars(ends: Iterable[tuple[float, float | None, float | None]], shade: str) -> dict[str, object]:
    """Return error bars from (middle, low, high), with length 0 where an end is None."""
    rows = list(ends)
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if high is None else max(0.0, high - middle) for middle, _, high in rows],
        "arrayminus": [0.0 if low is None else max(0.0, middle - low) for middle, low, _ in rows],
        "thickness": 1,
        "width": 0,
        "color": shade,
    }


def frame_figure(figure: go.Figure, x: str, y: str, height: int) -> go.Figure:
    """Set a figure's axis titles, height and legend."""
    figure.update_layout(
        xaxis_title=x,
        yaxis_title=y,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        height=height,
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def prepare_for_paper(figure: go.Figure) -> go.Figure:
    """Set a figure's colours for a white page."""
    return figure.update_layout(template="plotly_white")


def prepare_for_screen(figure: go.Figure, selects: bool = False) -> go.Figure:
    """Set a figure's colours for dark and light pages, so that it is drawn only once.

    Streamlit's theme, and its additions to a figure that `selects`, would make the browser draw it twice.
    """
    figure.layout.template = None
    figure.update_layout(
        font={"family": _FAMILY, "color": GREY},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"bgcolor": "white", "bordercolor": GREY, "font": {"family": _FAMILY, "color": "black"}},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY},
        datarevision=1,  # do not redraw for new arrays with equal numbers
    )
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(gridcolor=FAINT, zerolinecolor=FAINT)
    return figure.update_layout(clickmode="event+select", dragmode="pan") if selects else figure


def describe_unit(unit: str | None) -> str:
    """Return a unit's name on axes."""
    return "mean score" if unit in {"score", None} else str(unit).replace("_", " ")


def read_plotly_javascript() -> str:
    """Return plotly's JavaScript, for pages that work without a network."""
    return str(get_plotlyjs())
