"""Learning against forgetting: one point per arm, with intervals, the base at the origin."""

from __future__ import annotations

import stored
import streamlit as st

from evalsvc import charts
from evalsvc.errors import EvalsvcError
from evalsvc.report import LEVEL_NOTE, by_learning

st.title("Learning and forgetting")

try:
    bases = stored.bases()
    if not bases:
        st.info("The store has no adapted checkpoint yet. Begin with `evalsvc demo`, or with:")
        st.code("evalsvc submit CHECKPOINT --base BASE --suite clinic --suite valley", language="shell")
        st.stop()
    base = st.selectbox("Base", bases, key="base", bind="query-params")
    found = stored.frontier(str(base))
except EvalsvcError as error:
    st.error(str(error))
    st.stop()

st.plotly_chart(charts.frontier_figure(found), width="stretch", key="plane", config={"displaylogo": False})
st.caption(
    f"Right and up is better. Learning in {found.learning_unit}, forgetting in {found.forgetting_unit}; "
    f"positive forgetting is worse. {LEVEL_NOTE}"
)
st.dataframe(
    [
        {
            "arm": point.arm,
            "method": point.method,
            "on frontier": point.on_frontier,
            "learning": point.learning,
            "learning low": point.learning_low,
            "learning high": point.learning_high,
            "forgetting": point.forgetting,
            "forgetting low": point.forgetting_low,
            "forgetting high": point.forgetting_high,
            "P(frontier)": point.p_on_frontier,
        }
        for point in by_learning(found)
    ],
    width="stretch",
    hide_index=True,
    column_config={
        name: st.column_config.NumberColumn(format="%+.3f")
        for name in (
            *("learning", "learning low", "learning high"),
            *("forgetting", "forgetting low", "forgetting high"),
        )
    }
    | {"P(frontier)": st.column_config.NumberColumn(format="%.2f")},
)
if found.incomplete:
    st.warning(f"Not placed, scores are missing: {', '.join(found.incomplete)}. Submit them again to resume.")
if found.left_out:
    st.caption(f"Not on the axes, in other units: {', '.join(found.left_out)}.")
