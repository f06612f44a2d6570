"""Options of several commands, panels of the help, and forwarding of commands to a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from evalsvc import settings
from evalsvc.records.choices import TemplateSource

RUN, UNDERSTAND, DECIDE, SHARE, MANAGE = "Run", "Understand", "Decide", "Share", "Manage"
"""Panels of `evalsvc --help`."""


def _forward(address: str | None) -> None:
    """Run this command on a cluster instead, if an address is given."""
    if not address:
        return
    from evalsvc.scoring.remote import run_remotely

    arguments = iter(sys.argv[1:])
    kept = [a for a in arguments if not (a.startswith("--address=") or (a == "--address" and next(arguments, None)))]
    raise typer.Exit(run_remotely(address, kept, answer=sys.stdout, log=sys.stderr))


Db = Annotated[
    Path | None, typer.Option("--db", envvar="EVALSVC_DB", help="The store's file.", show_default="evalsvc.duckdb")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="EVALSVC_ADDRESS",
        is_eager=True,
        callback=_forward,
        help="Run on the head node of this Ray cluster (http://head:8265); paths are on that node.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Arm = Annotated[str, typer.Argument(help="The adapted arm: label, name, path or digest.")]
Base = Annotated[str | None, typer.Option("--base", help="The base: label, name, path or digest.")]
Suites = Annotated[
    list[str] | None,
    typer.Option("--suite", help="Only this suite; repeatable.", show_default="those that are shared"),
]
Source = Annotated[str | None, typer.Option("--base", help="Its base: folder or Hub id.")]
BaseAnyway = Annotated[
    bool, typer.Option("--base-anyway", help="Attach an adapter to this base even if it names another one.")
]
Rendering = Annotated[
    TemplateSource | None,
    typer.Option("--rendering", help="Whose chat template renders all prompts, if base and checkpoint differ."),
]
Method = Annotated[str | None, typer.Option(help="How it was adapted: full, lora, qlora, cpt, ...")]
Step = Annotated[int | None, typer.Option(min=0, help="Training step.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the training run.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Ray workers; 0 scores in this process.", show_default="one per GPU or core"),
]
Device = Annotated[settings.Device, typer.Option(help="Device for scoring.")]
Dtype = Annotated[settings.Dtype, typer.Option(help="Number format; auto: float32 on CPU, else bfloat16.")]
AllowTaskCode = Annotated[bool, typer.Option("--allow-task-code", help="Allow tasks to run their own Python code.")]
