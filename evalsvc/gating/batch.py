"""The correction for a batch: several candidates tested on the same suites. Pure: no I/O.

The p-value of a policy is the largest of its rules' p-values (intersection-union test, Berger 1982); Holm's method
adjusts it for all candidates that were tested on the same evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evalsvc.errors import EvidenceError
from evalsvc.gating.verdict import BatchCorrection, Outcome, Verdict
from evalsvc.stats.multiplicity import holm


def compute_p_pass(outcome: Outcome) -> float | None:
    """Return the p-value of the whole policy; None if a rule that is not waived has none."""
    p_values = [rule.p_pass for rule in outcome.rules if rule.waived is None]
    known = [p for p in p_values if p is not None]
    return max(known) if known and len(known) == len(p_values) else None


def correct_for_batch(outcome: Outcome, others: Mapping[str, float | None], alpha: float) -> Outcome:
    """Return the outcome after Holm's correction over all candidates.

    Args:
        others: p-value of the whole policy of every other candidate, by checkpoint digest.

    Raises:
        EvidenceError: A candidate has no p-value.
    """
    p = compute_p_pass(outcome)
    known = {checkpoint: p_value for checkpoint, p_value in others.items() if p_value is not None}
    if p is None or len(known) < len(others):
        raise EvidenceError(
            "the batch correction needs p-values, and a candidate decided in mode group_sequential has none; "
            "decide on it again in mode fixed"
        )
    adjusted = float(holm([p, *known.values()])[0])
    verdict: Verdict = "inconclusive" if outcome.verdict == "pass" and adjusted > alpha else outcome.verdict
    return replace(outcome, verdict=verdict, batch=BatchCorrection(others=known, p=p, adjusted=adjusted))
