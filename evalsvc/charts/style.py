"""What all figures have in common: colours, markers, error bars, frames.

Colours are Okabe and Ito's, which people with any kind of colour vision can tell apart; each series has a marker shape
as well. Text from checkpoints is escaped: plotly renders a subset of HTML in labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# Okabe and Ito (2008), "Color Universal Design", without black and yellow, which fail on one of the two themes.
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


def safe(text: str) -> str:
    """Return text of any origin so that plotly shows it literally, shortened to fit beside a figure."""
    return escape(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def colour(number: int) -> str:
    """Return the colour of a series."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """Return the marker of a series; colour and marker together repeat after thirty."""
    return MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def bars(ends: Iterable[tuple[float, float | None, float | None]], shade: str) -> dict[str, object]:
    """Return error bars from (middle, low, high); none where an end is not known."""
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
    """Give a figure its axes' titles, its height and a legend above it."""
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
    """Give a figure the colours of a white page."""
    return figure.update_layout(template="plotly_white")


def prepare_for_screen(figure: go.Figure, selects: bool = False) -> go.Figure:
    """Give a figure colours that can be read on a dark page and on a light one, so that it is drawn once for both.

    Streamlit's theme, and what it adds to a figure that `selects`, would have the browser draw all of it twice.
    """
    figure.layout.template = None
    figure.update_layout(
        font={"family": _FAMILY, "color": GREY},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"bgcolor": "white", "bordercolor": GREY, "font": {"family": _FAMILY, "color": "black"}},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY},
        datarevision=1,  # equal numbers in new arrays are no reason to redraw
    )
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(gridcolor=FAINT, zerolinecolor=FAINT)
    return figure.update_layout(clickmode="event+select", dragmode="pan") if selects else figure


def describe_unit(unit: str | None) -> str:
    """Return a unit as axes name it."""
    return "mean score" if unit in {"score", None} else str(unit).replace("_", " ")


def read_plotly_javascript() -> str:
    """Return plotly's JavaScript, for pages that must work without a network."""
    return str(get_plotlyjs())
