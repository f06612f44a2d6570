"""Early verdicts on real models through the command line, the power plan, and what is asked and what is not."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import norm

from evalsvc.checkpoints.discover import open_base
from evalsvc.store.database import Database
from evalsvc.store.decisions import Decisions
from evalsvc.store.store import Store
from tests.conftest import ROOT
from tests.support import tiny
from tests.support.commands import Run
from tests.support.harness import stock
from tests.support.tasks import CHOICE, make_choices, write_task

pytestmark = pytest.mark.slow

ITEMS = 120


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a general suite of two tasks and a drift suite, in files of their own."""
    folder = tmp_path_factory.mktemp("suites")
    rng = random.Random(1)
    for name in ("first", "second"):
        write_task(folder / "tasks", name, make_choices(rng, ITEMS // 2), **CHOICE)
    write_task(
        folder / "tasks",
        "texts",
        [{"text": " ".join(rng.choices("the cat sat on a mat".split(), k=40))} for _ in range(12)],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
    )
    for suite, role, tasks in (("core", "general", ["first", "second"]), ("text", "drift", ["texts"])):
        said = {"name": suite, "role": role, "include": "tasks", "tasks": tasks}
        (folder / f"{suite}.yaml").write_text(yaml.safe_dump(said))
    return folder


@pytest.fixture
def gate(evalsvc: Run, models: Path, suites: Path, tmp_path: Path, db: Path) -> Callable[..., Any]:
    """Run a gate that scores what is missing in this process."""

    def run(source: str, mode: str, margin: float, *more: str, **change: Any) -> Any:
        policy = tmp_path / "policy.yaml"
        retention = [{"suite": "core", "margin": margin}]
        guessing = {"allow_blind_spots": ["core"]}  # the models have random weights
        content = {"version": 1, "mode": mode, "retention": retention, "require": guessing, **change}
        policy.write_text(yaml.safe_dump(content))
        arguments = ["gate", models / source, "--policy", policy, "--base", models / "base", "--db", db]
        files = [part for name in ("core", "text") for part in ("--suite", suites / f"{name}.yaml")]
        return evalsvc(*arguments, *files, "--evaluate", "--workers", "0", "--quiet", "--json", *more)

    return run


def asked(db: Path) -> int:
    """Return how many requests were answered."""
    with Database(db).read() as connection:
        row = connection.execute("SELECT count(*) FROM responses").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("mode", ["fixed", "group_sequential", "finite_pool"])
def test_a_gate_scores_what_is_missing_and_asks_nothing_twice(gate: Callable[..., Any], db: Path, mode: str) -> None:
    first = gate("full", mode, 0.3)
    assert first.code in (0, 3, 4), first.err
    before = asked(db)
    second = gate("full", mode, 0.3)
    assert second.code == first.code
    assert second.json["rules"] == first.json["rules"]
    assert asked(db) == before


@pytest.mark.parametrize("mode", ["group_sequential", "finite_pool"])
def test_a_clear_case_stops_early_and_is_what_the_whole_would_say(
    gate: Callable[..., Any], evalsvc: Run, models: Path, suites: Path, db: Path, mode: str
) -> None:
    """The adapted model has other random weights: it loses about as much as it gains, far from a margin of 0.6."""
    done = gate("full", mode, 0.6)
    assert done.code == 0, done.err
    found = done.json
    assert found["looks"][-1]["fraction"] < 1
    assert found["items_saved"] > 0
    record = Path(found["decision"]["path"])
    assert evalsvc("verify", record, "--db", db).code == 0
    # What was asked for a look is no result of the suite.
    runs = evalsvc("status", "--db", db, "--json").json["runs"]
    assert all(run["part_of"] for run in runs)
    assert Store(db).results() == []
    assert evalsvc("compare", "full", "--db", db).code == 5
    # When all of it has been asked, the same look decides the same.
    before = asked(db)
    submitted = ["submit", models / "full", "--base", models / "base", "--suite", suites / "core.yaml"]
    assert evalsvc(*submitted, "--workers", "0", "--db", db, "--quiet").code == 0
    assert before < asked(db) == 2 * Store(db).runs()[-1].requests
    whole = gate("full", mode, 0.6).json
    assert whole["looks"] == found["looks"]
    for early, late in zip(found["rules"], whole["rules"], strict=True):
        assert all(early[key] == late[key] for key in ("verdict", "estimate", "low", "high", "n"))
    assert evalsvc("verify", record, "--db", db).code == 0


def test_looks_that_decide_nothing_leave_no_rows(gate: Callable[..., Any], evalsvc: Run, db: Path) -> None:
    """However many looks there were, the store has the part that each decision rests on, once."""
    decided = [gate("full", "group_sequential", margin).json for margin in (0.6, 0.1)]
    numbers = [found["looks"][-1]["number"] for found in decided]
    assert numbers[0] < numbers[1] - 1
    assert decided[1]["looks"][-1]["fraction"] < 1
    items = sum(found["looks"][-1]["items"] for found in decided)
    with Database(db).read() as connection:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM plans), (SELECT count(*) FROM plan_samples), (SELECT count(*) FROM scores), "
            "(SELECT count(*) FROM scores JOIN runs USING (run) JOIN plans USING (plan) WHERE part_of IS NOT NULL)"
        ).fetchone()
    assert found == (2, items, 4 * items, 4 * items)  # two arms, two metrics
    for one in decided:
        assert evalsvc("verify", one["decision"]["path"], "--db", db).code == 0


