"""Sampled texts and token drift, from the store to the answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from evalsvc.analysis import stored_claims, stored_drift
from evalsvc.analysis.diversity_and_drift import compare_sampled
from evalsvc.errors import EvidenceError
from evalsvc.records.arms import Arm, Checkpoint
from evalsvc.records.plans import Request, has_drift
from evalsvc.store.arms import find_arm, find_family
from evalsvc.store.scores import SampledAnswers
from evalsvc.store.store import Store
from tests.support.commands import Run
from tests.support.fakes import NUMERICS, grade_plan, make_arm, make_plan
from tests.support.runs import submit_tiny
from tests.support.sampled import BASE, make_sampled_plan, sample_words, store_collapsed
from tests.support.tiny import CHAT

pytestmark = pytest.mark.slow


def checkpoint_of(store: Store, label: str) -> Checkpoint:
    return find_arm(store.arms(), label).checkpoint


@pytest.fixture
def collapsed(db: Path) -> Store:
    return store_collapsed(db)


def test_collapse_is_measured_against_the_base(collapsed: Store) -> None:
    (task,) = stored_drift.compare_diversity(collapsed, "full")
    found = {ratio.measure: ratio for ratio in task.ratios}
    assert (task.answers, found["unique"].prompts) == (4, 40)
    assert (found["unique"].base or 0) > 0.98
    expected = 2 * (1 - 0.5**4) / 4  # distinct values of four draws among two
    assert found["unique"].adapted == pytest.approx(expected, abs=0.05)
    assert (found["unique"].high or 1) < 0.6
    assert (found["top_response"].adapted or 0) >= 0.5
    assert (found["unfinished"].base, found["unfinished"].adapted, found["unfinished"].ratio) == (0.0, 1.0, 0.0)


def test_the_command_shows_it(collapsed: Store, evalsvc: Run) -> None:
    shown = evalsvc("diversity", "full", "--db", collapsed.path)
    assert (shown.code, "unique" in shown.out, "4 answers per prompt" in shown.out) == (0, True, True)
    answer = evalsvc("diversity", "full", "--db", collapsed.path, "--json").json
    assert answer["tasks"][0]["ratios"][0]["measure"] == "unique"


def test_what_was_sampled_once_or_not_at_all_has_no_diversity(db: Path) -> None:
    store, item = Store(db), make_sampled_plan(3, 1)
    child = Arm(replace(make_arm(2, parent=BASE.checkpoint).checkpoint, name="full"), NUMERICS)
    store.register([BASE, child], [item, make_plan()], "h:1")
    with pytest.raises(EvidenceError, match="c1 has no sampled answers"):
        stored_drift.compare_diversity(store, "full")
    sample_words(store, BASE, item, 9)
    with pytest.raises(EvidenceError, match="the adapted arm has no sampled answers"):
        stored_drift.compare_diversity(store, "full")
    sample_words(store, child, item, 9)
    with pytest.raises(EvidenceError, match="has one answer per prompt, must have several"):
        stored_drift.compare_diversity(store, "full")


def test_what_cannot_be_told_of_diversity_hides_nothing_else(db: Path) -> None:
    store, sampled, instruction = Store(db), make_sampled_plan(3, 1), make_plan("i", n=60, role="instruction", text="i")
    child = Arm(replace(make_arm(2, parent=BASE.checkpoint).checkpoint, name="full", method="full"), NUMERICS)
    store.register([BASE, child], [sampled, instruction], "h:1")
    for of, right in ((BASE, 50), (child, 20)):
        sample_words(store, of, sampled, 9)
        store.finish(of, instruction, grade_plan(instruction, [1.0] * right + [0.0] * (60 - right)))
    assert "full" in {card.about for card in stored_claims.decide_stored_claims(store)}


def test_arms_without_a_prompt_in_common_are_refused() -> None:
    one = SampledAnswers(
        suite="s", task="t", samples=np.array([1]), answers=(("a", "b"),), unfinished=np.zeros((1, 2), dtype=bool)
    )
    other = replace(one, samples=np.array([2]))
    with pytest.raises(EvidenceError, match="no prompt in common"):
        compare_sampled([one], [other])


def test_a_real_model_is_sampled_and_measured(models: Path, task_folder: Path, tmp_path: Path, db: Path) -> None:
    suite = {"name": "open", "role": "diversity", "include": str(task_folder), "tasks": ["votes"]}
    general = {"name": "g", "role": "general", "include": str(task_folder), "tasks": ["mc"]}
    for one in (suite, general):
        (tmp_path / f"{one['name']}.yaml").write_text(yaml.safe_dump(one))
    suites = (str(tmp_path / "open.yaml"), str(tmp_path / "g.yaml"))
    assert {job.state for job in submit_tiny(db, models, suites, source="full")} == {"done"}
    (task,) = stored_drift.compare_diversity(Store(db), "full")
    assert task.answers == 3
    assert all(r.prompts == 4 for r in task.ratios if r.measure in {"unique", "top_response", "empty"})
    assert all(0 < (r.base or 0) <= 1 for r in task.ratios if r.measure in {"unique", "distinct"})


def test_the_shipped_suite_is_sampled_measured_and_judged(
    models: Path,
    tmp_path: Path,
    db: Path,
    evalsvc: Run,
) -> None:
    asked = ["--base", models / "base", "--suite", "tales", "--db", db, "--workers", 0, "--quiet"]
    assert evalsvc("submit", models / "full", *asked).code == 0
    (task,) = evalsvc("diversity", "full", "--db", db, "--json").json["tasks"]
    assert (task["suite"], task["task"], task["answers"]) == ("tales", "valley_tales", 8)
    found = {ratio["measure"]: ratio for ratio in task["ratios"]}
    assert all(found[measure]["prompts"] == 24 for measure in ("unique", "top_response", "empty"))
    assert found["unique"]["base"] > 0.9  # random weights ramble, and every answer has its own seed
    for least, code in ((0.2, 0), (0.99, 4)):
        policy = tmp_path / f"{least}.yaml"
        policy.write_text(yaml.safe_dump({"version": 1, "diversity": {"min_ratio": least}}))
        judged = evalsvc("gate", "full", "--policy", policy, "--db", db)
        assert judged.code == code, judged.out
        assert "diversity/tales/valley_tales/unique" in judged.out
    new = [
        "gate",
        models / "lora",
        "--base",
        models / "base",
        "--policy",
        policy,
        "--evaluate",
        "--db",
        db,
        "--workers",
        0,
    ]
    scored = evalsvc(*new, "--quiet")  # the rule's suite is that of the base's answers
    assert scored.code in (0, 3, 4), scored.err
    assert "diversity/tales/valley_tales/unique" in scored.out
    again = evalsvc("submit", models / "full", *asked)
    assert (again.code, evalsvc("diversity", "full", "--db", db, "--json").json["tasks"]) == (0, [task])


# ------------------------------------------------------------------------------------------------------------- drift


@pytest.fixture
def drifting(db: Path) -> Store:
    """Six independent runs, of which each drifts further and forgets more; on general texts."""
    store = Store(db)
    general, texts = make_plan("g", n=100, text="g"), make_plan("t", n=5, role="drift", text="t")
    rng = np.random.default_rng(0)
    arms = [Arm(replace(make_arm(i + 2, parent=BASE.checkpoint).checkpoint, name=f"r{i}"), NUMERICS) for i in range(6)]
    store.register([BASE, *arms], [general, texts], "h:1")
    for item in (general, texts):
        store.finish(BASE, item, grade_plan(item, [1.0] * len(item.tasks[0].samples)))
    for i, one in enumerate(arms):
        store.finish(one, general, grade_plan(general, [0.0] * (5 * i) + [1.0] * (100 - 5 * i)))
        store.finish(one, texts, grade_plan(texts, [1.0] * 5))
        kl = {s.digest: rng.gamma(2, 0.05 * (i + 1), 50).tolist() for s in texts.tasks[0].samples}
        store.add_drift(one, texts, texts.tasks[0].name, kl)
    return store


def test_drift_comes_back_and_predicts_what_was_forgotten(drifting: Store) -> None:
    found, card = stored_drift.load_drift(drifting, find_family(drifting.arms()))
    assert len(found) == 6
    (task,) = found[0].tasks
    assert (task.role, task.drift.texts, task.drift.tokens) == ("drift", 5, 250)
    assert task.drift.mean == pytest.approx(0.1, rel=0.2)
    assert task.drift.low < task.drift.mean < task.drift.high < task.drift.p95
    assert [one.forgetting for one in found] == pytest.approx([0.05 * i for i in range(6)])
    assert card.verdict == "supported"
    assert [c.verdict for c in stored_claims.decide_stored_claims(drifting) if c.claim == card.claim] == ["supported"]


def test_drift_is_kept_once_per_arm_and_task(drifting: Store) -> None:
    arms = drifting.arms()
    texts = make_plan("t", n=5, role="drift", text="t")
    one = Arm(arms[1].checkpoint, NUMERICS)
    drifting.add_drift(one, texts, texts.tasks[0].name, {texts.tasks[0].samples[0].digest: [1.0, 2.0]})
    (found,) = drifting.drifts([arms[1].number])[arms[1].number]
    assert found.kl.tolist() == [1.0, 2.0]


def test_the_commands_show_drift(drifting: Store, evalsvc: Run, tmp_path: Path) -> None:
    shown = evalsvc("drift", "--db", drifting.path)
    assert (shown.code, "KL(base || arm)" in shown.out, "supported" in shown.out) == (0, True, True)
    answer = evalsvc("drift", "--db", drifting.path, "--json").json
    assert answer["arms"][5]["tasks"][0]["drift"]["tokens"] == 250
    store = Store(tmp_path / "none.duckdb")
    child = Arm(make_arm(2, parent=BASE.checkpoint).checkpoint, NUMERICS)
    store.register([BASE, child], [make_plan()], "h:1")
    none = evalsvc("drift", "--db", store.path)
    assert (none.code, "no arm of c1 has drift" in none.err) == (5, True)


@pytest.fixture
def retokenized(models: Path, tmp_path: Path) -> Path:
    """Copies of the base and its adaptations, of which `full` brings a tokenizer with another vocabulary."""
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    tokens = json.loads((folder / "full" / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "full" / "tokenizer.json").write_text(json.dumps(tokens))
    return folder


def test_drift_across_tokenizers_is_refused_by_name(
    retokenized: Path,
    task_folder: Path,
    tmp_path: Path,
    db: Path,
    evalsvc: Run,
) -> None:
    for role, task in (("drift", "roll"), ("general", "mc")):
        suite = {"name": role, "role": role, "include": str(task_folder), "tasks": [task]}
        (tmp_path / f"{role}.yaml").write_text(yaml.safe_dump(suite))
    suites = [part for role in ("drift", "general") for part in ("--suite", tmp_path / f"{role}.yaml")]
    where = ["--base", retokenized / "base", *suites, "--db", db, "--workers", 0]
    said = evalsvc("submit", retokenized / "full", *where)
    full, base = (checkpoint_of(Store(db), name) for name in ("full", "base"))
    why = (
        f"full: its tokenizer ({full.tokenizer[:12]}) differs from that of its base base "
        f"({base.tokenizer[:12]}), and KL "
        "per token needs the same tokens; save the base's tokenizer"
    )
    assert (said.code, f"warning: {why}" in " ".join(said.err.split())) == (0, True)
    alone = evalsvc("drift", "--db", db)
    assert (alone.code, why in alone.err, alone.err.count("\n")) == (5, True, 1)
    assert evalsvc("submit", retokenized / "lora", *where).code == 0
    arms = {one["arm"]: one for one in evalsvc("drift", "--db", db, "--json").json["arms"]}
    assert (arms["full"]["tasks"], f"full: {arms['full']['refusal']}".startswith(why)) == ([], True)
    assert (arms["lora"]["tasks"][0]["drift"]["mean"] > 0, arms["lora"]["refusal"]) == (True, None)
    assert "its tokenizer" in evalsvc("drift", "--db", db).out
    (card,) = [c for c in stored_claims.decide_stored_claims(Store(db)) if c.claim == "drift-predicts-forgetting"]
    assert any(line.startswith("full is left out: its tokenizer") for line in card.evidence)
    assert "its tokenizer" in evalsvc("checkpoints", "show", "full", "--db", db).out


def test_drift_that_could_not_be_computed_is_said(drifting: Store) -> None:
    texts = make_plan("t", n=5, role="drift", text="t")
    last = Arm(replace(make_arm(9, parent=BASE.checkpoint).checkpoint, name="plain"), NUMERICS)
    drifting.register([last], [texts], "h:1")
    drifting.finish(last, texts, grade_plan(texts, [1.0] * 5))
    found, _ = stored_drift.load_drift(drifting, find_family(drifting.arms()))
    assert [one.arm.label for one in found if one.refusal] == ["plain"]
    assert "on the plain path" in (found[-1].refusal or "")


def test_a_tokenizer_that_only_has_another_chat_template_is_no_obstacle(
    retokenized: Path, models: Path, task_folder: Path, tmp_path: Path, db: Path
) -> None:
    shutil.copy(models / "full" / "tokenizer.json", retokenized / "full")
    (retokenized / "full" / "chat_template.jinja").write_text(CHAT)
    suite = {"name": "t", "role": "drift", "include": str(task_folder), "tasks": ["roll"], "chat_template": "off"}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(suite))
    assert {job.state for job in submit_tiny(db, retokenized, (str(tmp_path / "t.yaml"),), source="full")} == {"done"}
    full, base = (checkpoint_of(Store(db), name) for name in ("full", "base"))
    assert full.tokenizer != base.tokenizer
    (one,) = stored_drift.load_drift(Store(db), find_family(Store(db).arms()))[0]
    assert (one.refusal, one.tasks[0].drift.mean > 0) == (None, True)


def test_drift_is_measured_on_texts_and_not_on_early_looks() -> None:
    texts = Request.of("loglikelihood_rolling", ("one two",))
    plans = {role: replace(make_plan("p", role=role), requests=(texts,)) for role in ("general", "domain", "drift")}
    assert all(has_drift(one) for one in plans.values())
    assert has_drift(make_plan("p", role="drift"))
    assert not has_drift(make_plan("p", role="general"))
    assert not has_drift(replace(plans["drift"], part_of="whole"))
