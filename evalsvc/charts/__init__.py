"""Plotly figures of records, for report and dashboard. The only package that imports plotly."""

from evalsvc.charts.forest import forest_figure, rules_figure, transitions_figure
from evalsvc.charts.frontier import MAX_DETAILED, View, frontier_figure
from evalsvc.charts.images import write_images
from evalsvc.charts.parts import change_figure, power_figure
from evalsvc.charts.style import CONFIG, prepare_for_paper, prepare_for_screen, read_plotly_javascript
from evalsvc.charts.trajectories import PlottedCurve, curves_figure, drift_figure

__all__ = [
    "CONFIG",
    "MAX_DETAILED",
    "PlottedCurve",
    "View",
    "change_figure",
    "curves_figure",
    "drift_figure",
    "forest_figure",
    "frontier_figure",
    "power_figure",
    "prepare_for_paper",
    "prepare_for_screen",
    "read_plotly_javascript",
    "rules_figure",
    "transitions_figure",
    "write_images",
]
