"""Learning against forgetting: one point per arm, with intervals, the base at the origin."""

from __future__ import annotations

import parts
import stored
import streamlit as st

from evalsvc import charts
from evalsvc.analysis.frontier import ROLES
from evalsvc.records.arms import COSTS
from evalsvc.records.frontier import MethodDifference, MethodValue
from evalsvc.reports.formatting import LEVEL_NOTE
from evalsvc.reports.frontier import NO_EQUAL_LEARNING, sort_by_learning
from evalsvc.reports.report import describe_missing

st.title("Learning and forgetting")
NAMES = {"learning": "learning", "retention": "retention"} | COSTS
NONE = "none"

with parts.stop_on_error():
    state = stored.finished_state()
    base = parts.base_of(state)
    family = stored.families(state)[base]
    with st.expander("Axes, suites, methods"):
        first, second, third = st.columns(3)
        axes = list(NAMES)
        x = str(first.selectbox("x", axes, format_func=NAMES.__getitem__, key="x", bind="query-params"))
        y = str(second.selectbox("y", axes, index=1, format_func=NAMES.__getitem__, key="y", bind="query-params"))
        sizes = [NONE, *COSTS]
        size = str(
            third.selectbox(
                "Marker size",
                sizes,
                format_func=lambda name: COSTS.get(name, name),
                key="size",
                bind="query-params",
            )
        )
        suites = stored.suites(state, base)
        axis_suites = [suite for suite, role in suites.items() if role in ROLES]
        only = st.multiselect(
            "Suites (empty: all of a role)",
            axis_suites,
            format_func=lambda suite: f"{suite} ({suites[suite]})",
            key="suites",
            bind="query-params",
        )
        methods = list(dict.fromkeys(arm.checkpoint.method for arm in family.arms))
        shown = st.multiselect("Methods (empty: all)", methods, key="methods", bind="query-params")
        first, second = st.columns(2)
        ellipses = first.toggle("Joint 90 % ellipses", key="ellipses", bind="query-params")
        fronts = second.toggle("Frontier per method", value=True, key="fronts", bind="query-params")
    if x == y:
        st.info("Choose two different axes.")
        st.stop()
    dominance_axes = tuple("forgetting" if axis == "retention" else axis for axis in (x, y))
    frontier = stored.frontier(state, base, dominance_axes, tuple(only))

if not [p for p in frontier.points if p.method != "base"]:
    st.warning(
        "No arm has a value on both axes. Choose other axes, or submit the arms again with their cost, for example "
        "`--gpu-hours`."
    )
view = charts.View(
    x=x,
    y=y,
    size=None if size == NONE else size,
    ellipses=bool(ellipses),
    methods=bool(fronts),
    only=tuple(shown) or None,
)
crowded = len(frontier.points) > charts.MAX_DETAILED
selection = parts.figure(
    charts.frontier_figure(frontier, view), "plane", on_select="rerun", selection_mode=("points", "box", "lasso")
)
st.caption(
    f"Right and up is better. Learning in {parts.plain(frontier.learning_unit)}, forgetting in "
    f"{parts.plain(frontier.forgetting_unit)}; positive forgetting is worse. Larger markers: on the frontier. "
    f"{LEVEL_NOTE} "
    "To compare arms, click points, draw a box around them, or tick rows of the table."
    + (
        f" Intervals are drawn for arms on the frontier only; hover over a point for its interval "
        f"({len(frontier.points):,} arms)."
        if crowded
        else ""
    )
)

links = st.container()

