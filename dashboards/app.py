"""The dashboard, which `evalsvc dashboard` runs with Streamlit: pages in `views/`, figures from `evalsvc.charts`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

st.set_page_config(page_title="evalsvc", page_icon="📉", layout="wide")
st.html(Path(__file__).with_name("figures.css"))
st.navigation(
    {
        "Understand": [
            st.Page("views/frontier.py", title="Frontier", default=True),
            st.Page("views/compare.py", title="Compare"),
            st.Page("views/samples.py", title="Samples"),
            st.Page("views/trajectory.py", title="Trajectory"),
            st.Page("views/advisor.py", title="Advisor"),
        ],
        "Decide": [
            st.Page("views/gate.py", title="Gate"),
            st.Page("views/claims.py", title="Claims"),
        ],
        "Manage": [
            st.Page("views/checkpoints.py", title="Checkpoints"),
            st.Page("views/runs.py", title="Runs"),
        ],
    }
).run()
