"""`compare`, `trajectory`, `frontier` and `gate` have one interval, whatever the evidence."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from evalsvc.analysis.compare import compare_tasks, compute_totals
from evalsvc.analysis.frontier import ROLES, build_axis, build_positions, find_frontier
from evalsvc.analysis.suite_gains import Candidate, measure_gains
from evalsvc.analysis.trajectory import build_trajectory
from evalsvc.gating import verdict
from evalsvc.gating.policy import Policy
from evalsvc.gating.rules import TaskPair, build_rules
from tests.benchmarks.evidence_error_rates import judge_pairs
from tests.support.dependent_evidence import CELLS, draw_pairs
from tests.support.evidence import make_task_scores
from tests.support.fakes import make_checkpoint
from tests.support.scores import known, make_scores

POLICY = Policy.model_validate({"version": 1, "retention": [{"suite": "s", "margin": 0.05}]})
KINDS = [
    "500 independent binary items",
    "100 documents x 5 items",
    "clusters of 300, 60, 40, .., 5",
    "5 clusters of 100",
    "graded, losses of .8, n = 100",
    "100 binary items, one of them partial",
    "3 formats of 300 items, correlation .9",
    "15 tasks of 40 to 1,000 items",
]


def measure_gate(pairs: list[TaskPair]) -> tuple[float, float, float]:
    (rule,) = verdict.decide(POLICY, build_rules(POLICY, pairs), (), "", date(2026, 1, 1)).rules
    return rule.estimate, rule.low, rule.high


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [-0.05, 0.0])
def test_every_command_has_the_gates_interval(kind: str, change: float) -> None:
    pairs = draw_pairs(CELLS[kind], 7, change)
    expected = pytest.approx(measure_gate(pairs), abs=1e-9)
    domain = make_scores([1.0, 0.0] * 50, suite="d", role="domain")
    base, adapted = ([domain, *(getattr(pair, arm) for pair in pairs)] for arm in ("base", "adapted"))

    comparisons = compare_tasks(base, adapted)
    (total,) = (total for total in compute_totals(comparisons) if total.role == "general")
    assert (total.difference, total.low, total.high) == expected

    (step,) = build_trajectory("a", "lora", "b", [(1, "a@1", comparisons)]).steps
    assert step.forgetting is not None
    assert (-step.forgetting.value, -known(step.forgetting.high), -known(step.forgetting.low)) == expected

    checkpoint = make_checkpoint(1)
    of_arms = Candidate("b", checkpoint, base), [Candidate("a", make_checkpoint(2, parent=checkpoint), adapted)]
    gains = measure_gains(*of_arms)
    point = find_frontier(build_positions(gains, *(build_axis(gains, role) for role in ROLES))).points[1]
    assert (-point.forgetting, -known(point.forgetting_high), -known(point.forgetting_low)) == expected


@pytest.mark.parametrize("kind", [*KINDS, "11 unchanged items of .5"])
def test_the_interval_is_continuous_in_the_scores(kind: str) -> None:
    if kind in CELLS:
        pairs = draw_pairs(CELLS[kind], 7, -0.02)
    else:
        halves = make_task_scores("s", "t", np.full(11, 0.5))
        pairs = [TaskPair(halves, replace(halves, values=halves.values.copy()), 11)]
    first, *others = pairs
    for place in range(3):
        values = first.adapted.values.copy()
        values[place] += 1e-6 if values[place] < 0.5 else -1e-6
        changed = [replace(first, adapted=replace(first.adapted, values=values)), *others]
        assert measure_gate(changed) == pytest.approx(measure_gate(pairs), abs=2e-5)


def test_the_same_items_under_two_suites_are_one_piece_of_evidence() -> None:
    (pair,) = draw_pairs(CELLS["500 independent binary items"], 3, -0.02)
    again = TaskPair(replace(pair.base, suite="t"), replace(pair.adapted, suite="t"), pair.items)
    totals = [
        compute_totals(compare_tasks([p.base for p in pairs], [p.adapted for p in pairs]))[0]
        for pairs in ([pair], [pair, again])
    ]
    assert (totals[1].low, totals[1].high) == pytest.approx((totals[0].low, totals[0].high), abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "gates"),
    [
        ("100 documents x 5 items", 250),
        ("20 clusters x 25, lost whole", 250),
        ("380 clusters x 1 and 20 x 10, lost whole", 250),
        ("graded, losses of .8, n = 300", 250),
        ("100 binary items, one of them partial", 250),
        ("3 formats of 300 items, correlation .9", 200),
    ],
)
def test_the_gate_keeps_its_level_on_dependent_evidence(kind: str, gates: int) -> None:
    """The short form of tests/benchmarks/evidence_error_rates.py; once 8 to 35 % of these passed."""
    cell = CELLS[kind]
    policy = Policy.model_validate({"version": 1, "retention": [{"suite": "s", "margin": cell.margin}]})
    passed = sum(judge_pairs(policy, draw_pairs(cell, seed, -cell.margin)) == "pass" for seed in range(gates))
    assert passed / gates <= 0.05 + 2.5 * (0.05 * 0.95 / gates) ** 0.5
