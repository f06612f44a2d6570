"""Commands about training runs: trajectory, continual."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc import api
from evalsvc.cli.options import UNDERSTAND, Address, Db, Json, Suites
from evalsvc.cli.output import print_report
from evalsvc.errors import EvidenceError

app = typer.Typer()


@app.command(rich_help_panel=UNDERSTAND, epilog="Example: evalsvc trajectory lora --margin 0.03")
def trajectory(
    name: Annotated[str | None, typer.Argument(help="A training run.", show_default="all")] = None,
    margin: Annotated[float, typer.Option(min=0, help="The largest forgetting tolerated.")] = 0.02,
    suite: Suites = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show a training run by step, compared with a margin.

    Shows every task's curve, the first step above the margin, and the best step below it.
    """
    report = api.trajectory(name, margin=margin, suites=suite, db=db, note=lambda text: typer.echo(text, err=True))
    print_report(report, as_json)


@app.command(
    rich_help_panel=UNDERSTAND, epilog="Example: evalsvc import matrix runs/*.json && evalsvc continual --json"
)
def continual(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show metrics of imported matrices: ACC, BWT, FWT, average forgetting.

    Also learning accuracy and intransigence, and the mean of each method over its runs.
    """
    from evalsvc.reports.continual import ContinualReport

    matrices = api.find_store(db).matrices()
    if not matrices:
        raise EvidenceError("the store has no matrix; run: evalsvc import matrix FILE.json")
    print_report(ContinualReport(tuple(matrices)), as_json)
