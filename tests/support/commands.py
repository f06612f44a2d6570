"""The command line as tests use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple


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
