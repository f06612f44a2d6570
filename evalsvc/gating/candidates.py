"""Candidates in turn: the level at which each of several candidates on the same evidence is tested. Pure: no I/O.

Of the candidates that are tested on a plan, the k-th is tested at alpha * 6 / (pi k)^2, or at alpha / N if a batch of N
was declared before the first. Their levels add up to at most alpha, so that is also the probability that any candidate
at a margin passes. Candidates are counted per base and documents, whatever the policy says: another margin, another
selection of suites, another name of a suite or another version of it with documents that were used before is no new
evidence. The whole of a suite contains both of its halves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args

from evalsvc.errors import EvidenceError, PolicyError
from evalsvc.gating.policy import Policy
from evalsvc.records.choices import Half
from evalsvc.stats.multiplicity import share_alpha

Piece = tuple[str, str]
"""Digest of a whole plan, and one half of its items: the evidence on which candidates are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Which candidate a checkpoint is on its evidence, and the level at which it is tested.

    Attributes:
        number: k: 1 for the first candidate; testing the same one again does not change it.
        seen: Number of candidates that were tested on this evidence, with this one.
        batch_size: Number of candidates that was declared before the first; None if none was.
        alpha: The level of this candidate's tests and of its intervals.
    """

    number: int
    seen: int
    batch_size: int | None
    alpha: float


def at_level(policy: Policy, candidate: Candidate) -> Policy:
    """Return the policy with the level of a candidate."""
    return policy.model_copy(update={"alpha": candidate.alpha})


def list_pieces(plans: Sequence[str], half: Half | None) -> list[Piece]:
    """Return the evidence that plans are, or one half of their items."""
    return [(plan, part) for plan in plans for part in ((half,) if half else get_args(Half))]


def place_candidate(
    records: Sequence[Mapping[str, Any]],
    *,
    base: str,
    adapted: str | None,
    plans: Mapping[str, str],
    half: Half | None,
    alpha: float,
    batch_size: int | None,
    overlaps: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Candidate:
    """Return which candidate an arm is, given all decision records about arms of its base, oldest first.

    Args:
        base, adapted: Keys of the two arms; None for an arm that is not known yet.
        plans: Suite by digest of the whole plan.
        alpha: Level of the policy, which all candidates share.
        batch_size: Number of candidates declared now; None keeps what was declared before.
        overlaps: Digests of other plans with the same documents, by digest of the whole plan.

    Raises:
        PolicyError: A batch is declared too late, or as another size than before.
        EvidenceError: The declared batch is used up.
    """
    histories: dict[Piece, list[Mapping[str, Any]]] = {piece: [] for piece in list_pieces(list(plans), half)}
    for record in records:
        if record["base"]["key"] == base:
            tested = set(_list_record_pieces(record))
            for (plan, part), history in histories.items():
                if any((same, part) in tested for same in (plan, *overlaps.get(plan, ()))):
                    history.append(record)
    placed = [
        _place_on_piece(history, adapted, alpha, batch_size, plans[plan]) for (plan, _), history in histories.items()
    ]
    if not placed:  # a policy about nothing that was planned
        return Candidate(number=1, seen=1, batch_size=batch_size, alpha=share_alpha(alpha, 1, batch_size))
    return min(placed, key=lambda candidate: (candidate.alpha, -candidate.seen))


def list_tested_plans(records: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the digests of the whole plans that decisions rest on."""
    return {plan for record in records for plan, _ in _list_record_pieces(record)}


def _place_on_piece(
    history: Sequence[Mapping[str, Any]], adapted: str | None, alpha: float, batch_size: int | None, suite: str
) -> Candidate:
    """Return which candidate an arm is on one piece of evidence, given the decisions that rest on it."""
    tested = list(dict.fromkeys(record["checkpoint"]["key"] for record in history))
    declared = (history[0].get("candidate") or {}).get("batch_size") if history else batch_size
    if batch_size is not None and declared != batch_size:
        before = "no batch was declared" if declared is None else f"a batch of {declared} was declared"
        raise PolicyError(
            f"--batch-size {batch_size}: {before} before the first of {len(tested)} candidates on suite {suite!r}; "
            "leave --batch-size out, or use items that no candidate was tested on"
        )
    number = tested.index(adapted) + 1 if adapted in tested else len(tested) + 1
    if declared is not None and number > declared:
        raise EvidenceError(
            f"suite {suite!r}: the batch of {declared} candidates that was declared is used up, and this is another "
            "candidate; use items that no candidate was tested on"
        )
    return Candidate(
        number=number,
        seen=max(number, len(tested)),
        batch_size=declared,
        alpha=share_alpha(alpha, number, declared),
    )


def _list_record_pieces(record: Mapping[str, Any]) -> list[Piece]:
    """Return the evidence that a decision rests on."""
    plans = [suite["part_of"] or suite["plan"] for suite in record["suites"]]
    return list_pieces([*plans, *record.get("sampled", ())], record["half"])


def describe_candidate(candidate: Mapping[str, Any], alpha: float, *, is_next: bool = False) -> str:
    """Return which candidate is tested at which level, in words.

    Args:
        candidate: The fields of a `Candidate`.
        alpha: Level of the policy.
        is_next: Whether it is not tested yet, so that a batch may still be declared before the first.
    """
    number, seen, size = (candidate[key] for key in ("number", "seen", "batch_size"))
    share = f"{alpha:g} / {size}" if size else f"{alpha:g} * 6 / (pi * {number})^2"
    line = f"candidate {number} on these items, {seen} seen, "
    line += f"batch of {size} declared" if size else "no batch declared"
    line += f": tested at alpha {candidate['alpha']:.3g} = {share}"
    if is_next and number == seen == 1 and not size:
        line += f"; --batch-size N before the first tests each of N at {alpha:g} / N"
    return line
