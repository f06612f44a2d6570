"""False passes and power of the gate on evidence as people have it: documents, clusters, formats, partial scores.

Run by hand: python -m tests.benchmarks.evidence_error_rates. Takes hours. Prints for each kind of evidence the share of
gates that pass with the truth at the margin (at most alpha), the share that passes an unchanged checkpoint (power), and
the share that has no interval (refused). Mode finite_pool decides about its own items: there a pass is false if the
mean change of these items is at the margin or below, and the share is one of such pools. Ends with exit code 1 if false
passes exceed alpha by over two standard errors. `--only TEXT` takes cells whose name contains it, `--mode` one mode.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import get_args

import numpy as np

from evalsvc.analysis.units import list_items
from evalsvc.errors import EvidenceError
from evalsvc.gating import sequential, verdict
from evalsvc.gating.policy import Policy
from evalsvc.gating.rules import Mask, TaskPair, build_rules
from evalsvc.records.choices import Half
from tests.support.dependent_evidence import CELLS, Cell, draw_pairs, place_by_unit

ALPHA = 0.05
MODES = ("fixed", "group_sequential", "finite_pool")
CANDIDATES = 10
CONFIRMED = ("500 independent binary items", "100 documents x 5 items")
"""Cells for which the best of ten candidates on one half is confirmed on the other."""


def judge_pairs(policy: Policy, pairs: Sequence[TaskPair]) -> str:
    """Return the gate's verdict on the pairs; "refused" where they have no interval."""
    try:
        rules = build_rules(policy, pairs)
        if policy.mode == "fixed":
            return verdict.decide(policy, rules, policy.waiver_entries(), "", date(2026, 1, 1)).verdict
        return sequential.decide(policy, rules, policy.waiver_entries(), "", date(2026, 1, 1), 1.0).verdict
    except EvidenceError:
        return "refused"


def count_verdicts(cell: Cell, mode: str, change: float, gates: int) -> Counter[str]:
    """Simulate gates on new evidence each, with this mean change."""
    policy = Policy.model_validate({"version": 1, "mode": mode, "retention": [{"suite": "s", "margin": cell.margin}]})
    verdicts: Counter[str] = Counter()
    for seed in range(gates):
        pairs = draw_pairs(cell, seed, change)
        if mode == "finite_pool" and change < 0 and compute_mean_gain(pairs) > -cell.margin:
            continue
        verdicts[judge_pairs(policy, place_by_unit(pairs) if mode == "group_sequential" else pairs)] += 1
    return verdicts


def compute_mean_gain(pairs: Sequence[TaskPair]) -> float:
    """Return the mean gain of these items: over tasks, which all have the same weight."""
    return float(np.mean([(pair.adapted.values - pair.base.values).mean() for pair in pairs])) - 1e-12


def count_confirmed(cell: Cell, gates: int) -> Counter[str]:
    """Simulate gates that confirm on a half the best of ten candidates on the other half, all of them at the margin."""
    policy = Policy.model_validate({"version": 1, "retention": [{"suite": "s", "margin": cell.margin}]})
    verdicts: Counter[str] = Counter()
    for seed in range(gates):
        # All candidates answer the documents of the first.
        documents = [pair.base.documents for pair in draw_pairs(cell, seed, 0.0)]
        candidates = [
            [
                replace(pair, base=replace(pair.base, documents=numbers))
                for pair, numbers in zip(draw_pairs(cell, (1 + k) * gates + seed, -cell.margin), documents, strict=True)
            ]
            for k in range(CANDIDATES)
        ]
        items = [list_items(pair.base) for pair in candidates[0]]
        select, confirm = (sequential.take_half(items, half) for half in get_args(Half))
        chosen = max(candidates, key=lambda pairs: sum(pair.comparison.gain for pair in _cut(pairs, select)))
        verdicts[judge_pairs(policy, _cut(chosen, confirm))] += 1
    return verdicts


def _cut(pairs: Sequence[TaskPair], masks: Sequence[Mask]) -> list[TaskPair]:
    return [replace(pair.part(mask), items=int(mask.sum())) for pair, mask in zip(pairs, masks, strict=True)]


def main() -> int:
    """Print the table; 1 if a cell has too many false passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=4_000, help="simulated gates per cell")
    parser.add_argument("--only", default="", help="part of the names of the cells")
    parser.add_argument("--mode", choices=MODES, action="append")
    options = parser.parse_args()
    is_broken = False
    for name, cell in CELLS.items():
        if options.only not in name:
            continue
        for mode in options.mode or MODES:
            at_margin = count_verdicts(cell, mode, -cell.margin, options.gates)
            unchanged = count_verdicts(cell, mode, 0.0, options.gates // 4)
            gates = sum(at_margin.values())
            false = at_margin["pass"] / gates
            is_broken |= false > ALPHA + 2 * (ALPHA * (1 - ALPHA) / gates) ** 0.5
            print(
                f"{name:<42} margin {cell.margin:<5} {mode:<17} false passes {100 * false:5.2f} %  power "
                f"{100 * unchanged['pass'] / sum(unchanged.values()):5.1f} %  refused "
                f"{100 * at_margin['refused'] / gates:.0f} %  of {gates:,}",
                flush=True,
            )
        if name in CONFIRMED and options.mode is None:
            false = count_confirmed(cell, options.gates // 4)["pass"] / (options.gates // 4)
            is_broken |= false > ALPHA + 4 * (ALPHA * (1 - ALPHA) / options.gates) ** 0.5
            print(
                f"{name:<42} margin {cell.margin:<5} best of {CANDIDATES} on a half  {100 * false:5.2f} %", flush=True
            )
    return int(is_broken)


if __name__ == "__main__":
    sys.exit(main())
