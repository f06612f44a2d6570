"""Commands that read the store: results, compare, frontier."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc import api
from evalsvc.cli.options import UNDERSTAND, Address, Arm, Base, Db, Json, Suites
from evalsvc.cli.output import print_report

app = typer.Typer()


@app.command(rich_help_panel=UNDERSTAND, epilog="Example: evalsvc results --arm lora@400 --suite clinic")
def results(
    arm: Annotated[str | None, typer.Option(help="Only this arm: label, name, path or digest.")] = None,
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show the scores of suites and tasks.

    By suite; by task with --arm or --suite; every metric with --json.
    """
    print_report(api.results(arm, suite, db=db), as_json)


@app.command(
    rich_help_panel=UNDERSTAND,
    epilog="Examples:\n\nevalsvc compare lora@400\n\nevalsvc compare lora@400 --base full@400 --json",
)
def compare(
    arm: Arm,
    base: Annotated[str | None, typer.Option(help="Compare with this arm.", show_default="its own base")] = None,
    other_prompts: Annotated[
        bool, typer.Option("--other-prompts", help="Pair by document if the two arms had different prompts.")
    ] = False,
    suite: Suites = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Compare an arm with its base, item by item.

    Shows lost and gained items, difference and interval per task, and the mean of each role.
    """
    print_report(api.compare(arm, base, other_prompts=other_prompts, suites=suite, db=db), as_json)


@app.command(
    rich_help_panel=UNDERSTAND,
    epilog="Examples:\n\nevalsvc frontier --base models/base --json\n\n"
    "evalsvc frontier --axes learning,forgetting,gpu_hours --at-learning 0.3",
)
def frontier(
    base: Base = None,
    axes: Annotated[
        str,
        typer.Option(
            help="Axes of dominance: learning, forgetting, gpu_hours, cpu_hours, train_tokens, "
            "peak_memory_gb, train_samples, annotation_cost, trainable_share, tokens_per_query."
        ),
    ] = "learning,forgetting",
    at_learning: Annotated[
        float | None,
        typer.Option(
            help="Compare methods' forgetting at this learning.",
            show_default="the highest all reach in 95 % of resamples",
        ),
    ] = None,
    at_forgetting: Annotated[
        float | None,
        typer.Option(help="Compare methods' learning at this forgetting.", show_default="the highest all reach"),
    ] = None,
    suite: Suites = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show learning and forgetting of all arms of a base.

    Arms that no other arm dominates are marked.
    """
    report = api.frontier(base, axes=axes, at_learning=at_learning, at_forgetting=at_forgetting, suites=suite, db=db)
    print_report(report, as_json)