def test_a_look_stays_while_another_arm_looks_at_it(gate: Callable[..., Any], evalsvc: Run, db: Path) -> None:
    first = gate("full", "finite_pool", 0.6)
    second = gate("lora", "finite_pool", 0.25)
    assert second.code in (0, 3), second.err
    assert len(second.json["looks"]) > len(first.json["looks"])
    assert evalsvc("verify", first.json["decision"]["path"], "--db", db).code == 0
    assert evalsvc("verify", second.json["decision"]["path"], "--db", db).code == 0


def test_a_suite_that_changed_on_disk_is_stale(
    gate: Callable[..., Any], evalsvc: Run, suites: Path, tmp_path: Path, db: Path
) -> None:
    assert gate("full", "fixed", 0.6).code == 0
    again = ["gate", "full", "--policy", tmp_path / "policy.yaml", "--db", db, "--json"]
    path = evalsvc(*again).json["decision"]["path"]
    for name in ("tasks/first.yaml", "tasks/data/first.jsonl", "core.yaml"):
        file = suites / name
        text = file.read_text()
        try:
            file.write_text("# a comment\n" + text if name == "core.yaml" else text)
            assert evalsvc(*again).code == 0  # what a suite says is what counts
            file.write_text(text.replace("role: general", "role: safety") + ("\n" if name != "core.yaml" else ""))
            done = evalsvc(*again)
            assert (done.code, done.out, done.err.count("\n")) == (5, "", 1)
            assert f"suite 'core': {file} has changed since it was scored (stored " in done.err
            assert "submit full again, or add --evaluate" in done.err
            assert evalsvc("verify", path, "--db", db).code == 0  # what was decided was decided on what is stored
            if name == "core.yaml":
                assert gate("full", "fixed", 0.6).code == 0
                assert evalsvc(*again).code == 0
            file.write_text("name: [")
            assert evalsvc(*again).code == 5
            file.unlink()
            assert evalsvc(*again).code == 0  # a CI runner may have the store alone
        finally:
            file.write_text(text)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path, list[dict[str, Any]]]:
    """Files of a suite of one task and of a policy about it, and the task's rows."""
    rows = make_choices(random.Random(2), 12)
    write_task(tmp_path / "tasks", "t", rows, **CHOICE)
    suite, policy = tmp_path / "s.yaml", tmp_path / "s-policy.yaml"
    suite.write_text(yaml.safe_dump({"name": "s", "role": "general", "include": "tasks", "tasks": ["t"]}))
    guessing = {"allow_blind_spots": ["s"]}  # the models have random weights
    rules = {"version": 1, "retention": [{"suite": "s", "margin": 0.9}], "require": guessing}
    policy.write_text(yaml.safe_dump(rules))
    return suite, policy, rows


