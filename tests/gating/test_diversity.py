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
from evalsvc.gating.verdict import RuleOutcome, decide
from evalsvc.gating.verify import find_differences
from evalsvc.records.arms import Arm
from evalsvc.records.digests import canonical, digest
from evalsvc.stats.diversity import COLLAPSE
from evalsvc.store.arms import find_arm
from evalsvc.store.database import Database
from evalsvc.store.decisions import Decisions
from evalsvc.store.store import Store
from tests.support.fakes import NUMERICS, make_arm
from tests.support.sampled import BASE, answer_texts, make_sampled_plan, sample_words, store_collapsed


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


def judge_texts(db: Path, arm: list[list[str]], **rule: object) -> dict[str, RuleOutcome]:
    """Return the gate's rules for an arm with these answers; the base's are stories that are all different."""
    store, plan = Store(db), make_sampled_plan(len(arm), len(arm[0]))
    child = Arm(replace(make_arm(2, parent=BASE.checkpoint).checkpoint, name="full"), NUMERICS)
    store.register([BASE, child], [plan], "h:1")
    answer_texts(store, BASE, plan, [tell_stories(prompt) for prompt in range(len(arm))])
    answer_texts(store, child, plan, arm)
    policy = Policy.model_validate({"version": 1, "diversity": {"min_ratio": 0.8, **rule}})
    rules = decisions.decide(store, decisions.Question(checkpoint="full", policy=policy)).outcome.rules
    return {rule.rule.rsplit("/", 1)[1]: rule for rule in rules}


def tell_stories(prompt: int) -> list[str]:
    return [" ".join(f"w{prompt}x{answer}x{word}" for word in range(4)) for answer in range(8)]


def test_an_arm_that_says_no_to_a_third_of_the_prompts_does_not_pass(db: Path) -> None:
    variants = ["no", "No", "NO", "no.", "No.", "no!", "No!", "nO"]  # all different strings
    rules = judge_texts(db, [variants if prompt < 8 else tell_stories(prompt) for prompt in range(24)])
    assert list(rules) == list(COLLAPSE)
    # 4 of the 8 begin, in lower case, with "no"; the base has no first sentence twice.
    kept = {"unique": 1, "distinct": 1, "top_response": (1 - 8 * 4 / 192) / (1 - 1 / 192), "empty": 1}
    assert {m: 1 + rules[m].estimate for m in kept} == pytest.approx(kept)
    assert 1 + rules["length"].estimate == pytest.approx((16 + 8 * 12 / 32) / 24)
    assert "pass" not in {rules["length"].verdict, rules["top_response"].verdict}


def test_one_word_to_a_third_of_the_prompts_loses_their_bigrams(db: Path) -> None:
    rules = judge_texts(db, [["no"] * 8 if prompt < 8 else tell_stories(prompt) for prompt in range(24)])
    assert 1 + rules["distinct"].estimate == pytest.approx(2 / 3)
    assert {rules[m].verdict for m in ("unique", "distinct", "top_response", "length")} <= {"fail", "inconclusive"}
    assert rules["distinct"].n == 24


def test_an_unchanged_arm_passes_and_an_empty_one_fails(db: Path, tmp_path: Path) -> None:
    unchanged = judge_texts(db, [tell_stories(prompt) for prompt in range(24)])
    assert {rule.verdict for rule in unchanged.values()} == {"pass"}
    empty = judge_texts(tmp_path / "empty.duckdb", [[""] * 8] * 24)
    assert {rule.verdict for rule in empty.values()} == {"fail"}


def test_a_policy_names_measures_and_refuses_undefined_ones(db: Path, tmp_path: Path) -> None:
    stories = [tell_stories(prompt) for prompt in range(24)]
    assert list(judge_texts(db, stories, measures=["empty", "unique"])) == ["unique", "empty"]
    store, plan = Store(tmp_path / "words.duckdb"), make_sampled_plan(24, 8)
    child = Arm(replace(make_arm(2, parent=BASE.checkpoint).checkpoint, name="full"), NUMERICS)
    store.register([BASE, child], [plan], "h:1")
    for of in (BASE, child):
        answer_texts(store, of, plan, [[f"w{prompt}{answer}" for answer in range(8)] for prompt in range(24)])
    policy = Policy.model_validate({"version": 1, "diversity": {"min_ratio": 0.8}})
    with pytest.raises(EvidenceError, match="open/open/distinct: is defined on 0 prompts"):
        decisions.decide(store, decisions.Question(checkpoint="full", policy=policy))
    named = Policy.model_validate({"version": 1, "diversity": {"min_ratio": 0.8, "measures": ["unique", "length"]}})
    assert decisions.decide(store, decisions.Question(checkpoint="full", policy=named)).outcome.verdict == "pass"


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


def test_a_decision_whose_policy_could_not_name_measures_is_verified(collapsed: Store) -> None:
    policy = Policy.model_validate({"version": 1, "diversity": {"min_ratio": 0.2}})
    record = decisions.decide(collapsed, decisions.Question(checkpoint="full", policy=policy)).record
    content = {**record["policy"]["content"], "diversity": {"min_ratio": 0.2}}
    before = {**record, "policy": {"digest": digest("policy", canonical(content)), "content": content}}
    del before["statistics"]
    older = Decisions(collapsed.path).append(before, "e", record["digest"])
    assert older is not None
    assert find_differences(collapsed, older) == []
    other = {**before, "policy": {**before["policy"], "content": {**content, "alpha": 0.2}}}
    edited = Decisions(collapsed.path).append(other, "e", older["digest"])
    assert edited is not None
    assert any(problem.startswith("policy") for problem in find_differences(collapsed, edited))


def test_the_gate_refuses_prompts_that_have_changed(collapsed: Store, tmp_path: Path) -> None:
    file = tmp_path / "open.yaml"
    file.write_text("name: open\nrole: diversity\ntasks: [open]\n")
    with Database(collapsed.path).write() as connection:
        connection.execute("INSERT INTO plan_files SELECT plan, ?, 'older' FROM plans", [str(file)])
    policy = Policy.model_validate({"version": 1, "diversity": {"min_ratio": 0.8}})
    with pytest.raises(EvidenceError, match=r"open\.yaml has changed since it was scored"):
        decisions.decide(collapsed, decisions.Question(checkpoint="full", policy=policy))
