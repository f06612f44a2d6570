"""The command `doctor`."""

from __future__ import annotations

import typer

from evalsvc.cli.options import Address, Db, Json
from evalsvc.cli.output import print_json, show
from evalsvc.settings import default_db

app = typer.Typer()


@app.command(epilog="Example: evalsvc doctor --json")
def doctor(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Say what works on this machine: versions, devices, threads, disk, offline flags, the store."""
    from evalsvc.reports import environment
    from evalsvc.scoring.environment import examine_environment

    findings = examine_environment(db or default_db())
    if as_json:
        print_json({"schema": 1, "findings": [finding._asdict() for finding in findings]})
    else:
        show(environment.findings_table(findings))
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
