"""Arms against their base, task by task: differences with intervals, items lost and gained."""

from __future__ import annotations

import parts
import stored
import streamlit as st

from evalsvc import charts
from evalsvc.analysis.compare import compute_totals
from evalsvc.analysis.stored import ArmComparison
from evalsvc.errors import EvidenceError
from evalsvc.records.direction import arrow
from evalsvc.reports.comparison import list_notes, sort_by_loss
from evalsvc.reports.formatting import LEVEL_NOTE, label_tasks

st.title("Compare")

with parts.stop_on_error():
    state = stored.finished_state()
    base = parts.base_of(state)
    family = stored.families(state)[base]
    names = list(stored.unique_names([family.base, *family.arms]))
    left, right = st.columns([3, 1])
    with left:
        chosen = st.multiselect("Arms", names[1:], default=names[-1:], key="arms", bind="query-params")
    with right:
        reference = str(st.selectbox("Against", names, key="against", bind="query-params"))
    margin = parts.margin()
    comparisons: dict[str, ArmComparison] = {}
    for name in chosen:
        if name == reference:
            continue
        try:
            comparisons[name] = stored.compare_arms(state, base, name, None if reference == names[0] else reference)
        except EvidenceError as error:
            st.warning(f"Not compared: {parts.plain(error)}")
if not comparisons:
    st.info("Choose at least one arm to compare.")
    st.stop()

units = dict.fromkeys(task.unit for comparison in comparisons.values() for task in comparison.tasks)
st.subheader("Differences, worst task first")
for unit in units:
    arms = [
        (name, [task for task in comparison.tasks if task.unit == unit]) for name, comparison in comparisons.items()
    ]
    drawn = charts.forest_figure(arms, margin if unit == "score" else None)
    parts.figure(drawn, f"forest-{unit}")
st.caption(
    f"Adapted - {parts.plain(reference)}, paired by item; positive is better. Filled: significant change after "
    f"Holm's correction over all tasks of the comparison (5 %). {LEVEL_NOTE}"
)

st.subheader("By role and suite")
labels = label_tasks((task.suite, task.task) for comparison in comparisons.values() for task in comparison.tasks)
totals_of = {
    name: [("all", total) for total in comparison.roles]
    + [
        (suite, total)
        for suite in dict.fromkeys(task.suite for task in comparison.tasks)
        for total in compute_totals(task for task in comparison.tasks if task.suite == suite)
    ]
    for name, comparison in comparisons.items()
}
parts.table(
    [
        {
            "arm": name,
            "role": total.role,
            "suite": suite,
            "unit": total.unit,
            "tasks": total.tasks,
            "difference": total.difference,
            "low": total.low,
            "high": total.high,
            "worst task": labels[total.worst_suite, total.worst_task],
            "worst-task difference": total.worst_difference,
        }
        for name, totals in totals_of.items()
        for suite, total in totals
    ],
    dict.fromkeys(("difference", "low", "high", "worst-task difference"), parts.SIGNED),
)
st.caption(
    "Unweighted means over all suites of a role (all), and over the tasks of each suite; positive is better, 90 % "
    "intervals."
)

st.subheader("Lost and gained")
for name, comparison in comparisons.items():
    if any(task.lost is not None for task in comparison.tasks):
        st.text(name)
        parts.figure(charts.transitions_figure(comparison.tasks), f"transitions-{name}")
if not any(task.floor for comparison in comparisons.values() for task in comparison.tasks):
    st.caption("No A/A floor: submit with `--rerun` to score the base twice and measure run-to-run noise.")

st.subheader("Tasks")
rows = [
    {
        "arm": name,
        "suite": task.suite,
        "task": task.task,
        "metric": f"{task.metric} {arrow(task.higher_is_better)}",
        "n": task.n,
        "base": task.base,
        "adapted": task.adapted,
        "difference": task.difference,
        "low": task.low,
        "high": task.high,
        "moved": task.moved or "",
        "p (Holm)": task.p_holm,
        "lost": task.lost,
        "gained": task.gained,
        "lost, base rerun": None if task.floor is None else task.floor.lost,
        "agreement": task.agreement,
        "notes": "; ".join(list_notes(task)),
        "test": task.test,
    }
    for name, comparison in comparisons.items()
    for task in sort_by_loss(comparison.tasks)
]
parts.table(
    rows,
    dict.fromkeys(("difference", "low", "high"), parts.SIGNED)
    | dict.fromkeys(("base", "adapted", "p (Holm)"), parts.LEVEL)
    | dict.fromkeys(("lost, base rerun", "agreement"), parts.SHARE),
)
st.caption(
    "difference = adapted - reference in the metric's unit; ↑ higher is better, ↓ lower is better. lost, gained: items."
)
st.download_button("Download as CSV", parts.csv_of(rows), "evalsvc-compare.csv", "text/csv", on_click="ignore")
