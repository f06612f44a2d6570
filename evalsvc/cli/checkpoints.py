"""Commands about checkpoints: list, show, compare, check."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc import api
from evalsvc.cli.options import Address, BaseAnyway, Db, Device, Json, Quiet, Source
from evalsvc.cli.output import print_report, working
from evalsvc.settings import Compute

app = typer.Typer(help="List, show, compare and check checkpoints.", no_args_is_help=True)

Checkpoint = Annotated[str, typer.Argument(help="Folder, Hub id, or label, name or digest in the store.")]


@app.command("list", epilog="Example: evalsvc checkpoints list --json")
def list_checkpoints(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """List the checkpoints in the store, with their cost."""
    from evalsvc.reports.checkpoints import CheckpointsReport

    arms = api.find_store(db).arms()
    checkpoints = {arm.checkpoint.digest: arm.checkpoint for arm in arms}
    print_report(CheckpointsReport(tuple(checkpoints.values())), as_json)


@app.command(
    "show", epilog="Examples:\n\nevalsvc checkpoints show lora@400\n\nevalsvc checkpoints show runs/x --base m"
)
def show_checkpoint(
    checkpoint: Checkpoint,
    base: Source = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show a checkpoint's method, cost, findings and weight change.

    Shows stored results only; computes nothing.
    """
    from evalsvc.reports.checkpoints import InspectionReport, compare_command
    from evalsvc.scoring.inspect_checkpoint import read_checkpoint

    with working(quiet, resumes=False) as (_, progress):
        inspection = read_checkpoint(api.find_store(db), checkpoint, base, progress)
    print_report(InspectionReport(inspection, compare_command(checkpoint, base)), as_json)


@app.command(
    "compare", epilog="Examples:\n\nevalsvc checkpoints compare full@400\n\nevalsvc checkpoints compare runs/x --base m"
)
def compare_checkpoint(
    checkpoint: Checkpoint,
    base: Source = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a checkpoint's weights with its base's, and store the result.

    Reads all weights once.
    """
    from evalsvc.reports.checkpoints import InspectionReport
    from evalsvc.scoring.inspect_checkpoint import compare_weights

    with working(quiet, resumes=False) as (note, progress):
        inspection = compare_weights(api.find_store(db), checkpoint, base, progress, note)
    print_report(InspectionReport(inspection), as_json)


@app.command("check", epilog="Example: evalsvc checkpoints check runs/lora --base models/base --suite valley")
def check_checkpoint(
    checkpoint: Annotated[str, typer.Argument(help="Folder, training output folder, or Hub id@revision.")],
    base: Source = None,
    base_anyway: BaseAnyway = False,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Suite whose prompts must fit into the context window: name or file; repeatable."),
    ] = None,
    device: Device = "auto",
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a checkpoint as `submit` does before scoring.

    Exit code 2 if it would be refused.
    """
    from evalsvc.reports.checkpoints import CheckReport
    from evalsvc.scoring.inspect_checkpoint import check_checkpoints
    from evalsvc.scoring.submit import choose_numerics

    with working(quiet, resumes=False) as (note, progress):
        numerics = choose_numerics(Compute(device=device))
        checkpoints, findings = check_checkpoints(
            checkpoint, base, suite or (), numerics, progress, note, base_anyway=base_anyway
        )
    print_report(CheckReport(tuple(checkpoints), tuple(findings)), as_json)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(2)
