"""Commands about behaviour beyond accuracy: diversity, drift, claims."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc.cli.options import Address, Base, Db, Json
from evalsvc.cli.output import open_store, print_json, show

app = typer.Typer()


@app.command(epilog="Example: evalsvc diversity lora@400")
def diversity(
    arm: Annotated[str, typer.Argument(help="The adapted arm: label, name, path or digest.")],
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Compare an arm's sampled answers to open prompts with its base's: has its output collapsed?"""
    from evalsvc.analysis import stored_drift
    from evalsvc.reports import diversity_and_drift

    found = stored_drift.compare_diversity(open_store(db), arm)
    if as_json:
        print_json(diversity_and_drift.diversity_json(arm, found))
    else:
        show(*diversity_and_drift.diversity_tables(arm, found))


@app.command(epilog="Example: evalsvc drift --base models/base --json")
def drift(base: Base = None, db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show how far arms moved from their base (KL per token), and whether that predicts what they forgot."""
    from evalsvc.analysis import stored_drift
    from evalsvc.reports import claims, diversity_and_drift
    from evalsvc.store import arms

    store = open_store(db)
    found, card = stored_drift.load_drift(store, arms.find_family(store.arms(), base))
    if as_json:
        print_json(diversity_and_drift.drift_json(found, card))
    else:
        show(diversity_and_drift.drift_table(found), claims.claims_table([card]))


@app.command(epilog="Example: evalsvc claims --base models/base --json")
def claims(
    base: Base = None,
    margin: Annotated[float, typer.Option(min=0, help="The fall that a refutation excludes.")] = 0.02,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Decide common claims about adaptation on the stored arms: supported, refuted or undecided, and by which test."""
    from evalsvc.analysis import stored_claims
    from evalsvc.reports.claims import claims_json, claims_table

    found = stored_claims.decide_stored_claims(open_store(db), base, margin)
    if as_json:
        print_json(claims_json(found))
    else:
        show(claims_table(found))
