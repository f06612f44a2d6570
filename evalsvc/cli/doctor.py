"""The command `doctor`."""

from __future__ import annotations

import typer

from evalsvc.cli.options import MANAGE, Address, Db, Json
from evalsvc.cli.output import print_report
from evalsvc.settings import default_db

app = typer.Typer()


@app.command(rich_help_panel=MANAGE, epilog="Example: evalsvc doctor --json")
def doctor(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Check this machine and the store.

    Versions, devices, threads, disk space, offline flags, whether the store can be used. Exit code 2 if a check
    fails.
    """
    from evalsvc.reports.environment import EnvironmentReport
    from evalsvc.scoring.environment import examine_environment

    checks = examine_environment(db or default_db())
    print_report(EnvironmentReport(tuple(checks)), as_json)
    if any(check.state == "bad" for check in checks):
        raise typer.Exit(2)
