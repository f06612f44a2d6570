"""Commands about checkpoints: list, show, compare, check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from evalsvc.cli.options import Address, Db, Device, Json, Quiet
from evalsvc.cli.output import open_store, print_json, show, working
from evalsvc.settings import Compute

if TYPE_CHECKING:
    from evalsvc.scoring.inspect_checkpoint import CheckpointReport

app = typer.Typer(help="List, show, compare and check checkpoints.", no_args_is_help=True)

Named = Annotated[str, typer.Argument(help="Folder, hub id, or label, name or digest in the store.")]
Adapted = Annotated[str | None, typer.Option("--base", help="What it was adapted from: folder or hub id.")]


@app.command("list", epilog="Example: evalsvc checkpoints list --json")
def list_checkpoints(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """List the checkpoints in the store, with what they cost."""
    from evalsvc.reports import checkpoints

    arms = open_store(db).arms()
    found = list({arm.checkpoint.digest: arm.checkpoint for arm in arms}.values())
    if as_json:
        print_json(checkpoints.checkpoints_json(found))
    else:
        show(checkpoints.checkpoints_table(found))


@app.command(
    "show", epilog="Examples: evalsvc checkpoints show lora@400   |   evalsvc checkpoints show runs/x --base m"
)
def show_checkpoint(
    checkpoint: Named,
    base: Adapted = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what is known of a checkpoint: method, cost, findings, changes in its weights. Only reads."""
    from evalsvc.reports.checkpoints import compare_command
    from evalsvc.scoring.inspect_checkpoint import read_checkpoint

    with working(quiet) as (_, progress):
        report = read_checkpoint(open_store(db), checkpoint, base, progress)
    _print_report(report, as_json, compare_command(checkpoint, base))


@app.command(
    "compare", epilog="Examples: evalsvc checkpoints compare full@400   |   evalsvc checkpoints compare runs/x --base m"
)
def compare_checkpoint(
    checkpoint: Named,
    base: Adapted = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a checkpoint's weights with its base's, tensor by tensor, and keep the result; reads all weights once."""
    from evalsvc.scoring.inspect_checkpoint import compare_weights

    with working(quiet) as (note, progress):
        report = compare_weights(open_store(db), checkpoint, base, progress, note)
    _print_report(report, as_json)


def _print_report(report: CheckpointReport, as_json: bool, command: str = "") -> None:
    from evalsvc.reports import checkpoints

    parts = (report.checkpoint, report.change, report.memory, report.findings)
    if as_json:
        print_json(checkpoints.dossier_json(*parts))
    else:
        show(*checkpoints.dossier_tables(*parts, command))


@app.command("check", epilog="Example: evalsvc checkpoints check runs/lora --base models/base --suite valley")
def check_checkpoint(
    checkpoint: Annotated[str, typer.Argument(help="Folder, training output folder, or hub id[@rev].")],
    base: Adapted = None,
    suite: Annotated[
        list[str] | None, typer.Option(help="Suite whose prompts have to fit: name or file; repeatable.")
    ] = None,
    device: Device = "auto",
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a checkpoint as `submit` does, before anything is scored; exits with 2 if it would be refused."""
    from evalsvc.reports import checkpoints
    from evalsvc.scoring.inspect_checkpoint import check_checkpoints
    from evalsvc.scoring.submit import choose_numerics

    with working(quiet) as (note, progress):
        numerics = choose_numerics(Compute(device=device))
        looked_at, findings = check_checkpoints(checkpoint, base, suite or (), numerics, progress, note)
    if as_json:
        print_json(checkpoints.findings_json(findings, looked_at))
    else:
        show(checkpoints.findings_table(findings, looked_at))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(2)
