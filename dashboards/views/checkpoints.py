"""One checkpoint: identity, cost, findings, and what adaptation changed in its weights."""

from __future__ import annotations

import parts
import stored
import streamlit as st

from evalsvc import charts
from evalsvc.records.weight_changes import group_changes
from evalsvc.reports.checkpoints import compare_command, list_costs

st.title("Checkpoints")

with parts.stop_on_error():
    state = stored.finished_state()
    checkpoints = stored.checkpoints(state)
    if not checkpoints:
        st.info("The store has no checkpoint yet. Start with `evalsvc demo`.")
        st.stop()
    labels = {f"{checkpoint.label} ({checkpoint.digest[7:19]})": checkpoint for checkpoint in reversed(checkpoints)}
    chosen = labels[str(st.selectbox("Checkpoint", list(labels), key="checkpoint", bind="query-params"))]
    change, findings = stored.dossier(state, chosen)

parts.table(
    [
        {"field": "method", "value": chosen.method},
        {"field": "folder", "value": chosen.path},
        {"field": "digest", "value": chosen.digest},
        *({"field": field, "value": value} for field, value in list_costs(chosen.cost)),
    ]
)

for finding in findings:
    (st.warning if finding.severity == "warning" else st.info)(f"{finding.check}: {parts.plain(finding.text)}")

st.subheader("Weight changes")
if chosen.parent is None:
    st.caption("None: this is a base.")
    st.stop()
if chosen.is_prompted:
    st.caption("None: the base's own weights with other prompts.")
    st.stop()
if change is None:
    st.caption("Not computed yet. Compute with:")
    st.code(compare_command(chosen.digest[7:19]), language="shell")
    st.stop()
if change.tensors:
    parts.figure(charts.change_figure(change), "heat")
st.caption(
    f"{change.trainable:,} trainable parameters, {change.trainable / change.parameters:.3%} of the base's. "
    f"Relative norm: norm of the change / norm of the base. Changed: {parts.plain(change.tolerance)}. "
    "Descriptive only: no rule uses it."
)
parts.table(
    [
        {
            "layers": group.group,
            "parameters": group.parameters,
            "changed": group.changed,
            "relative norm": group.norm,
            "rank-90": group.rank_90,
            "effective rank": group.effective_rank,
        }
        for group in (group_changes(change) if change.tensors else [])
    ],
    {"changed": st.column_config.NumberColumn(format="percent")}
    | {name: st.column_config.NumberColumn(format="%.3g") for name in ("relative norm", "rank-90", "effective rank")},
)
