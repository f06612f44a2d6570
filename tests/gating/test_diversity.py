"""A policy's diversity rule, judged and verified on sampled answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from evalsvc.errors import EvidenceError
from evalsvc.gating import decisions
from evalsvc.gating.evidence import gather
from evalsvc.gating.policy import Policy
from evalsvc.gating.rules import build_rules
from evalsvc.gating.verdict import decide
from evalsvc.gating.verify import find_differences
from evalsvc.store.arms import find_arm
from evalsvc.store.database import Database
from evalsvc.store.store import Store
from tests.support.sampled import BASE, make_sampled_plan, sample_words, store_collapsed


@pytest.fixture
def collapsed(db: Path) -> Store:
    return store_collapsed(db)


@pytest.mark.parametrize(("least", "verdict"), [(0.2, "pass"), (0.8, "fail")])
def test_the_gate_judges_what_is_left_of_diversity(collapsed: Store, least: float, verdict: str) -> None:
    policy = Policy.model_validate({"version": 1, "diversity": {"min_ratio": least}})
    arms = collapsed.arms()
    evidence = gather(collapsed, policy, find_arm(arms, "c1"), find_arm(arms, "full"))
    found = decide(policy, build_rules(policy, (), evidence.ratios), (), "sha256:0", date(2026, 1, 1))
    by_name = {rule.rule: rule.verdict for rule in found.rules}
    assert by_name["diversity/open/open/unique"] == verdict


def test_a_decision_on_diversity_is_verified_from_the_answers_that_it_rests_on(collapsed: Store) -> None:
    policy = Policy.model_validate({"version": 1, "diversity": {"min_ratio": 0.2}})
    decision = decisions.decide(collapsed, decisions.Question(checkpoint="full", policy=policy))
    assert find_differences(collapsed, decision.record) == []
    newer = replace(make_sampled_plan(30, 4), digest="open-newer")
    collapsed.register([BASE], [newer], "h:1")
    sample_words(collapsed, BASE, newer, 500)
    assert find_differences(collapsed, decision.record) == []
    with Database(collapsed.path).write() as connection:
        connection.execute("UPDATE responses SET text = 'same' WHERE arm = 2")
    assert any("ratios" in problem for problem in find_differences(collapsed, decision.record))


def test_the_gate_refuses_prompts_that_have_changed(collapsed: Store, tmp_path: Path) -> None:
    file = tmp_path / "open.yaml"
    file.write_text("name: open\nrole: diversity\ntasks: [open]\n")
    with Database(collapsed.path).write() as connection:
        connection.execute("INSERT INTO plan_files SELECT plan, ?, 'older' FROM plans", [str(file)])
    policy = Policy.model_validate({"version": 1, "diversity": {"min_ratio": 0.8}})
    with pytest.raises(EvidenceError, match=r"open\.yaml has changed since it was scored"):
        decisions.decide(collapsed, decisions.Question(checkpoint="full", policy=policy))
