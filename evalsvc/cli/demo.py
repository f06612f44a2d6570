"""The command `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalsvc.cli.options import Quiet, Workers
from evalsvc.cli.output import exit_on_failures, open_store, show, working, write_report
from evalsvc.settings import shared_dir

if TYPE_CHECKING:
    from evalsvc.demo.run import Demo

app = typer.Typer()


@app.command(epilog="Example: evalsvc demo && evalsvc dashboard --db evalsvc-demo/evalsvc.duckdb")
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where models, store and report go.")] = Path("evalsvc-demo"),
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Show the main job, end to end, on tiny models that are trained on the spot: no network, some minutes."""
    with working(quiet) as (note, progress):
        from evalsvc.demo.run import run

        made = run(folder, workers=workers, note=note, progress=progress)
    _show_demo(made, folder / "report.html")


def _show_demo(made: Demo, page: Path) -> None:
    from evalsvc.analysis import stored
    from evalsvc.reports.frontier import frontier_table
    from evalsvc.store import arms

    store = open_store(made.store)
    show(frontier_table(stored.load_frontier(store, arms.find_family(store.arms(), made.base))))
    write_report(store, made.base, page)
    print(f"\nreport      {page}")
    print(f"dashboard   evalsvc dashboard --db {made.store}")
    label, policy = made.jobs[-1].arm.label, shared_dir("suites") / "policies" / "demo.yaml"
    print(f"one arm     evalsvc compare {label} --db {made.store}")
    print(f"gate        evalsvc gate {label} --policy {policy} --db {made.store}")
    exit_on_failures(made.jobs)
