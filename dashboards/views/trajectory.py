"""Training runs step by step: any measure with its interval, the margin, and forgetting against drift."""

from __future__ import annotations

import parts
import stored
import streamlit as st

from evalsvc import charts
from evalsvc.analysis.trajectory import ChangeEstimate, Trajectory
from evalsvc.errors import EvidenceError
from evalsvc.reports.formatting import LEVEL_NOTE
from evalsvc.reports.report import describe_missing
from evalsvc.reports.trajectories import describe_conclusions

st.title("Trajectory")
TOTALS = ("forgetting", "learning")
FIRST = 5  # the newest training runs, shown by default


def curve(run: Trajectory, measure: str) -> charts.PlottedCurve | None:
    """Return one measure of a run; None if it was not scored."""
    if measure in TOTALS:
        known = [(step.step, getattr(step, measure)) for step in run.steps]
        rows: list[tuple[int, ChangeEstimate]] = [(step, change) for step, change in known if change is not None]
        marked = run.first_above if measure == "forgetting" else None
    else:
        task_curve = next((task for task in run.curves if f"{task.suite}/{task.task}" == measure), None)
        rows = (
            [] if task_curve is None else [(s.step, gain) for s, gain in zip(run.steps, task_curve.gains, strict=True)]
        )
        marked = next((step for step, gain in rows if gain.value < -run.margin), None)
        if task_curve is not None and task_curve.role != "general":
            marked = None
    if not rows:
        return None
    return charts.PlottedCurve(run.name, tuple(step for step, _ in rows), tuple(change for _, change in rows), marked)


with parts.stop_on_error():
    state = stored.finished_state()
    base = parts.base_of(state)
    family = stored.families(state)[base]
    names = list(dict.fromkeys(arm.checkpoint.trajectory for arm in family.arms if arm.checkpoint.trajectory))
    if not names:
        st.info("The store has no training run with several steps. Submit a folder that contains checkpoint-* folders.")
        st.stop()
    chosen = st.multiselect("Training runs", names, default=names[-FIRST:], key="runs", bind="query-params")
    left, right = st.columns(2)
    with left:
        margin = parts.margin()
    runs = []
    for name in chosen:
        try:
            runs.append(stored.trajectory(state, base, name, margin))
        except EvidenceError as error:
            st.warning(parts.plain(error))
if not runs:
    st.info("Choose at least one training run.")
    st.stop()

tasks = dict.fromkeys(f"{task.suite}/{task.task}" for run in runs for task in run.curves)
measures = [*TOTALS, *tasks]
measure = str(right.selectbox("Measure", measures, key="measure", bind="query-params"))
curves = [plotted for run in runs if (plotted := curve(run, measure)) is not None]
title: str
limit: float | None
if measure == "forgetting":
    title, limit = f"forgetting ({runs[0].forgetting_unit or '-'}; positive is worse)", margin
elif measure == "learning":
    title, limit = f"learning ({runs[0].learning_unit or '-'}; positive is better)", None
else:
    role = next(task.role for run in runs for task in run.curves if f"{task.suite}/{task.task}" == measure)
    title, limit = "gain over the base (positive is better)", -margin if role == "general" else None
parts.figure(charts.curves_figure(curves, title, limit), "curves")
for run in runs:
    st.text(f"{run.name}: {'; '.join(describe_conclusions(run))}.")
    if run.missing:
        st.warning(f"Steps not shown: {parts.plain(describe_missing(run.missing))}.")
paired = all(task.paired for run in runs for task in run.curves)
st.caption(
    f"Differences from the base, which is step 0. {LEVEL_NOTE} The side of the margin, and with it the step to keep, "
    "is corrected for the number of steps; the intervals are not."
    + ("" if paired else " Imported aggregate scores are not paired by item.")
)

rows = [
    {
        "run": run.name,
        "step": step.step,
        "arm": step.arm,
        "learning": step.learning and step.learning.value,
        "learning low": step.learning and step.learning.low,
        "learning high": step.learning and step.learning.high,
        "forgetting": step.forgetting and step.forgetting.value,
        "forgetting low": step.forgetting and step.forgetting.low,
        "forgetting high": step.forgetting and step.forgetting.high,
        "side of margin": step.side or "",
        "best within margin": step.step == run.best_step,
    }
    for run in runs
    for step in run.steps
]
numbers = [f"{axis}{end}" for axis in ("learning", "forgetting") for end in ("", " low", " high")]
parts.table(rows, dict.fromkeys(numbers, parts.SIGNED))
st.download_button("Download as CSV", parts.csv_of(rows), "evalsvc-trajectory.csv", "text/csv", on_click="ignore")

st.subheader("Forgetting against drift")
with parts.stop_on_error():
    points, card, fitted = stored.drift(state, base)
if any(point.drift is not None for point in points):
    parts.figure(charts.drift_figure(points, fitted), "drift")
    st.text(f"{card.text}: {card.verdict}. {card.reason}")
elif not any(point.no_drift for point in points):
    st.caption("No arm has drift scores: submit one on a suite with role drift whose tasks are plain texts.")
for point in points:
    if point.no_drift:
        st.warning(f"No drift of {parts.plain(point.arm)}: {parts.plain(point.no_drift)}.")
