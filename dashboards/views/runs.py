"""Runs: live progress, reasons of failed requests, and how to resume."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import get_args

import parts
import stored
import streamlit as st

from evalsvc.records.vocabulary import State
from evalsvc.store.runs import StoredRun, is_alive

st.title("Runs")
EVERY = "2s"
PAGE = 200
STATES = get_args(State)


def is_stopped(run: StoredRun) -> bool:
    """Whether a run is unfinished and its driver has ended."""
    return run.state in {"queued", "running"} and not is_alive(run.driver)


def note(run: StoredRun) -> str:
    """Return why a run failed or stopped, or that it belongs to a gate; empty otherwise."""
    if run.error:
        return run.error
    if is_stopped(run):
        return "its driver process has ended; submit again to resume"
    return "interim look of a gate" if run.part_of else ""


def estimate_time_left(runs: list[StoredRun]) -> str:
    """Return the remaining time of running runs at the rate so far; empty if the rate is unknown."""
    active = [run for run in runs if run.state == "running" and not is_stopped(run)]
    if not active:
        return ""
    began = min(run.created for run in active)
    seconds = (max(run.updated for run in active) - began).total_seconds()
    answered, of = sum(run.answered for run in active), sum(run.requests for run in active)
    if seconds < 1 or not answered:
        return ""
    minutes = (of - answered) * seconds / answered / 60
    return f", about {minutes:.0f} min left" if minutes >= 1 else ", less than a minute left"


@st.fragment(run_every=EVERY)
def progress() -> None:
    """Show the progress of all runs, refreshed every two seconds."""
    with parts.stop_on_error():
        runs = stored.runs(stored.now())
        if not runs:
            st.info("The store has no run yet. Start with `evalsvc demo`.")
            return
        states = st.pills("State", STATES, selection_mode="multi", key="state", bind="query-params")
        answered, of = sum(run.answered for run in runs), sum(run.requests for run in runs)
        st.progress(answered / of if of else 1.0, f"{answered:,} of {of:,} requests answered{estimate_time_left(runs)}")
        counts = " · ".join(f"{state} {sum(run.state == state for run in runs):,}" for state in STATES)
        st.caption(f"{counts} · as of {datetime.now():%H:%M:%S}")
        shown = [run for run in runs if not states or run.state in states]
        shown.sort(key=lambda run: (run.state == "done", -run.updated.timestamp()))
        parts.table(
            [
                {
                    "arm": run.arm.label,
                    "method": run.arm.checkpoint.method,
                    "suite": run.suite,
                    "role": run.role,
                    "state": "stopped" if is_stopped(run) else run.state,
                    "progress": run.answered / run.requests if run.requests else 1.0,
                    "answered": run.answered,
                    "of": run.requests,
                    "failed": run.failed,
                    "updated": run.updated,
                    "note": note(run),
                }
                for run in parts.page_of(shown, PAGE)
            ],
            {"progress": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0)},
        )
        show_failures(runs)


def show_failures(runs: list[StoredRun]) -> None:
    """Show failed and stopped runs with their reasons, and the command that resumes each."""
    for run in runs:
        if run.state != "failed" and not is_stopped(run) and not run.failed:
            continue
        with st.container(border=True):
            st.text(f"{run.arm.label} on {run.suite}: {'stopped' if is_stopped(run) else run.state}. {note(run)}")
            failures = stored.failures(stored.now(), run.arm.number, run.plan) if run.failed else []
            if failures:
                parts.table([{"requests": f.requests, "reason": f.error} for f in failures])
            st.caption("Resume:")
            st.code(command(run), language="shell", wrap_lines=True)


def command(run: StoredRun) -> str:
    """Return the command that resumes a run."""
    checkpoint = run.arm.checkpoint
    base = ["--base", checkpoint.base_path] if checkpoint.base_path else []
    if checkpoint.parent and not base:
        parent = next((c for c in stored.checkpoints(stored.now()) if c.digest == checkpoint.parent), None)
        base = ["--base", parent.path] if parent else []
    return shlex.join(
        ["evalsvc", "submit", checkpoint.path, *base, "--suite", run.suite, "--db", str(stored.now().path)]
    )


progress()
