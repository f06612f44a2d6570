"""Which way of adapting is enough: the cheapest arm that learns and does not forget, and the test that decided."""

from __future__ import annotations

import parts
import stored
import streamlit as st

from evalsvc.gating.advisor import Terms

st.title("Advisor")
MARKS = {"pass": "✓", "fail": "✗", "short": "✗", "inconclusive": "?", "no evidence": "!"}

with parts.stop_on_error():
    state = stored.finished_state()
    base = parts.base_of(state)
    suites = stored.suites(state, base)
    left, right = st.columns(2)
    domain = [suite for suite, role in suites.items() if role == "domain"]
    kept = [suite for suite, role in suites.items() if role in {"general", "instruction"}]
    learning = left.multiselect("Must learn (suites)", domain, default=domain, key="learning", bind="query-params")
    retention = right.multiselect(
        "Must keep (suites)",
        kept,
        default=[suite for suite in kept if suites[suite] == "general"],
        key="retention",
        bind="query-params",
    )
    gain = left.number_input(
        "Gain that must be exceeded (mean score)", 0.0, 0.9, 0.0, 0.01, format="%.3f", key="gain", bind="query-params"
    )
    with right:
        margin = parts.margin()
    if not learning and not retention:
        st.info("Choose at least one suite.")
        st.stop()
    advice = stored.advice(
        state, base, Terms(learning=tuple(learning), retention=tuple(retention), min_gain=float(gain), margin=margin)
    )

if advice.chosen is None:
    st.warning("No arm passes on these terms.")
else:
    st.success(f"Take {parts.plain(advice.chosen.arm)} ({advice.chosen.rung}): nothing cheaper passes.")
parts.table(
    [
        {
            "kind": one.rung,
            "arm": one.arm or "",
            "verdict": f"{MARKS.get(one.verdict, '·')} {one.verdict}",
            "rule": one.decided_by.rule if one.decided_by else "",
            "estimate": one.decided_by.estimate if one.decided_by else None,
            "low": one.decided_by.low if one.decided_by else None,
            "high": one.decided_by.high if one.decided_by else None,
            "margin": one.decided_by.margin if one.decided_by else None,
            "n": one.decided_by.n if one.decided_by else None,
            "needs n": parts.count(one.decided_by.needed_n) if one.decided_by else None,
            "because": one.reason,
        }
        for one in advice.tried
    ],
    dict.fromkeys(("estimate", "low", "high"), parts.SIGNED),
)
looked_at = {"pass", "fail", "inconclusive", "short"}
tried = sum(one.verdict in looked_at and one.rung != "base" for one in advice.tried)
st.caption(
    "From the cheapest kind upwards: base, in-context examples, retrieval, PEFT, full fine-tuning, continued "
    "pre-training; within a kind by GPU-hours, then by training step. Every learning rule must be shown to hold "
    "and every retention rule too, each at one-sided 5 %. "
    f"Arms judged on the same items: {tried:,}. The chance that one at the margin passes is up to "
    f"{1 - 0.95 ** max(1, tried):.0%}: confirm the choice with `evalsvc gate --half confirm`. No decision was kept."
)
