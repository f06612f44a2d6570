"""One self-contained HTML file: opens from disk without a network, can be attached to a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from jinja2 import Environment, PackageLoader, select_autoescape

from evalsvc import __version__, charts
from evalsvc.points import Frontier
from evalsvc.report import LEVEL_NOTE, by_learning, in_order_of_harm, number, signed
from evalsvc.service import Compared


def html(frontier: Frontier, compared: Sequence[Compared], made: datetime) -> str:
    """Return the page: the frontier, its points, and every comparison. Names from checkpoints are escaped."""
    environment = Environment(loader=PackageLoader("evalsvc", "templates"), autoescape=select_autoescape())
    environment.filters |= {"number": number, "signed": signed}
    figure = charts.frontier_figure(frontier)
    return environment.get_template("report.html").render(
        frontier=frontier,
        points=by_learning(frontier),
        compared=[(c, in_order_of_harm(c.tasks)) for c in compared],
        plotly=charts.inlined_plotly(),
        figure=figure.to_json().replace("<", "\\u003c"),  # inside a script element, "<" could end it
        note=LEVEL_NOTE,
        made=f"{made:%Y-%m-%d %H:%M %Z}",
        version=__version__,
    )
