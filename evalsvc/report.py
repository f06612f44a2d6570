"""Records in, text out: tables for people, JSON for machines. Decides nothing; `page` has the HTML.

Every JSON object carries `schema`; its names are those of DESIGN's vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from evalsvc.points import EqualLevels, Frontier, Point
from evalsvc.records import Checkpoint, FullComparison

if TYPE_CHECKING:  # what is shown decides what is loaded, not the module that shows it
    from evalsvc.doctor import Finding
    from evalsvc.inspection import CheckedTask
    from evalsvc.service import Compared
    from evalsvc.store import StoredResult, StoredRun
    from evalsvc.suites import Suite

SCHEMA = 1
LEVEL_NOTE = "Intervals are two-sided at 90 %: their ends are the one-sided 5 % bounds that decisions use."


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


def compared_json(compared: Compared) -> dict[str, Any]:
    """Return a comparison as `compare --json` prints it; differences are adapted - base, in the metric's unit."""
    return {
        "schema": SCHEMA,
        "base": compared.base.label,
        "base_digest": compared.base.checkpoint.digest,
        "adapted": compared.adapted.label,
        "adapted_digest": compared.adapted.checkpoint.digest,
        "tasks": [asdict(task) for task in compared.tasks],
        "roles": [asdict(role) for role in compared.roles],
    }


def frontier_json(frontier: Frontier, equal: EqualLevels) -> dict[str, Any]:
    """Return a frontier as `frontier --json` prints it."""
    return {
        "schema": SCHEMA,
        "base": frontier.base,
        "axes": list(frontier.axes),
        "points": [asdict(point) for point in frontier.points],
        "methods": [asdict(method) for method in frontier.methods],
        "equal_learning": equal.learning and asdict(equal.learning),
        "equal_forgetting": equal.forgetting and asdict(equal.forgetting),
        "hypervolume": {"value": frontier.hypervolume, "reference": list(frontier.reference)},
        "learning_unit": frontier.learning_unit,
        "forgetting_unit": frontier.forgetting_unit,
        "left_out": list(frontier.left_out),
        "incomplete": list(frontier.incomplete),
    }


# ------------------------------------------------------------------------------------------------------------ tables


def new_table(title: str, *columns: str, caption: str | None = None) -> Table:
    """Make a table; columns whose name begins with # hold numbers."""
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", header_style="bold")
    for column in columns:
        numeric = column.startswith("#")
        table.add_column(column.lstrip("#"), justify="right" if numeric else "left", no_wrap=numeric)
    return table


def number(value: float | None) -> str:
    """Format a level, "-" if there is none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Format a difference with its sign, "-" if there is none."""
    if value is None:
        return "-"
    rounded = round(value, 3) + 0.0  # + 0.0 takes the sign off a zero
    return f"{value:+.4g}" if abs(value) >= 100 else f"{rounded:+.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Format an interval, "-" if there is none."""
    return "-" if low is None or high is None else f"{signed(low)} .. {signed(high)}"


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
            number(sum(task.value for task in tasks) / len(tasks)) if len(metrics) == 1 else "-",
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
            number(result.value),
            number(result.stderr),
        )
    return table


def _metric(comparison: FullComparison) -> str:
    return f"{comparison.metric} {'↑' if comparison.higher_is_better else '↓'}"


def comparison_tables(compared: Compared) -> list[Table]:
    """Show a comparison: every task, worst first within its suite, then the mean of every role."""
    base, adapted = compared.base.label, compared.adapted.label
    tasks = new_table(
        f"{adapted} against {base}",
        *("suite", "task", "metric", "#n", "#base", "#adapted", "#difference", "#90 % interval", "#lost", "#gained"),
        "test",
        caption="difference = adapted - base in the metric's unit; ↑ higher is better, ↓ lower is better",
    )
    for comparison in in_order_of_harm(compared.tasks):
        tasks.add_row(
            comparison.suite,
            comparison.task,
            _metric(comparison),
            f"{comparison.n:,}",
            number(comparison.base),
            number(comparison.adapted),
            signed(comparison.difference),
            interval(comparison.low, comparison.high),
            "-" if comparison.lost is None else str(comparison.lost),
            "-" if comparison.gained is None else str(comparison.gained),
            comparison.test,
        )
    roles = new_table(
        "By role (better counted positive)",
        *("role", "unit", "#suites", "#tasks", "#difference", "#90 % interval", "worst task", "#its difference"),
    )
    for total in compared.roles:
        roles.add_row(
            total.role,
            total.unit,
            str(total.suites),
            str(total.tasks),
            signed(total.difference),
            interval(total.low, total.high),
            total.worst_task,
            signed(total.worst_difference),
        )
    return [tasks, roles]


