"""Commands about suites: list, show, check."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc.cli.options import AllowTaskCode, Json
from evalsvc.cli.output import print_report

app = typer.Typer(help="List, show and check suites.", no_args_is_help=True)

SuiteName = Annotated[str, typer.Argument(help="Suite name or file.")]


@app.command("list", epilog="Example: evalsvc suites list --json")
def list_suites(as_json: Json = False) -> None:
    """List the suites that come with evalsvc."""
    from evalsvc.harness.suites import shipped_suites
    from evalsvc.reports.suites import SuitesReport

    print_report(SuitesReport(tuple(shipped_suites())), as_json)


@app.command("show", epilog="Example: evalsvc suites show valley")
def show_suite(suite: SuiteName, as_json: Json = False) -> None:
    """Show a suite's file."""
    from evalsvc.harness.suites import find_suite
    from evalsvc.reports.suites import SuiteReport

    print_report(SuiteReport(find_suite(suite)), as_json)


@app.command("check", epilog="Example: evalsvc suites check suites/mine.yaml")
def check_suite(suite: SuiteName, allow_task_code: AllowTaskCode = False, as_json: Json = False) -> None:
    """Check a suite's tasks, and show the margin that their items resolve.

    Loads every task; checks gold answers, metrics and filters.
    """
    from evalsvc.harness.suite_check import check
    from evalsvc.reports.suites import SuiteCheckReport

    print_report(SuiteCheckReport(check(suite, allow_task_code=allow_task_code)), as_json)
