"""Which waivers of a policy apply to a checkpoint, and why others do not. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from evalsvc.gating.policy import WaiverEntry
from evalsvc.gating.rules import Rule

# ----------------------------------------------------------------------------------------------------------- waivers


def judge_waivers(
    entries: Sequence[WaiverEntry], rules: Sequence[Rule], checkpoint: str, today: date
) -> list[tuple[WaiverEntry, str]]:
    """Return each waiver with its state; only waivers with state "applied" waive a rule."""
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
    """Return the reason, owner and expiry of the waiver of each waived rule, by rule."""
    return {
        entry.waiver.rule: f"{entry.waiver.reason} ({entry.waiver.owner}, until {entry.waiver.expires})"
        for entry, state in judged
        if entry.waiver is not None and state == "applied"
    }
