"""One checkpoint: what it is, what it cost, what adapting changed, what speaks against it."""

from __future__ import annotations

import parts
import stored
import streamlit as st

from evalsvc import charts
from evalsvc.records.weight_changes import group_changes
from evalsvc.reports.checkpoints import compare_command, cost_lines

st.title("Checkpoints")

with parts.stop_on_error():
    state = stored.finished_state()
    checkpoints = stored.checkpoints(state)
    if not checkpoints:
        st.info("The store has no checkpoint yet. Begin with `evalsvc demo`.")
        st.stop()
    labels = {f"{checkpoint.label} ({checkpoint.digest[7:19]})": checkpoint for checkpoint in reversed(checkpoints)}
    chosen = labels[str(st.selectbox("Checkpoint", list(labels), key="checkpoint", bind="query-params"))]
    change, findings = stored.dossier(state, chosen)

parts.table(
    [
        {"what": "method", "value": chosen.method},
        {"what": "folder", "value": chosen.path},
        {"what": "digest", "value": chosen.digest},
        *({"what": what, "value": value} for what, value in cost_lines(chosen.cost)),
    ]
)

for finding in findings:
    (st.warning if finding.severity == "warning" else st.info)(f"{finding.check}: {parts.plain(finding.text)}")

st.subheader("What changed")
if chosen.parent is None:
    st.caption("Nothing: it is a base.")
    st.stop()
if chosen.is_prompted:
    st.caption("Nothing: it is its base, asked with other prompts.")
    st.stop()
if change is None:
    st.caption("Not computed yet:")
    st.code(compare_command(chosen.digest[7:19]), language="shell")
    st.stop()
if change.tensors:
    parts.figure(charts.change_figure(change), "heat")
st.caption(
    f"{change.trainable:,} trainable parameters, {change.trainable / change.parameters:.3%} of the base's. "
    f"Relative norm: of the change over that of the base. Changed: {parts.plain(change.tolerance)}. "
    "A description, not a verdict."
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
