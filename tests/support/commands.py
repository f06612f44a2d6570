"""The command line as tests use it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock


class Done(NamedTuple):
    """What a finished command left: its exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The answer of `--json`, as a strict parser reads it: JSON has neither NaN nor Infinity."""
        return json.loads(self.out, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


Run = Callable[..., Done]
"""What the fixture `evalsvc` is: call it with the words of a command."""


def run_command(*arguments: str | Path) -> Done:
    """Run a command in this process, as the installed script would."""
    from evalsvc import cli

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with mock.patch.object(sys, "argv", ["evalsvc", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def list_commands() -> list[list[str]]:
    """Return the words of every command."""
    import typer.main

    from evalsvc import cli

    group = typer.main.get_command(cli.app)
    commands = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        subcommands = getattr(command, "commands", None)
        commands += [[name, inner] for inner in subcommands] if subcommands else [[name]]
    return commands
