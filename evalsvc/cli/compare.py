"""Commands that read the store: results, compare, frontier."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc.cli.options import Address, Base, Db, Json
from evalsvc.cli.output import open_store, print_json, show

app = typer.Typer()


@app.command(epilog="Example: evalsvc results --arm lora@400 --suite clinic")
def results(
    arm: Annotated[str | None, typer.Option(help="Only this arm: label, name, path or digest.")] = None,
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show scores: of suites for all arms, of tasks for one arm or suite, of everything as JSON."""
    from evalsvc.reports import runs

    store = open_store(db)
    chosen = None
    if arm:
        from evalsvc.store.arms import find_arm

        chosen = find_arm(store.arms(), arm).number
    found = [
        result for result in store.results() if chosen in (None, result.arm.number) and suite in (None, result.suite)
    ]
    if as_json:
        print_json(runs.results_json(found))
    elif arm or suite:
        show(runs.results_table([result for result in found if result.primary or result.is_group]))
    else:
        show(runs.overview_table(found))


@app.command(epilog="Examples: evalsvc compare lora@400   |   evalsvc compare lora@400 --base full@400 --json")
def compare(
    arm: Annotated[str, typer.Argument(help="The adapted arm: label, name, path or digest.")],
    base: Annotated[str | None, typer.Option(help="Compare with this arm.", show_default="its own base")] = None,
    other_prompts: Annotated[
        bool, typer.Option("--other-prompts", help="Pair by document where the two arms had different prompts.")
    ] = False,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Compare an arm with its base, item by item: what was lost, what was gained, and how sure that is."""
    from evalsvc.analysis import stored
    from evalsvc.reports import comparison, formatting

    found = stored.compare_arms(open_store(db), arm, base, other_prompts)
    if as_json:
        print_json(comparison.compared_json(found))
    else:
        show(*comparison.comparison_tables(found), *comparison.detail_tables(found))
        print(formatting.LEVEL_NOTE)


@app.command(
    epilog="Examples: evalsvc frontier --base models/base --json   |   "
    "evalsvc frontier --axes learning,forgetting,gpu_hours --at-learning 0.3"
)
def frontier(
    base: Base = None,
    axes: Annotated[
        str,
        typer.Option(
            help="What dominance is about: learning, forgetting, gpu_hours, cpu_hours, train_tokens, "
            "peak_memory_gb, train_samples, annotation_cost, trainable_share, tokens_per_query."
        ),
    ] = "learning,forgetting",
    at_learning: Annotated[
        float | None, typer.Option(help="Compare methods' forgetting here.", show_default="as far as all get")
    ] = None,
    at_forgetting: Annotated[
        float | None, typer.Option(help="Compare methods' learning here.", show_default="as far as all get")
    ] = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show learning against forgetting for every arm of a base, and which arms no other arm dominates."""
    from evalsvc.analysis import stored
    from evalsvc.analysis.frontier import FrontierOptions, compare_methods, find_frontier
    from evalsvc.reports.frontier import frontier_json, frontier_table, frontier_tables
    from evalsvc.store import arms

    store = open_store(db)
    wish = FrontierOptions(tuple(name.strip() for name in axes.split(",")), at_learning, at_forgetting)
    plane = stored.load_plane(store, arms.find_family(store.arms(), base))
    found, equal = find_frontier(plane, wish), compare_methods(plane, wish)
    if as_json:
        print_json(frontier_json(found, equal))
    else:
        show(frontier_table(found), *frontier_tables(found, equal))
