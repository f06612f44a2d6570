"""The command `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalsvc import api
from evalsvc.cli.options import RUN, Quiet, Workers
from evalsvc.cli.output import show, working
from evalsvc.settings import shared_dir

if TYPE_CHECKING:
    from evalsvc.demo.run import Demo

app = typer.Typer()


@app.command(rich_help_panel=RUN, epilog="Example: evalsvc demo && evalsvc dashboard --db evalsvc-demo/evalsvc.duckdb")
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Folder of models, store and report.")] = Path("evalsvc-demo"),
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Run everything once on tiny models; no network, some minutes.

    Trains a base, adapts it in five ways, scores all arms, and shows what each learned and forgot.
    """
    with working(quiet) as (note, progress):
        from evalsvc.demo.run import run

        result = run(folder, workers=workers, note=note, progress=progress)
    _show_demo(result, folder / "report.html")


def _show_demo(result: Demo, page: Path) -> None:
    from evalsvc.reports.frontier import points_table
    from evalsvc.reports.html import write_report
    from evalsvc.reports.runs import RunsReport

    store = api.find_store(result.store)
    show(points_table(api.frontier(result.base, db=store).frontier))
    write_report(store, result.base, page)
    print(f"\nreport      {page}")
    print(f"dashboard   evalsvc dashboard --db {result.store}")
    label, policy = result.jobs[-1].arm.label, shared_dir("suites") / "policies" / "demo.yaml"
    print(f"one arm     evalsvc compare {label} --db {result.store}")
    print(f"gate        evalsvc gate {label} --policy {policy} --db {result.store}")
    RunsReport.of_jobs(store.runs(), result.jobs).raise_for_failures()
