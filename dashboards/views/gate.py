"""Stored decisions with every rule and its margin, and a simulator of other margins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import parts
import stored
import streamlit as st

from evalsvc import charts
from evalsvc.gating.verdict import RuleOutcome
from evalsvc.gating.verify import find_differences, read_rules
from evalsvc.gating.what_if import compute_power_curve, recompute_under
from evalsvc.reports.decisions import describe_shortage, is_endless, list_notes, name_arms

st.title("Gate")
MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)


def name_of(record: dict[str, Any]) -> str:
    """Return a decision's name in the list."""
    return f"{record['decided'][:16]} {record['checkpoint']['arm']} {record['verdict']} ({record['digest'][:8]})"


def banner(verdict: str, text: str) -> None:
    """Show a verdict with its colour and mark."""
    show_box = {"pass": st.success, "fail": st.error}.get(verdict, st.warning)
    show_box(f"{MARKS[verdict]} {verdict.upper()}: {parts.plain(text)}")


def write_notes(rule: RuleOutcome) -> str:
    """Return what a reader must know of a rule beside its numbers, and what it needs."""
    shortage = "" if rule.waived else describe_shortage(rule)
    # What a blind rule needs names its blind spots.
    notes = list_notes(replace(rule, blind_spots=()) if shortage and rule.is_blind else rule)
    return "; ".join(note for note in (*notes, shortage) if note)


def show_rules(rules: Sequence[RuleOutcome]) -> None:
    """Show the rules of a decision: a figure, a table of numbers, and one of what a reader must know beside them."""
    parts.figure(charts.rules_figure(rules), "rules")
    rows = [
        {
            "verdict": f"{MARKS[rule.verdict]} {rule.verdict}",
            "rule": rule.rule,
            "estimate": rule.estimate,
            "low": rule.low,
            "high": rule.high,
            "must exceed": rule.threshold,
            "n": rule.n,
            "lost": rule.lost,
            "gained": rule.gained,
            "needs n": None if is_endless(rule) else rule.needed_n,
            "resolves": None if rule.kind == "exchange" else rule.resolvable_margin,
            "look": rule.look,
        }
        for rule in rules
    ]
    parts.table(
        parts.drop_empty(rows),
        dict.fromkeys(("estimate", "low", "high", "must exceed"), parts.SIGNED) | {"resolves": parts.LEVEL},
    )
    st.caption(
        "A rule passes if its whole interval is above the threshold; the ends are one-sided bounds at the candidate's "
        "alpha. resolves: the smallest margin that an unchanged checkpoint passes with 80 % power on these items. "
        "look: the interim look that decided it."
    )
    # A static table: its cells wrap, so that long notes can be read.
    st.table(
        [
            {
                "rule": parts.plain(rule.rule),
                "unit": parts.plain(rule.unit),
                "test": parts.plain(rule.test),
                "notes": parts.plain(write_notes(rule)),
            }
            for rule in rules
        ],
        hide_index=True,
    )


def show_looks(record: dict[str, Any]) -> None:
    """Show the interim looks of a decision."""
    parts.table(
        [
            {
                "interim look": look["number"],
                "share of items": look["fraction"],
                "items": look["items"],
                "of": look["of"],
                "verdict": f"{MARKS[look['verdict']]} {look['verdict']}",
            }
            for look in record["looks"]
        ],
        {"share of items": parts.SHARE},
    )
    last = record["looks"][-1]
    st.caption(
        f"Mode {record['policy']['content']['mode']}: interim looks at a growing share of the items, until one "
        f"decides. "
        f"Items not needed: {last['of'] - last['items']:,} of {last['of']:,}."
    )


def show(record: dict[str, Any]) -> None:
    """Show one decision."""
    banner(record["verdict"], name_arms(record))
    if runs := record.get("runs"):
        members = [
            {"run": run["number"], **{key: run[key] for key in ("arm", "seed", "step", "digest")}} for run in runs
        ]
        parts.table(parts.drop_empty(members))
        st.caption("The runs of the recipe; those with the same number count as one.")
    if record["degraded"]:
        st.warning(
            "Degraded: a loss is significant, corrected for the number of rules, although it may be within its margin."
        )
    show_rules(read_rules(record))
    if record["looks"]:
        show_looks(record)
    for waiver in record["waivers"]:
        st.text(f"Waiver, {waiver['state']}: {json.dumps(waiver['waiver'], ensure_ascii=False)}")
    left, right = st.columns(2)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    left.download_button(
        "Download the decision record", text, f"{record['digest'][:16]}.json", "application/json", on_click="ignore"
    )
    if right.button("Verify: recompute from the stored scores"):
        with parts.stop_on_error():
            differences = find_differences(stored.finished_state().store, record)
        if differences:
            st.error("The decision does not hold: " + parts.plain("; ".join(differences)))
        else:
            st.success(
                "The decision holds: the stored scores give the same verdict, and the chain of decisions is intact."
            )
    with st.expander("Inputs of the decision"):
        st.json({key: record[key] for key in ("base", "checkpoint", "policy", "suites", "packages", "numerics")})


