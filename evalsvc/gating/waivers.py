"""Which waivers of a policy apply to a checkpoint, and why the others do not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from evalsvc.gating.policy import WaiverEntry
from evalsvc.gating.rules import Rule

# ----------------------------------------------------------------------------------------------------------- waivers


def judge_waivers(
    entries: Sequence[WaiverEntry], rules: Sequence[Rule], checkpoint: str, today: date
) -> list[tuple[WaiverEntry, str]]:
    """Return each waiver with what became of it; only "applied" waives."""
    names = {rule.name for rule in rules}
    judged = []
    for entry in entries:
        waiver = entry.waiver
        if waiver is None:
            state = f"not understood: {entry.problem}"
        elif waiver.rule not in names:
            state = f"the policy has no rule {waiver.rule!r}"
        elif waiver.checkpoint != checkpoint:
            state = "for another checkpoint"
        elif waiver.expires < today:
            state = f"expired on {waiver.expires}"
        else:
            state = "applied"
        judged.append((entry, state))
    return judged


def describe_waivers(judged: Iterable[tuple[WaiverEntry, str]]) -> dict[str, str]:
    """Return, by rule, why it is waived, who says so and until when."""
    return {
        entry.waiver.rule: f"{entry.waiver.reason} ({entry.waiver.owner}, until {entry.waiver.expires})"
        for entry, state in judged
        if entry.waiver is not None and state == "applied"
    }
