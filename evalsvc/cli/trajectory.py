"""Commands about training runs: trajectory, continual."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc.cli.options import Address, Db, Json
from evalsvc.cli.output import open_store, print_json, show
from evalsvc.errors import EvidenceError

app = typer.Typer()


@app.command(epilog="Example: evalsvc trajectory lora --margin 0.03")
def trajectory(
    name: Annotated[str | None, typer.Argument(help="A training run.", show_default="all")] = None,
    margin: Annotated[float, typer.Option(min=0, help="The largest forgetting tolerated.")] = 0.02,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show a training run step by step: curves, the first step that breaks the margin, the best that keeps it."""
    from evalsvc.analysis import training_runs
    from evalsvc.reports import trajectories

    found = training_runs.follow_runs(open_store(db), name, margin, note=lambda text: typer.echo(text, err=True))
    if not found:
        raise EvidenceError("the store has no training run; submit a folder with checkpoint-* or step_* inside")
    if as_json:
        print_json(trajectories.trajectories_json(found))
    else:
        show(*(table for one in found for table in trajectories.trajectory_tables(one)))


@app.command(epilog="Example: evalsvc import matrix runs/*.json && evalsvc continual --json")
def continual(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show imported matrices as the continual-learning family: ACC, BWT, FWT, average forgetting, intransigence."""
    from evalsvc.reports.continual import matrices_json, matrices_tables

    found = open_store(db).matrices()
    if not found:
        raise EvidenceError("the store has no matrix; bring one in: evalsvc import matrix FILE.json")
    if as_json:
        print_json(matrices_json(found))
    else:
        show(*matrices_tables(found))
