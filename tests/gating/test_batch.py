"""The correction for many candidates on the same suites."""

from __future__ import annotations

from datetime import date

import pytest

from evalsvc.errors import EvidenceError
from evalsvc.gating.batch import compute_p_pass, correct_for_batch
from evalsvc.gating.policy import Policy
from evalsvc.gating.rules import build_rules
from evalsvc.gating.verdict import Outcome, decide
from tests.support.evidence import make_binary, make_pair


@pytest.fixture
def outcome() -> Outcome:
    policy = Policy.model_validate(
        {"version": 1, "retention": [{"suite": "s", "margin": 0.035}, {"suite": "t", "margin": 0.09}]}
    )
    pairs = [make_pair("s", "a", make_binary(10, 8, 300)), make_pair("t", "b", make_binary(10, 8, 300))]
    return decide(policy, build_rules(policy, pairs), [], "sha256:1", date(2026, 1, 1))


def test_a_policy_passes_by_its_weakest_rule(outcome: Outcome) -> None:
    assert outcome.verdict == "pass"
    assert compute_p_pass(outcome) == max(rule.p_pass or 0.0 for rule in outcome.rules) == outcome.rules[0].p_pass


def test_holm_over_all_candidates_decides(outcome: Outcome) -> None:
    p = compute_p_pass(outcome)
    assert p is not None
    assert 0.01 < p < 0.05
    alone = correct_for_batch(outcome, {}, 0.05)
    assert alone.batch is not None
    assert (alone.verdict, alone.batch.adjusted, alone.is_blocked_by_batch) == ("pass", p, False)
    # Holm by hand: a better candidate does not count against this one, three worse ones do.
    others = {"better": p / 10, "worse": 0.4, "worst": 0.8, "failed": 1.0}
    blocked = correct_for_batch(outcome, others, 0.05)
    assert blocked.batch is not None
    assert blocked.batch.adjusted == pytest.approx(4 * p)
    assert (blocked.verdict, blocked.is_blocked_by_batch) == ("inconclusive", True)
    assert blocked.rules == outcome.rules
    assert correct_for_batch(outcome, others, 5 * p).verdict == "pass"


def test_a_candidate_without_a_p_value_is_refused(outcome: Outcome) -> None:
    with pytest.raises(EvidenceError, match="decide on it again in mode fixed"):
        correct_for_batch(outcome, {"sequential": None}, 0.05)