def in_order_of_harm(comparisons: Sequence[FullComparison]) -> list[FullComparison]:
    """Return comparisons by suite, the greatest loss first within each."""
    suites = list(dict.fromkeys(comparison.suite for comparison in comparisons))
    return sorted(comparisons, key=lambda c: (suites.index(c.suite), c.gain))


def frontier_table(frontier: Frontier) -> Table:
    """Show the points of a frontier, by learning."""
    caption = [
        f"learning in {frontier.learning_unit}, forgetting in {frontier.forgetting_unit}; positive forgetting is worse",
        f"hypervolume {frontier.hypervolume:.4f} from ("
        + ", ".join(f"{name} {round(at, 3):g}" for name, at in zip(frontier.axes, frontier.reference, strict=True))
        + ")",
    ]
    costs = [name for name in frontier.axes if name not in {"learning", "forgetting"}]
    if frontier.left_out:
        caption.append(f"not on the axes, in other units: {', '.join(frontier.left_out)}")
    if frontier.incomplete:
        caption.append(f"not placed, scores are missing{_or(costs)}: {', '.join(frontier.incomplete)}")
    table = new_table(
        f"Learning and forgetting against {frontier.base}",
        *("", "arm", "method", "#learning", "#90 % interval", "#forgetting", "#90 % interval", "#P(frontier)"),
        *(f"#{name}" for name in costs),
        "beaten for certain by",
        caption="\n".join(caption),
    )
    for point in by_learning(frontier):
        table.add_row(
            "●" if point.on_frontier else "",
            point.arm,
            point.method,
            signed(point.learning),
            interval(point.learning_low, point.learning_high),
            signed(point.forgetting),
            interval(point.forgetting_low, point.forgetting_high),
            f"{point.p_on_frontier:.2f}",
            *(number(getattr(point.cost, name)) for name in costs),
            point.dominated_by or "",
            style="bold" if point.on_frontier else None,
        )
    return table


def _or(costs: Sequence[str]) -> str:
    """Return, of costs that are axes, what else an arm may lack."""
    return f", or {' or '.join(costs)} is not known" if costs else ""


def by_learning(frontier: Frontier) -> list[Point]:
    """Return a frontier's points, the one that learned most first."""
    return sorted(frontier.points, key=lambda point: (-point.learning, point.forgetting))


def suites_table(suites: Sequence[Suite]) -> Table:
    """Show suites by role."""
    table = new_table("Suites", "suite", "role", "#tasks", "description")
    for suite in suites:
        table.add_row(suite.name, suite.role, str(len(suite.tasks)), suite.description)
    return table


def check_table(tasks: Sequence[CheckedTask]) -> Table:
    """Show what a suite's tasks are, and how small a loss their items can exclude."""
    table = new_table(
        "Checked",
        *("task", "kind", "#n", "#shots", "metric", "filter", "code", "#margin"),
        caption="margin: the smallest loss that n binary items can exclude in 80 % of runs of an unchanged model,\n"
        "if one item in ten changes; a larger n resolves a smaller margin",
    )
    for task in tasks:
        table.add_row(
            task.task,
            task.kind,
            f"{task.n:,}",
            str(task.shots),
            task.metric,
            task.filter,
            "runs code" if task.runs_code else "",
            f"{task.margin:.3f}" if task.margin is not None else "-",
        )
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """Show what works on this machine."""
    table = new_table("Doctor", "", "what", "found")
    marks = {"ok": "✓", "note": "!", "bad": "✗"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.found)
    return table