def test_changed_data_is_refused_and_scored_anew_as_advised(
    evalsvc: Run,
    models: Path,
    small: tuple[Path, Path, list[dict[str, Any]]],
    db: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both pieces of advice work, and the decision is then about the new golds, of stock lm-eval's answers."""
    suite, policy, rows = small
    data = suite.parent / "tasks" / "data" / "t.jsonl"
    monkeypatch.chdir(suite.parent / "tasks")
    answers = {}
    for name in ("base", "full"):
        samples = stock(Path(), open_base(str(models / name)), ("t",))["samples"]["t"]
        answers[name] = [max(range(4), key=lambda i: sample["filtered_resps"][i][0]) for sample in samples]
    here = ("--workers", "0", "--db", db, "--quiet")
    decide = ("gate", "full", "--policy", policy, "--db", db, "--json")
    first = evalsvc("submit", models / "full", "--base", models / "base", "--suite", suite, *here)
    assert first.code == 0, first.err
    estimates = []
    for advice, shift in ((("submit", "full", *here), 1), ((*decide, "--evaluate", *here), 2)):
        assert evalsvc(*decide).code in (0, 3, 4)
        golds = [(row["gold"] + shift) % 4 for row in rows]
        changed = [{**row, "gold": gold} for row, gold in zip(rows, golds, strict=True)]
        data.write_text("".join(json.dumps(row) + "\n" for row in changed))
        refused = evalsvc(*decide)
        assert (refused.code, refused.out, refused.err.count("\n")) == (5, "", 1)
        assert f"suite 's': {data} has changed since it was scored" in refused.err
        assert refused.err.endswith("; submit full again, or add --evaluate\n")
        assert evalsvc(*advice).code in (0, 3, 4)
        (rule,) = evalsvc(*decide).json["rules"]
        hits = {name: np.mean(np.equal(of_model, golds)) for name, of_model in answers.items()}
        assert rule["estimate"] == pytest.approx(hits["full"] - hits["base"])
        estimates.append(rule["estimate"])
    assert len(set(estimates)) == 2


def test_what_is_refused_is_scored_as_the_message_advises(
    evalsvc: Run, models: Path, small: tuple[Path, Path, list[dict[str, Any]]], tmp_path: Path, db: Path
) -> None:
    """The options that messages name are those of the command that refuses: another base, another chat template."""
    suite, policy, _ = small
    adapter = Path(shutil.copytree(models / "lora", tmp_path / "tuned"))
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "org/other"}))
    more = ("--base", models / "base", "--suite", suite, "--quiet", "--json")
    scoring = ("--policy", policy, "--evaluate", "--workers", "0", "--db", db)
    for command in (("checkpoints", "check", adapter, *more), ("gate", adapter, *more, *scoring)):
        refused = evalsvc(*command)
        assert refused.code == 2, refused.err
        (advice,) = re.findall(r"names the base 'org/other', .* or add (--[a-z-]+) if", refused.out + refused.err)
        assert evalsvc(*command, advice).code == 0

    chat = Path(shutil.copytree(models / "full", tmp_path / "chat"))
    tiny.make_tokenizer(tiny.CHAT).save_pretrained(chat)
    suite.write_text(suite.read_text() + "chat_template: 'on'\n")
    refused = evalsvc("gate", chat, *more, *scoring)
    assert refused.code == 2
    ((option, *choices),) = re.findall(r": (--rendering) (adapted) or (plain)$", refused.err.strip())
    for choice in choices:
        assert evalsvc("gate", chat, *more, *scoring, option, choice).code in (0, 3, 4)


def test_drift_suites_are_asked_as_a_whole(gate: Callable[..., Any], db: Path) -> None:
    drift = {"suite": "text", "max_bits_per_byte_increase": 0.0001}
    done = gate("full", "group_sequential", 0.6, drift=drift)
    rule = next(rule for rule in done.json["rules"] if rule["rule"] == "drift/text")
    assert rule["n"] == 12
    assert done.code in (0, 3, 4)


def test_an_arm_of_the_store_is_gated_by_its_label(
    gate: Callable[..., Any], evalsvc: Run, tmp_path: Path, db: Path
) -> None:
    assert gate("lora", "fixed", 0.6).code == 0
    done = evalsvc("gate", "lora", "--policy", tmp_path / "policy.yaml", "--db", db, "--evaluate", "--quiet", "--json")
    assert done.code == 0, done.err
    assert done.json["checkpoint"] == "lora"


def test_a_trajectory_is_no_candidate(gate: Callable[..., Any]) -> None:
    done = gate("run", "fixed", 0.6)
    assert (done.code, done.out) == (2, "")
    assert "2 checkpoints are given, a gate decides on one" in done.err


def test_a_run_that_fails_is_no_evidence(gate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, db: Path) -> None:
    from evalsvc.engine.scorer import Scorer
    from evalsvc.errors import EvalsvcError
    from evalsvc.records.shards import Shard, ShardResult
    from evalsvc.scoring.probe import REQUESTS

    score = Scorer.score

    def broken(self: Scorer, shard: Shard) -> ShardResult:
        if set(shard.requests) <= {request.digest for request in REQUESTS}:
            return score(self, shard)
        raise EvalsvcError("the device is gone")

    monkeypatch.setattr(Scorer, "score", broken)
    for mode in ("fixed", "group_sequential"):
        done = gate("full", mode, 0.6)
        assert (done.code, done.out) == (5, "")
        assert "the device is gone" in done.err
    assert Store(db).arms()
    assert Decisions(db).chain(Store(db).arms()[0].checkpoint.digest) == []