with parts.stop_on_error():
    state = stored.finished_state()
    records = stored.decisions(state)
    decisions_tab, simulator = st.tabs(["Decisions", "Simulator"])

with decisions_tab:
    if not records:
        st.info("The store has no decision yet. Make one with:")
        st.code("evalsvc gate ARM --policy policy.yaml", language="shell")
    else:
        named = {name_of(record): record for record in reversed(records)}
        chosen_name = st.selectbox("Decision", list(named), key="decision", bind="query-params")
        show(named[str(chosen_name)])
        st.subheader("Ledger")
        ledger = [
            {
                "decided": record["decided"][:16].replace("T", " "),
                "base": record["base"]["arm"],
                "checkpoint": record["checkpoint"]["arm"],
                "verdict": f"{MARKS[record['verdict']]} {record['verdict']}",
                "mode": record["policy"]["content"]["mode"],
                "alpha": record["policy"]["content"]["alpha"],
                "candidate": (record.get("candidate") or {}).get("number"),
                "candidate's alpha": (record.get("candidate") or {}).get("alpha"),
                "half": record["half"],
                "waived rules": sum(waiver["state"] == "applied" for waiver in record["waivers"]) or None,
                "digest": record["digest"][:16],
                "previous": (record["previous"] or "")[:16],
            }
            for record in reversed(records)
        ]
        parts.table(parts.drop_empty(ledger))
        candidates = len({record["checkpoint"]["digest"] for record in records})
        st.caption(
            f"Decisions: {len(records)}, checkpoints: {candidates}; newest first. Each is chained to the previous "
            "decision about the same base. Candidates on the same items share the policy's alpha: the k-th is tested "
            "at alpha * 6 / (pi k)^2, or each of a batch that was declared before the first at an equal share."
        )

with simulator, parts.stop_on_error():
    base = parts.base_of(state)
    arms = list(stored.unique_names(list(stored.families(state)[base].arms)))
    arm = str(st.selectbox("Arm", arms, index=len(arms) - 1, key="arm", bind="query-params"))
    tasks = [task for task in stored.compare_arms(state, base, arm).tasks if task.unit == "score"]
    suites = list(dict.fromkeys(task.suite for task in sorted(tasks, key=lambda task: task.role != "general")))
    if not suites:
        st.info("No suite of this arm has scores between 0 and 1; margins are defined for these only.")
        st.stop()
    suite = str(st.selectbox("Suite to retain", suites, key="kept", bind="query-params"))
    suite_tasks = [task for task in tasks if task.suite == suite]
    first, second, third = st.columns(3)
    with first:
        margin = parts.margin()
    alpha = float(
        second.number_input(
            "alpha (one-sided)", 0.001, 0.2, 0.05, 0.01, format="%.3f", key="alpha", bind="query-params"
        )
    )
    items = sum(task.n for task in suite_tasks)
    factor = float(
        third.number_input(
            f"Number of items (multiple of {items:,})",
            0.1,
            20.0,
            1.0,
            0.25,
            format="%.2f",
            key="factor",
            bind="query-params",
        )
    )
    simulated = recompute_under(suite_tasks, margin, alpha, factor)
    banner(simulated.verdict, f"retention/{suite} with {simulated.n:,} items")
    left, right = st.columns(2)
    left.metric("Difference (positive is better)", f"{simulated.estimate:+.3f}")
    right.metric("Interval", f"{simulated.low:+.3f} to {simulated.high:+.3f}")
    left.metric("Power for an unchanged checkpoint", f"{simulated.power:.0%}")
    right.metric("Items for 80 % power", f"{simulated.needed_n:,}")
    curve = compute_power_curve(suite_tasks, margin, alpha, FACTORS)
    parts.figure(charts.power_figure([n for n, _ in curve], [power for _, power in curve], simulated.n), "power")
    st.caption(
        "Assumes that the observed shares of items lost and gained hold at any number of items. A margin chosen after "
        "seeing the verdict decides nothing: the simulator stores no decision."
    )
