"""The command line: parse, call, print, choose the exit code. Imports nothing heavy before a command needs it.

stdout carries the answer only; progress and log go to stderr. Exit codes: 0 done, 1 internal error, 2 usage or
configuration, 3 gate: fail, 4 gate: inconclusive, 5 evidence missing or not comparable.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer

from evalsvc.cli import (
    checkpoints,
    claims,
    compare,
    demo,
    doctor,
    gate,
    import_results,
    report,
    submit,
    suites,
    trajectory,
)
from evalsvc.errors import EvalsvcError

app = typer.Typer(
    name="evalsvc",
    help="Does your adapted checkpoint learn without forgetting? Paired learning and forgetting, with error bars.",
    epilog="Begin with: evalsvc demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (demo, submit, compare, trajectory, claims, gate, report, doctor):
    app.add_typer(part.app)
app.add_typer(suites.app, name="suites")
app.add_typer(import_results.app, name="import")
app.add_typer(checkpoints.app, name="checkpoints")


def main() -> None:
    """Run the command line, and turn every error into one line and an exit code."""
    try:
        app()
    except EvalsvcError as error:
        print(f"evalsvc: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if os.environ.get("EVALSVC_DEBUG"):
            traceback.print_exc()
        hint = "set EVALSVC_DEBUG=1 for the traceback, and please report it"
        print(f"evalsvc: internal error: {type(error).__name__}: {error}; {hint}", file=sys.stderr)
        sys.exit(1)
