"""Claims -> tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from evalsvc.analysis.claims import DecidedClaim
from evalsvc.reports.formatting import SCHEMA, new_table


def claims_json(cards: Sequence[DecidedClaim]) -> dict[str, Any]:
    """Return claim cards as `claims --json` prints them."""
    return {"schema": SCHEMA, "claims": [asdict(card) for card in cards]}


def claims_table(cards: Sequence[DecidedClaim]) -> Table:
    """Show every claim with its verdict, the test that decided, and the numbers behind it."""
    table = new_table("Claims", "claim", "about", "verdict", "test", "because", "evidence")
    styles = {"supported": "bold green", "refuted": "bold red", "undecided": ""}
    for card in cards:
        verdict = Text(card.verdict, style=styles[card.verdict])
        table.add_row(card.text, card.about, verdict, card.test, card.reason, "\n".join(card.evidence))
    return table