# -------------------------------------------------------------------------------------------------------- power plan


def policy_of(folder: Path, **said: Any) -> Path:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, **said}))
    return path


def test_a_plan_needs_no_store_and_computes_nothing(evalsvc: Run, tmp_path: Path, db: Path) -> None:
    """On shipped suites, at the assumed discordance."""
    policy = policy_of(
        tmp_path,
        learning={"suites": ["clinic"]},
        retention=[{"suite": "valley", "margin": 0.05, "per_task_margin": 0.1}, {"suite": "commands", "margin": 0.03}],
    )
    done = evalsvc("gate", "new", "--policy", policy, "--plan", "--db", db, "--json")
    assert done.code == 0, done.err
    assert not db.exists()
    rules = {rule["rule"]: rule for rule in done.json["rules"]}
    quantiles = norm.isf(0.05 * 6 / np.pi**2) + norm.isf(0.2)  # the level of the first candidate, and the power
    assert rules["retention/commands"]["n"] == 400
    assert rules["retention/commands"]["seen"] is False
    assert rules["retention/commands"]["resolvable"] == pytest.approx(quantiles * (0.1 / 400) ** 0.5, rel=1e-3)
    assert rules["retention/commands"]["needed_n"] == np.ceil(0.1 * (quantiles / 0.03) ** 2)
    assert rules["retention/valley"]["n"] == 351
    assert rules["learning/clinic"]["power"] is None
    assert done.json["requests"] == 2 * (1200 + 1164 + 400)
    assert done.json["seconds"] is None
    assert "Power analysis" in evalsvc("gate", "new", "--policy", policy, "--plan", "--db", db).out


def test_a_plan_uses_what_was_seen_and_what_is_done(
    gate: Callable[..., Any], evalsvc: Run, tmp_path: Path, db: Path
) -> None:
    assert gate("full", "fixed", 0.6).code == 0
    policy = tmp_path / "policy.yaml"
    known = evalsvc("gate", "full", "--policy", policy, "--plan", "--db", db, "--json").json
    assert known["requests"] == 0
    requests = Store(db).runs()[-1].requests
    (rule,) = known["rules"]
    assert rule["seen"] is True
    compared = evalsvc("compare", "full", "--db", db, "--json").json["tasks"]
    expected = sum(task["lost"] + task["gained"] for task in compared) / ITEMS
    assert rule["discordance"] == pytest.approx(expected, abs=0.02)
    assert evalsvc("gate", "new", "--policy", policy, "--plan", "--db", db, "--json").json["requests"] == requests


def test_submitting_under_a_policy_plans_first(
    evalsvc: Run, models: Path, suites: Path, tmp_path: Path, db: Path
) -> None:
    arguments = [
        "submit",
        models / "full",
        "--base",
        models / "base",
        "--suite",
        suites / "core.yaml",
        "--workers",
        "0",
    ]
    impossible = policy_of(tmp_path, retention=[{"suite": "core", "margin": 0.001}])
    done = evalsvc(*arguments, "--policy", impossible, "--db", db)
    assert (done.code, done.out, db.exists()) == (2, "", False)
    assert "needs" in done.err
    elsewhere = policy_of(tmp_path, retention=[{"suite": "clinic", "margin": 0.2}])
    done = evalsvc(*arguments, "--policy", elsewhere, "--db", db)
    assert (done.code, db.exists()) == (2, False)
    assert "suite 'clinic': is in the policy, and not submitted" in done.err
    possible = policy_of(tmp_path, retention=[{"suite": "core", "margin": 0.2}])
    done = evalsvc(*arguments, "--policy", possible, "--db", db)
    assert done.code == 0
    assert "Power analysis" in done.err
    assert "What the policy" not in done.out
    quiet = evalsvc(*arguments, "--policy", possible, "--db", db, "--quiet", "--json")
    assert (quiet.code, quiet.err) == (0, "")


def test_the_demos_policy_can_pass(evalsvc: Run, db: Path) -> None:
    policy = ROOT / "suites" / "policies" / "demo.yaml"
    done = evalsvc("gate", "new", "--policy", policy, "--plan", "--db", db, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["rules"]
