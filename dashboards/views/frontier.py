"""Learning against forgetting: one point per arm, with intervals, the base at the origin."""

from __future__ import annotations

import parts
import stored
import streamlit as st

from evalsvc import charts
from evalsvc.analysis.frontier import ROLES
from evalsvc.records.arms import COSTS
from evalsvc.records.frontier import Gap, Read
from evalsvc.reports.formatting import LEVEL_NOTE
from evalsvc.reports.frontier import by_learning

st.title("Learning and forgetting")
NAMES = {"learning": "learning", "retention": "retention"} | COSTS
NONE = "nothing"

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
                "Markers grow with",
                sizes,
                format_func=lambda name: COSTS.get(name, name),
                key="size",
                bind="query-params",
            )
        )
        suites = stored.suites(state, base)
        axis_suites = [suite for suite, role in suites.items() if role in ROLES]
        only = st.multiselect(
            "Suites (none of a role: all of it)",
            axis_suites,
            format_func=lambda suite: f"{suite} ({suites[suite]})",
            key="suites",
            bind="query-params",
        )
        methods = list(dict.fromkeys(arm.checkpoint.method for arm in family.arms))
        shown = st.multiselect("Methods (none: all)", methods, key="methods", bind="query-params")
        first, second = st.columns(2)
        ellipses = first.toggle("Joint 90 % ellipses", key="ellipses", bind="query-params")
        fronts = second.toggle("A frontier for each method", value=True, key="fronts", bind="query-params")
    if x == y:
        st.info("Choose two different axes.")
        st.stop()
    wanted = tuple("forgetting" if axis == "retention" else axis for axis in (x, y))
    found = stored.frontier(state, base, wanted, tuple(only))

if not [p for p in found.points if p.method != "base"]:
    st.warning(
        "No arm can be placed: none has what these axes need. Choose other axes, or give --gpu-hours and the like."
    )
view = charts.View(
    x=x,
    y=y,
    size=None if size == NONE else size,
    ellipses=bool(ellipses),
    methods=bool(fronts),
    only=tuple(shown) or None,
)
crowded = len(found.points) > charts.CROWD
selection = parts.figure(
    charts.frontier_figure(found, view), "plane", on_select="rerun", selection_mode=("points", "box", "lasso")
)
st.caption(
    f"Right and up is better. Learning in {parts.plain(found.learning_unit)}, forgetting in "
    f"{parts.plain(found.forgetting_unit)}; positive forgetting is worse. Larger: on the frontier. {LEVEL_NOTE} "
    "Click points, draw a box around some, or tick rows of the table, to compare them."
    + (f" Intervals: of arms on the frontier; of all {len(found.points):,} on hover." if crowded else "")
)

links = st.container()

points = [point for point in by_learning(found) if not shown or point.method in {"base", *shown}]
rows = [
    {
        "arm": point.arm,
        "method": point.method,
        "on frontier": point.on_frontier,
        "on its method's": point.on_method_frontier,
        "learning": point.learning,
        "learning low": point.learning_low,
        "learning high": point.learning_high,
        "forgetting": point.forgetting,
        "forgetting low": point.forgetting_low,
        "forgetting high": point.forgetting_high,
        "forgotten per learned": point.exchange,
        "P(frontier)": point.p_on_frontier,
        "beaten for certain by": point.dominated_by or "",
    }
    | {words: getattr(point.cost, name) for name, words in COSTS.items()}
    for point in points
]
known = [words for words in COSTS.values() if any(row[words] is not None for row in rows)]
rows = [{key: value for key, value in row.items() if key not in COSTS.values() or key in known} for row in rows]
numbers = [f"{what}{end}" for what in ("learning", "forgetting") for end in ("", " low", " high")]
ticked = parts.table(
    rows,
    dict.fromkeys([*numbers, "forgotten per learned"], parts.SIGNED)
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
if found.incomplete:
    missing = ", ".join(parts.plain(label) for label in found.incomplete)
    why = "scores are missing, or a cost that is an axis is not known" if {x, y} & set(COSTS) else "scores are missing"
    st.warning(f"Not placed, {why}: {missing}. Submit them again to resume.")
if found.left_out:
    st.caption(f"Not on the axes, in other units: {parts.plain(', '.join(found.left_out))}.")

if len(found.methods) > 1:
    st.subheader("Methods")
    parts.table(
        [
            {"method": m.method, "hypervolume": m.hypervolume, "arms on its frontier": ", ".join(m.arms)}
            for m in found.methods
        ]
        + [{"method": "all together", "hypervolume": found.hypervolume, "arms on its frontier": ""}],
        {"hypervolume": st.column_config.NumberColumn(format="%.4f")},
    )
    corner = ", ".join(f"{axis} {at:.3g}" for axis, at in zip(found.axes, found.reference, strict=True))
    st.caption(f"Hypervolume: area between the frontier and the corner ({parts.plain(corner)}).")
    # Dear on many arms, and so last: it is found while the browser draws the points.
    equal = stored.equal_levels(state, base, wanted, tuple(only))
    for matched, what, level in (
        (equal.learning, "Forgetting", "learning"),
        (equal.forgetting, "Learning", "forgetting"),
    ):
        if matched is None:
            continue
        st.markdown(f"**{what} at equal {level} ({level} {matched.at:+.3f})**")
        reads: list[tuple[str, Read | Gap]] = [(read.method, read) for read in matched.methods]
        gaps: list[tuple[str, Read | Gap]] = [(f"{gap.first} - {gap.second}", gap) for gap in matched.gaps]
        parts.table(
            [
                {"method": name, "value": row.value, "low": row.low, "high": row.high, "reached": row.reached}
                for name, row in [*reads, *gaps]
            ],
            dict.fromkeys(("value", "low", "high"), parts.SIGNED) | {"reached": parts.SHARE},
        )
    st.caption("Read off each method's frontier, base included, by straight lines; reached: in so many resamples.")
