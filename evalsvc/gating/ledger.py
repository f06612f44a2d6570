"""Which candidate a checkpoint is, according to the decisions in a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from evalsvc.gating.candidates import Candidate, list_tested_plans, place_candidate
from evalsvc.gating.policy import Policy
from evalsvc.records.choices import Half
from evalsvc.records.vocabulary import Ints
from evalsvc.store.decisions import Decisions, Record
from evalsvc.store.runs import Runs
from evalsvc.store.store import Store


def read_records(store: Store, base: str) -> list[Record]:
    """Return all decisions about arms of a base, oldest first.

    Args:
        base: Digest of its checkpoint.
    """
    return Decisions(store.path).chain(base) if store.path.is_file() else []


def find_candidate(
    store: Store,
    policy: Policy,
    records: Sequence[Record],
    *,
    base: str,
    adapted: str | None,
    plans: Mapping[str, str],
    documents: Mapping[str, Iterable[Ints]],
    half: Half | None = None,
    batch_size: int | None = None,
) -> Candidate:
    """Return which candidate on its evidence an arm is, or will be.

    Args:
        base, adapted: Keys of the two arms; None for an arm that is not known yet.
        plans: Suite by digest of the whole plan.
        documents: Numbers of the documents of each suite's tasks.

    Raises:
        PolicyError: A batch is declared too late, or as another size than before.
        EvidenceError: The declared batch is used up.
    """
    others = list_tested_plans(records) - plans.keys()
    overlaps: dict[str, frozenset[str]] = {}
    if others:
        runs = Runs(store.path)
        with runs.snapshot():
            for plan, suite in plans.items():
                if suite in documents:
                    overlaps[plan] = runs.find_overlaps(list(documents[suite]), others)
    return place_candidate(
        records,
        base=base,
        adapted=adapted,
        plans=plans,
        half=half,
        alpha=policy.alpha,
        batch_size=batch_size,
        overlaps=overlaps,
    )
