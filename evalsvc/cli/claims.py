"""Commands about diversity, drift and claims."""

from __future__ import annotations

from typing import Annotated

import typer

from evalsvc import api
from evalsvc.cli.options import UNDERSTAND, Address, Arm, Base, Db, Json, Suites
from evalsvc.cli.output import print_report

app = typer.Typer()


@app.command(rich_help_panel=UNDERSTAND, epilog="Example: evalsvc diversity lora@400")
def diversity(arm: Arm, db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Compare the diversity of sampled answers with the base's."""
    from evalsvc.analysis.stored_drift import compare_diversity
    from evalsvc.reports.diversity_and_drift import DiversityReport

    print_report(DiversityReport(arm, tuple(compare_diversity(api.find_store(db), arm))), as_json)


@app.command(rich_help_panel=UNDERSTAND, epilog="Example: evalsvc drift --base models/base --json")
def drift(base: Base = None, db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show the token drift of arms from their base (KL per token).

    Also tests whether drift predicts forgetting.
    """
    from evalsvc.analysis.stored_drift import load_drift
    from evalsvc.reports.diversity_and_drift import DriftReport
    from evalsvc.store.arms import find_family

    store = api.find_store(db)
    arms, claim = load_drift(store, find_family(store.arms(), base))
    print_report(DriftReport(tuple(arms), claim), as_json)


@app.command(rich_help_panel=UNDERSTAND, epilog="Example: evalsvc claims --base models/base --json")
def claims(
    base: Base = None,
    margin: Annotated[float, typer.Option(min=0, help="The drop that a refutation must exclude.")] = 0.02,
    suite: Suites = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Test common claims about adaptation on the stored arms.

    Each is supported, refuted or undecided, with the test behind the verdict.
    """
    from evalsvc.analysis.stored_claims import decide_stored_claims
    from evalsvc.reports.claims import ClaimsReport

    print_report(ClaimsReport(tuple(decide_stored_claims(api.find_store(db), base, margin, suite))), as_json)
