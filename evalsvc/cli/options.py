"""Options that several commands share, and the forwarding of a command to a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def _forward(address: str | None) -> None:
    """Run this very command on a cluster instead, if one is named."""
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
        help="Run on this Ray cluster's head (http://head:8265); paths are the head's then.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Base = Annotated[str | None, typer.Option("--base", help="The base: label, name, path or digest.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Ray workers; 0 scores in this process.", show_default="one per GPU or core"),
]
Device = Annotated[str, typer.Option(help="Where scoring runs: auto, cpu, cuda or mps.")]
Dtype = Annotated[str, typer.Option(help="auto (float32 on CPU, else bfloat16), float32, bfloat16, float16.")]
AllowTaskCode = Annotated[bool, typer.Option("--allow-task-code", help="Run Python code beside tasks.")]
