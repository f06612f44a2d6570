"""Runs and results -> tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from evalsvc.records.arms import Checkpoint
from evalsvc.reports.formatting import SCHEMA, format_number, new_table

if TYPE_CHECKING:
    from evalsvc.store.runs import StoredRun
    from evalsvc.store.scores import StoredResult


# ------------------------------------------------------------------------------------------------------------- JSON


def arm_fields(checkpoint: Checkpoint, label: str | None = None) -> dict[str, Any]:
    """Return what every JSON object says of a checkpoint, or of an arm with a label of its own."""
    return {
        "arm": label or checkpoint.label,
        "checkpoint": checkpoint.path,
        "digest": checkpoint.digest,
        "method": checkpoint.method,
        "step": checkpoint.step,
    }


def runs_json(runs: Sequence[StoredRun], alive: Sequence[bool]) -> dict[str, Any]:
    """Return the runs as `submit --json` and `status --json` print them."""
    return {
        "schema": SCHEMA,
        "runs": [
            {
                "run": run.run,
                **arm_fields(run.arm.checkpoint, run.arm.label),
                "suite": run.suite,
                "role": run.role,
                "state": run.state,
                "requests": run.requests,
                "answered": run.answered,
                "failed": run.failed,
                "error": run.error,
                "part_of": run.part_of,
                "driver_alive": lives,
                "updated": run.updated.isoformat(),
            }
            for run, lives in zip(runs, alive, strict=True)
        ],
    }


def results_json(results: Sequence[StoredResult]) -> dict[str, Any]:
    """Return the results as `results --json` prints them."""
    return {
        "schema": SCHEMA,
        "scores": [
            {
                **arm_fields(result.arm.checkpoint, result.arm.label),
                "suite": result.suite,
                "role": result.role,
                "task": result.task,
                "metric": result.metric,
                "filter": result.filter,
                "n": result.n,
                "value": result.value,
                "stderr": result.stderr,
                "primary": result.primary,
                "group": result.is_group,
            }
            for result in results
        ],
    }


def runs_table(runs: Sequence[StoredRun], alive: Sequence[bool]) -> Table:
    """Show how far runs have come."""
    table = new_table("Runs", "arm", "method", "suite", "role", "state", "#answered", "#of", "updated", "note")
    for run, lives in zip(runs, alive, strict=True):
        stopped = run.state in {"queued", "running"} and not lives
        look = "an early look of a gate" if run.part_of else ""
        note = run.error or ("its driver is gone: submit again to resume" if stopped else look)
        checkpoint = run.arm.checkpoint
        table.add_row(
            run.arm.label,
            checkpoint.method,
            run.suite,
            run.role,
            run.state,
            f"{run.answered:,}",
            f"{run.requests:,}",
            f"{run.updated:%Y-%m-%d %H:%M}",
            note,
        )
    return table


def overview_table(results: Sequence[StoredResult]) -> Table:
    """Show one row per arm and suite: the mean of its tasks' primary metrics, if they have one metric in common."""
    suites: dict[tuple[str, str], list[StoredResult]] = {}
    for result in results:
        if result.primary:
            suites.setdefault((result.arm.digest, result.suite), []).append(result)
    table = new_table(
        "Results",
        *("arm", "method", "suite", "role", "#tasks", "#items", "metric", "#mean"),
        caption="tasks one by one: evalsvc results --arm ARM or --suite SUITE; everything: --json",
    )
    for tasks in suites.values():
        metrics = sorted({task.metric for task in tasks})
        table.add_row(
            tasks[0].arm.label,
            tasks[0].arm.checkpoint.method,
            tasks[0].suite,
            tasks[0].role,
            str(len(tasks)),
            f"{sum(task.n for task in tasks):,}",
            ", ".join(metrics),
            format_number(sum(task.value for task in tasks) / len(tasks)) if len(metrics) == 1 else "-",
        )
    return table


def results_table(results: Sequence[StoredResult]) -> Table:
    """Show the primary metric of every task."""
    table = new_table("Results", "arm", "method", "suite", "task", "metric", "#n", "#value", "#stderr")
    for result in results:
        checkpoint = result.arm.checkpoint
        metric = result.metric if result.filter == "none" else f"{result.metric} ({result.filter})"
        table.add_row(
            result.arm.label,
            checkpoint.method,
            result.suite,
            f"{result.task} (group)" if result.is_group else result.task,
            metric,
            f"{result.n:,}",
            format_number(result.value),
            format_number(result.stderr),
        )
    return table
