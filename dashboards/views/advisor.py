"""The cheapest arm that learns without forgetting, and the deciding test of each arm."""

from __future__ import annotations

import parts
import stored
import streamlit as st

from evalsvc.gating.advisor import GROUPS_BY_COST, Terms
from evalsvc.reports.decisions import is_endless

st.title("Advisor")
MARKS = {"pass": "✓", "fail": "✗", "short": "✗", "inconclusive": "?", "no evidence": "!"}

with parts.stop_on_error():
    state = stored.finished_state()
    base = parts.base_of(state)
    suites = stored.suites(state, base)
    left, right = st.columns(2)
    domain = [suite for suite, role in suites.items() if role == "domain"]
    kept = [suite for suite, role in suites.items() if role in {"general", "instruction"}]
    learning = left.multiselect("Suites to learn", domain, default=domain, key="learning", bind="query-params")
    retention = right.multiselect(
        "Suites to retain",
        kept,
        default=[suite for suite in kept if suites[suite] == "general"],
        key="retention",
        bind="query-params",
    )
    gain = left.number_input(
        "Minimum gain (mean score)", 0.0, 0.9, 0.0, 0.01, format="%.3f", key="gain", bind="query-params"
    )
    with right:
        margin = parts.margin()
    if not learning and not retention:
        st.info("Choose at least one suite.")
        st.stop()
    advice = stored.advice(
        state, base, Terms(learning=tuple(learning), retention=tuple(retention), min_gain=float(gain), margin=margin)
    )

if advice.choice is None:
    st.warning("No arm passes with these suites and margins.")
else:
    st.success(f"Use {parts.plain(advice.choice.arm)} ({advice.choice.rung}): no cheaper arm passes.")
parts.table(
    [
        {
            "kind": step.rung,
            "arm": step.arm or "",
            "verdict": f"{MARKS.get(step.verdict, '·')} {step.verdict}",
            "rule": step.decided_by.rule if step.decided_by else "",
            "estimate": step.decided_by.estimate if step.decided_by else None,
            "low": step.decided_by.low if step.decided_by else None,
            "high": step.decided_by.high if step.decided_by else None,
            "margin": step.decided_by.margin if step.decided_by else None,
            "n": step.decided_by.n if step.decided_by else None,
            "needs n": step.decided_by.needed_n if step.decided_by and not is_endless(step.decided_by) else None,
            "because": step.reason,
        }
        for step in advice.arms
    ],
    dict.fromkeys(("estimate", "low", "high"), parts.SIGNED),
)
evaluated = {"pass", "fail", "inconclusive", "short"}
tried = sum(step.verdict in evaluated and step.rung != "base" for step in advice.arms)
st.caption(
    f"Cheapest kind first ({', '.join(GROUPS_BY_COST)}); within a kind by GPU-hours, then by training step. An arm "
    "passes if every learning and every retention rule is significant at one-sided 5 %. "
    f"Arms evaluated on the same items: {tried:,}. The chance that an arm exactly at the margin passes is up to "
    f"{1 - 0.95 ** max(1, tried):.0%}: confirm the choice with `evalsvc gate --half confirm`. "
    "No decision is stored."
)
