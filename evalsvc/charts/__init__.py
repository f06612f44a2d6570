"""Records in, plotly figures out, for report and dashboard. The only package that imports plotly."""

from evalsvc.charts.forest import forest_figure, rules_figure, transitions_figure
from evalsvc.charts.frontier import CROWD, View, frontier_figure
from evalsvc.charts.images import write_images
from evalsvc.charts.parts import change_figure, power_figure
from evalsvc.charts.style import CONFIG, inlined_plotly, prepare_for_paper, prepare_for_screen
from evalsvc.charts.trajectories import PlottedCurve, curves_figure, drift_figure

__all__ = [
    "CONFIG",
    "CROWD",
    "PlottedCurve",
    "View",
    "change_figure",
    "curves_figure",
    "drift_figure",
    "forest_figure",
    "frontier_figure",
    "inlined_plotly",
    "power_figure",
    "prepare_for_paper",
    "prepare_for_screen",
    "rules_figure",
    "transitions_figure",
    "write_images",
]
