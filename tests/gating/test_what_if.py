"""The same evidence under another margin, level or size."""

from __future__ import annotations

from datetime import date

import pytest

from evalsvc.analysis.compare import compare_task
from evalsvc.errors import UsageError
from evalsvc.gating.policy import Policy, RetentionRule
from evalsvc.gating.rules import build_rules
from evalsvc.gating.verdict import decide
from evalsvc.gating.what_if import compute_power_curve, recompute_under
from evalsvc.records.comparisons import Comparison
from tests.support.evidence import make_binary, make_pair


def comparison(lost: int, gained: int, n: int) -> Comparison:
    made = make_pair("facts", "easy", make_binary(lost, gained, n))
    return compare_task(made.base, made.adapted)


@pytest.mark.parametrize(("lost", "gained", "n"), [(9, 4, 400), (30, 2, 400), (12, 11, 300), (0, 0, 100)])
@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_as_things_are_it_says_what_the_gate_says(lost: int, gained: int, n: int, margin: float) -> None:
    made = make_pair("facts", "easy", make_binary(lost, gained, n))
    policy = Policy(version=1, retention=(RetentionRule(suite="facts", margin=margin),))
    (rule,) = decide(policy, build_rules(policy, [made]), [], "sha256:1", date(2026, 1, 1)).rules
    found = recompute_under([made.comparison], margin, 0.05)
    assert found.verdict == rule.verdict
    assert (found.low, found.high) == pytest.approx((rule.low, rule.high))
    assert found.p_pass == pytest.approx(rule.p_pass)


def test_more_items_decide_what_few_could_not() -> None:
    few = recompute_under([comparison(4, 3, 60)], 0.05, 0.05)
    many = recompute_under([comparison(4, 3, 60)], 0.05, 0.05, 20.0)
    assert (few.verdict, many.verdict) == ("inconclusive", "pass")
    assert many.estimate == pytest.approx(few.estimate)
    assert many.n == 1200


def test_power_rises_with_items_and_is_80_percent_where_it_says() -> None:
    tasks = [comparison(12, 12, 240)]
    curve = compute_power_curve(tasks, 0.05, 0.05, (0.5, 1.0, 2.0, 4.0))
    assert [power for _, power in curve] == sorted(power for _, power in curve)
    found = recompute_under(tasks, 0.05, 0.05)
    assert recompute_under(tasks, 0.05, 0.05, found.needed_n / 240).power == pytest.approx(0.8, abs=0.005)
    # (1.645 + 0.842)^2 * discordance 0.1 / 0.05^2, see stats.power
    assert found.needed_n == pytest.approx(248, abs=3)


@pytest.mark.parametrize(("margin", "alpha", "factor"), [(0.0, 0.05, 1.0), (0.05, 0.5, 1.0), (0.05, 0.05, 0.0)])
def test_what_cannot_be_asked_is_refused(margin: float, alpha: float, factor: float) -> None:
    with pytest.raises(UsageError, match="margin between 0 and 1"):
        recompute_under([comparison(4, 3, 60)], margin, alpha, factor)
