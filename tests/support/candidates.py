"""Many candidates, each exactly at its margin, judged in turn on the same items as the gate judges them."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalsvc.gating import verdict
from evalsvc.gating.candidates import Candidate, at_level, place_candidate
from evalsvc.gating.policy import Policy
from evalsvc.gating.rules import TaskPair, build_rules
from tests.support.evidence import make_task_scores

MARGIN = 0.05
POLICY = Policy.model_validate({"version": 1, "retention": [{"suite": "core", "margin": MARGIN}]})


def make_record(
    adapted: str, plans: list[str], *, half: str | None = None, batch_size: int | None = None, base: str = "base"
) -> dict[str, Any]:
    """Return what a decision record holds that candidates are counted by."""
    return {
        "base": {"key": base},
        "checkpoint": {"key": adapted},
        "suites": [{"plan": plan, "part_of": None} for plan in plans],
        "sampled": [],
        "half": half,
        "candidate": {"batch_size": batch_size},
    }


def place(
    records: list[dict[str, Any]],
    adapted: str,
    plans: list[str],
    *,
    half: Any = None,
    batch_size: int | None = None,
    base: str = "base",
) -> Candidate:
    """Return which candidate an arm is; the plan "p" is of suite "suite p"."""
    return place_candidate(
        records,
        base=base,
        adapted=adapted,
        plans={plan: f"suite {plan}" for plan in plans},
        half=half,
        alpha=0.05,
        batch_size=batch_size,
    )


def judge_in_turn(runs: int, candidates: int, n: int, seed: int, batch_size: int | None = None) -> NDArray[np.bool_]:
    """Return which of the candidates pass, [runs, candidates]; every pass is false.

    The base has 70 % of n items right; each candidate loses 7.5 % of the items and gains 2.5 % on its own.
    """
    rng = np.random.default_rng(seed)
    passed = np.zeros((runs, candidates), dtype=np.bool_)
    for run in range(runs):
        right = rng.random(n) < 0.7
        base = make_task_scores("core", "t", right.astype(float))
        records: list[dict[str, Any]] = []
        for number in range(candidates):
            changes = rng.random(n) < np.where(right, 0.075 / 0.7, 0.025 / 0.3)
            adapted = make_task_scores("core", "t", (right != changes).astype(float))
            candidate = place(records, str(number), ["plan"], batch_size=None if number else batch_size)
            records.append(make_record(str(number), ["plan"], batch_size=candidate.batch_size))
            rules = build_rules(POLICY, [TaskPair(base, adapted, n)])
            outcome = verdict.decide(at_level(POLICY, candidate), rules, [], str(number), date(2026, 1, 1))
            passed[run, number] = outcome.verdict == "pass"
    return passed
