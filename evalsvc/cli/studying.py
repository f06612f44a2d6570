"""Commands that study what the store has: trajectory, continual, diversity, drift, claims."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc.cli.options import Address, Base, Db, Json
from evalsvc.cli.output import open_store, print_json, show
from evalsvc.errors import EvidenceError

app = typer.Typer()


@app.command(epilog="Example: evalsvc trajectory lora --margin 0.03")
def trajectory(
    name: Annotated[str | None, typer.Argument(help="A training run.", show_default="all")] = None,
    margin: Annotated[float, typer.Option(min=0, help="The largest forgetting tolerated.")] = 0.02,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show a training run step by step: curves, the first step that breaks the margin, the best that keeps it."""
    from evalsvc import curves, studies

    found = studies.followed(open_store(db), name, margin, note=lambda text: typer.echo(text, err=True))
    if not found:
        raise EvidenceError("the store has no training run; submit a folder with checkpoint-* or step_* inside")
    if as_json:
        print_json(curves.trajectories_json(found))
    else:
        show(*(table for one in found for table in curves.trajectory_tables(one)))


@app.command(epilog="Example: evalsvc import matrix runs/*.json && evalsvc continual --json")
def continual(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show imported matrices as the continual-learning family: ACC, BWT, FWT, average forgetting, intransigence."""
    from evalsvc import curves

    found = open_store(db).matrices()
    if not found:
        raise EvidenceError("the store has no matrix; bring one in: evalsvc import matrix FILE.json")
    if as_json:
        print_json(curves.matrices_json(found))
    else:
        show(*curves.matrices_tables(found))


@app.command(epilog="Example: evalsvc diversity lora@400")
def diversity(
    arm: Annotated[str, typer.Argument(help="The adapted arm: label, name, path or digest.")],
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Compare an arm's sampled answers to open prompts with its base's: has its output collapsed?"""
    from evalsvc import details, studies

    found = studies.diversity(open_store(db), arm)
    if as_json:
        print_json(details.diversity_json(arm, found))
    else:
        show(*details.diversity_tables(arm, found))


@app.command(epilog="Example: evalsvc drift --base models/base --json")
def drift(base: Base = None, db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show how far arms moved from their base (KL per token), and whether that predicts what they forgot."""
    from evalsvc import details, service, studies

    store = open_store(db)
    found, card = studies.drifted(store, service.find_family(store, base))
    if as_json:
        print_json(details.drift_json(found, card))
    else:
        show(details.drift_table(found), details.claims_table([card]))


@app.command(epilog="Example: evalsvc claims --base models/base --json")
def claims(
    base: Base = None,
    margin: Annotated[float, typer.Option(min=0, help="The fall that a refutation excludes.")] = 0.02,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Decide common claims about adaptation on the stored arms: supported, refuted or undecided, and by which test."""
    from evalsvc import details, studies

    found = studies.claims(open_store(db), base, margin)
    if as_json:
        print_json(details.claims_json(found))
    else:
        show(details.claims_table(found))
