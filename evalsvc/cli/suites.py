"""Commands about suites: list, show, check."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc.cli.options import AllowTaskCode, Json
from evalsvc.cli.output import print_json, show

app = typer.Typer(help="List, show and check suites.", no_args_is_help=True)


@app.command("list", epilog="Example: evalsvc suites list --json")
def list_suites(as_json: Json = False) -> None:
    """List the suites that come with evalsvc."""
    from evalsvc.harness.suites import shipped_suites
    from evalsvc.reports import suites

    found = list(shipped_suites())
    if as_json:
        print_json({"schema": 1, "suites": [suite.model_dump(mode="json") for suite in found]})
    else:
        show(suites.suites_table(found))


@app.command("show", epilog="Example: evalsvc suites show valley")
def show_suite(suite: Annotated[str, typer.Argument(help="Suite name or file.")], as_json: Json = False) -> None:
    """Show what a suite says."""
    from evalsvc.harness.suites import find_suite

    found = find_suite(suite)
    if as_json:
        print_json({"schema": 1, "suite": found.model_dump(mode="json"), "path": str(found.path)})
    else:
        print(f"# {found.path}\n{found.path.read_text(encoding='utf-8')}", end="")


@app.command("check", epilog="Example: evalsvc suites check suites/mine.yaml")
def check_suite(
    suite: Annotated[str, typer.Argument(help="Suite name or file.")],
    allow_task_code: AllowTaskCode = False,
    as_json: Json = False,
) -> None:
    """Load every task of a suite, check golds, metrics and filters, and say what margin its items can resolve."""
    from evalsvc.harness.suite_check import check
    from evalsvc.records.serialise import as_dict
    from evalsvc.reports import suites

    tasks = check(suite, allow_task_code=allow_task_code)
    if as_json:
        print_json({"schema": 1, "tasks": [as_dict(task) for task in tasks]})
    else:
        show(suites.check_table(tasks))
