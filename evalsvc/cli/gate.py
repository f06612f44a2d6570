"""The commands `gate` and `verify`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from evalsvc import api
from evalsvc.cli.options import (
    DECIDE,
    Address,
    AllowTaskCode,
    BaseAnyway,
    Db,
    Device,
    Dtype,
    Json,
    Quiet,
    Rendering,
    Workers,
)
from evalsvc.cli.output import print_report, working
from evalsvc.errors import EvalsvcError, UsageError
from evalsvc.records.choices import Half

app = typer.Typer()

Checkpoint = Annotated[
    str | None, typer.Argument(help="The adapted arm: label, name, path or digest.", show_default=False)
]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Instead of CHECKPOINT: training runs of this name, a shell pattern such as 'lora-*'; the verdict is "
        "about the mean over at least 3 seeds.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of candidates to test on this evidence, declared before the first: each at alpha / N.",
        show_default="the k-th at alpha * 6 / (pi k)^2",
    ),
]


@app.command(
    rich_help_panel=DECIDE,
    epilog="Examples:\n\nevalsvc gate lora@400 --policy policy.yaml --junit gate.xml\n\n"
    "evalsvc gate runs/lora --policy policy.yaml --base models/base --evaluate\n\n"
    "evalsvc gate lora@400 --policy policy.yaml --plan\n\n"
    "evalsvc gate --recipe 'lora-*' --policy policy.yaml",
)
def gate(
    policy: Annotated[Path, typer.Option(help="YAML file with the rules that it must meet.")],
    checkpoint: Checkpoint = None,
    recipe: Recipe = None,
    base: Annotated[str | None, typer.Option(help="Compare with this arm.", show_default="its own base")] = None,
    base_anyway: BaseAnyway = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the power analysis only; no decision.")] = False,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Score what is missing first; CHECKPOINT may be new.")
    ] = False,
    suite: Annotated[
        list[str] | None, typer.Option(help="File of a suite that is not in the store; repeatable.")
    ] = None,
    rendering: Rendering = None,
    batch_size: BatchSize = None,
    half: Annotated[
        Half | None, typer.Option(help="Use one seeded half of the items: select on one, confirm on the other.")
    ] = None,
    incumbent: Annotated[
        str | None, typer.Option(help="The arm that is served now, for a policy with an `incumbent` rule.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown to this file.")] = None,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_task_code: AllowTaskCode = False,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decide whether a checkpoint, or a recipe, may be promoted.

    Exit code 0 pass, 3 fail, 4 inconclusive, 5 evidence missing or not comparable. With --plan 0, or 4 if a rule
    cannot pass.
    """
    with _write_refusals(checkpoint or recipe or "", junit, markdown):
        name = _choose_name(checkpoint, recipe, plan)
        if plan:
            power = api.plan_gate(
                name,
                policy,
                base=base,
                suites=suite or (),
                batch_size=batch_size,
                half=half,
                incumbent=incumbent,
                db=db,
            )
            print_report(power, as_json)
            raise typer.Exit(power.exit_code)
        with working(quiet or not evaluate) as (note, progress):
            report = api.gate(
                name,
                policy,
                base=base,
                base_anyway=base_anyway,
                evaluate=evaluate,
                suites=suite or (),
                rendering=rendering,
                batch_size=batch_size,
                half=half,
                incumbent=incumbent,
                recipe=recipe is not None,
                workers=workers,
                device=device,
                dtype=dtype,
                allow_task_code=allow_task_code,
                db=db,
                progress=progress,
                note=note,
            )
    from evalsvc.reports import ci

    _write_files(junit, markdown, ci.write_junit(report.decision), ci.write_markdown(report.decision))
    print_report(report, as_json)
    raise typer.Exit(report.exit_code)


def _choose_name(checkpoint: str | None, recipe: str | None, plan: bool) -> str:
    """Return the name of the checkpoint or the recipe."""
    if plan and recipe is not None:
        raise UsageError("--plan: analyses the items of one checkpoint; leave out --recipe, and name one of its runs")
    name = recipe if checkpoint is None else checkpoint
    if name is None or (checkpoint is not None and recipe is not None):
        raise UsageError("evalsvc gate: name either a checkpoint or, with --recipe, training runs")
    return name


@contextmanager
def _write_refusals(checkpoint: str, junit: Path | None, markdown: Path | None) -> Iterator[None]:
    """Write the error to the JUnit and Markdown files if there is no verdict."""
    try:
        yield
    except EvalsvcError as error:
        from evalsvc.reports import ci

        text = str(error)
        xml, summary = ci.write_refusal_junit(checkpoint, text), ci.write_refusal_markdown(checkpoint, text)
        _write_files(junit, markdown, xml, summary)
        raise


def _write_files(junit: Path | None, markdown: Path | None, xml: str, text: str) -> None:
    """Write the JUnit and Markdown files, and append to the summary of a CI job, if there is one."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    for path, content, mode in (
        (junit, xml, "w"),
        (markdown, text, "w"),
        (Path(summary) if summary else None, text, "a"),
    ):
        if path is not None:
            try:
                with path.open(mode, encoding="utf-8") as file:
                    file.write(content)
            except OSError as error:
                raise EvalsvcError(f"{path}: cannot be written: {error.strerror}") from error


@app.command(rich_help_panel=DECIDE, epilog="Example: evalsvc verify evalsvc.duckdb.decisions/0f3c5a9e11d27b64.json")
def verify(
    decision: Annotated[Path, typer.Argument(help="The file of a decision record.")],
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Recompute a decision from the stored scores.

    Exit code 0 if it holds, 5 if anything differs.
    """
    report = api.verify(decision, db=db)
    print_report(report, as_json)
    if not report.is_equal:
        raise typer.Exit(5)