points = [point for point in sort_by_learning(frontier) if not shown or point.method in {"base", *shown}]
rows = [
    {
        "arm": point.arm,
        "method": point.method,
        "on frontier": point.on_frontier,
        "on method frontier": point.on_method_frontier,
        "learning": point.learning,
        "learning low": point.learning_low,
        "learning high": point.learning_high,
        "forgetting": point.forgetting,
        "forgetting low": point.forgetting_low,
        "forgetting high": point.forgetting_high,
        "forgetting per learning": point.exchange,
        "P(frontier)": point.p_on_frontier,
        "dominated by (95 %)": point.dominated_by or "",
    }
    | {words: getattr(point.cost, name) for name, words in COSTS.items()}
    for point in points
]
known = [words for words in COSTS.values() if any(row[words] is not None for row in rows)]
rows = [{key: value for key, value in row.items() if key not in COSTS.values() or key in known} for row in rows]
numbers = [f"{axis}{end}" for axis in ("learning", "forgetting") for end in ("", " low", " high")]
ticked = parts.table(
    rows,
    dict.fromkeys([*numbers, "forgetting per learning"], parts.SIGNED)
    | {"P(frontier)": st.column_config.NumberColumn(format="%.2f")},
    on_select="rerun",
    selection_mode="multi-row",
    key="points",
)
names = stored.unique_names([family.base, *family.arms])
name_of = {arm.checkpoint.digest: name for name, arm in reversed(names.items()) if arm != family.base}
picked = [p.get("customdata") for p in (selection.selection.points if selection else [])]
digests = [str(d[0] if isinstance(d, list | tuple) else d) for d in picked if d]
digests += [points[row].digest for row in (ticked.selection.rows if ticked else []) if row < len(points)]
chosen = list(dict.fromkeys(name_of[digest] for digest in digests if digest in name_of))
if chosen:
    links.text(f"Selected: {', '.join(chosen)}")
    links.page_link(
        "views/compare.py", label="Compare them", query_params=[("base", base), *(("arms", n) for n in chosen)]
    )
st.download_button("Download as CSV", parts.csv_of(rows), "evalsvc-frontier.csv", "text/csv", on_click="ignore")
if frontier.missing:
    st.warning(f"Arms not placed: {parts.plain(describe_missing(frontier.missing))}.")
if frontier.unshared:
    unshared = parts.plain(", ".join(frontier.unshared))
    st.caption(f"Suites not on the axes, because most arms do not share them: {unshared}. Choose them under Suites.")
if frontier.left_out:
    st.caption(f"Tasks not on the axes, because their units differ: {parts.plain(', '.join(frontier.left_out))}.")

if len(frontier.methods) > 1:
    st.subheader("Methods")
    parts.table(
        [
            {"method": m.method, "hypervolume": m.hypervolume, "arms on its frontier": ", ".join(m.arms)}
            for m in frontier.methods
        ]
        + [{"method": "all methods", "hypervolume": frontier.hypervolume, "arms on its frontier": ""}],
        {"hypervolume": st.column_config.NumberColumn(format="%.4f")},
    )
    corner = ", ".join(f"{axis} {at:.3g}" for axis, at in zip(frontier.axes, frontier.reference, strict=True))
    st.caption(f"Hypervolume: area between the frontier and the corner ({parts.plain(corner)}).")
    # Slow with many arms, therefore last: it is computed while the browser draws the points.
    equal = stored.equal_levels(state, base, dominance_axes, tuple(only))
    for matched, compared, level in (
        (equal.learning, "Forgetting", "learning"),
        (equal.forgetting, "Learning", "forgetting"),
    ):
        if matched is None:
            if level == "learning" and {"learning", "forgetting"} <= set(dominance_axes):
                st.caption(NO_EQUAL_LEARNING)
            continue
        st.markdown(f"**{compared} at equal {level} ({level} {matched.at:+.3f})**")
        reads: list[tuple[str, MethodValue | MethodDifference]] = [(read.method, read) for read in matched.methods]
        gaps: list[tuple[str, MethodValue | MethodDifference]] = [
            (f"{gap.first} - {gap.second}", gap) for gap in matched.gaps
        ]
        parts.table(
            [
                {"method": name, "value": row.value, "low": row.low, "high": row.high, "reached": row.reached}
                for name, row in [*reads, *gaps]
            ],
            dict.fromkeys(("value", "low", "high"), parts.SIGNED) | {"reached": parts.SHARE},
        )
    st.caption(
        "Linear interpolation between the points of each method's frontier, including the base. reached: share of "
        "resamples in which the method reaches this level; no interval where fewer than half do. The level of learning "
        "is the highest that all methods reach in 95 % of the resamples."
    )
