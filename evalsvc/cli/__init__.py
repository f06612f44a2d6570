"""The command line: parses arguments, calls `evalsvc.api`, prints, sets the exit code. Imports heavy packages lazily.

stdout has only the answer; progress and log go to stderr. Exit codes: 0 done, 1 internal error, 2 usage or
configuration, 3 gate: fail, 4 gate: inconclusive, 5 evidence missing or not comparable.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

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
from evalsvc.cli.options import MANAGE, SHARE
from evalsvc.errors import EvalsvcError

app = typer.Typer(
    name="evalsvc",
    epilog="Begin with: evalsvc demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
# The order of the help's panels is that of their first commands.
for part in (demo, submit, compare, trajectory, claims, gate, report):
    app.add_typer(part.app)
app.add_typer(import_results.app, name="import", rich_help_panel=SHARE)
app.add_typer(checkpoints.app, name="checkpoints", rich_help_panel=MANAGE)
app.add_typer(suites.app, name="suites", rich_help_panel=MANAGE)
app.add_typer(doctor.app)


def _print_version(is_given: bool) -> None:
    if is_given:
        from evalsvc import __version__

        print(f"evalsvc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Does your adapted checkpoint learn without forgetting?"""


def main() -> None:
    """Run the command line, and report every error as one line with an exit code."""
    try:
        if _print_help(sys.argv[1:]):
            sys.exit(0)
        gc.enable()
        sys.exit(app(prog_name="evalsvc", standalone_mode=False))
    except EvalsvcError as error:
        print(f"evalsvc: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's errors have no common base class across its versions
            _exit_with_usage(error)
        if os.environ.get("EVALSVC_DEBUG"):
            traceback.print_exc()
        hint = "set EVALSVC_DEBUG=1 for the traceback, and please report it"
        print(f"evalsvc: internal error: {type(error).__name__}: {error}; {hint}", file=sys.stderr)
        sys.exit(1)


def _print_help(arguments: Sequence[str]) -> bool:
    """Print a command's help if the arguments are its name and --help; typer itself would load pydantic for that."""
    if not arguments or arguments[-1] not in {"-h", "--help"}:
        return False
    command: Any = get_command(app)
    context = command.context_class(command, info_name="evalsvc", **command.context_settings)
    for name in arguments[:-1]:
        if name not in getattr(command, "commands", {}):
            return False
        command = command.commands[name]
        context = command.context_class(command, parent=context, info_name=name)
    print(command.get_help(context))
    return True


def _exit_with_usage(error: Any) -> NoReturn:
    """Print a usage error as one line; without a message, the help was printed."""
    if message := error.format_message().replace("Value error, ", "").removesuffix("."):
        command = error.ctx.command_path if error.ctx else "evalsvc"
        print(f"evalsvc: {message}; see `{command} --help`", file=sys.stderr)
    sys.exit(2)
