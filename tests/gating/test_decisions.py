"""Decisions from a store through the command line: exit codes, records that can be verified, the alpha ledger."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from evalsvc.gating.decisions import Question, decide
from evalsvc.gating.policy import load_policy
from evalsvc.gating.verify import read_rules
from evalsvc.stats.paired import tango_z
from evalsvc.store.database import Database
from evalsvc.store.decisions import Decisions, record_digest
from evalsvc.store.runs import driver_name
from evalsvc.store.store import Store
from tests.conftest import ROOT
from tests.support import evidence
from tests.support.commands import Run
from tests.support.evidence import (
    BASE,
    BITS,
    CHILD,
    answer_requests,
    fill_store,
    grade_columns,
    make_binary,
    make_candidate,
    make_item_plan,
)
from tests.support.sampled import store_collapsed

pytestmark = pytest.mark.slow

POLICY: dict[str, Any] = {
    "version": 1,
    "learning": {"suites": ["clinic"]},
    "retention": [{"suite": "core", "margin": 0.05, "per_task_margin": 0.08}],
}
GOOD = {"a": make_binary(6, 5, 300), "b": make_binary(4, 4, 200, 1)}
BAD = {"a": make_binary(60, 5, 300), "b": make_binary(4, 4, 200, 1)}
LEARNED = {"q": make_binary(5, 60, 200)}


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., Path]:
    """Write a policy file."""

    def write(**change: Any) -> Path:
        path = tmp_path / "policy.yaml"
        path.write_text(yaml.safe_dump({**POLICY, **change}))
        return path

    return write


_templates: dict[tuple[int, str], Path] = {}


@pytest.fixture(scope="module", autouse=True)
def _folder_of_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    _templates[0, ""] = tmp_path_factory.mktemp("templates")
    yield
    _templates.clear()


def filled(db: Path, core: evidence.Values = GOOD, **options: Any) -> None:
    """Put both suites into a store; made once for equal contents, and copied."""
    key = (id(core), repr(options))
    if key not in _templates:
        _templates[key] = _templates[0, ""] / f"{len(_templates)}.duckdb"
        fill_store(_templates[key], "clinic", LEARNED, role="domain", **options)
        fill_store(_templates[key], "core", core, **options)
    shutil.copy(_templates[key], db)


# --------------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("core", "code", "verdict"),
    [(GOOD, 0, "pass"), (BAD, 3, "fail"), ({"a": make_binary(30, 5, 300), "b": GOOD["b"]}, 4, "inconclusive")],
)
def test_verdicts_are_exit_codes(
    evalsvc: Run, said: Callable[..., Path], db: Path, core: evidence.Values, code: int, verdict: str
) -> None:
    filled(db, core)
    done = evalsvc("gate", "c2", "--policy", said(), "--db", db, "--json")
    assert (done.code, done.err) == (code, "")
    found = done.json
    assert (found["schema"], found["verdict"], found["exit_code"]) == (1, verdict, code)
    assert {rule["rule"] for rule in found["rules"]} == {
        *("learning/clinic", "retention/core", "retention/core/a", "retention/core/b")
    }
    wanted = {"rule", "verdict", "estimate", "low", "high", "margin", "n", "needed_n", "test", "waived"}
    assert all(wanted <= rule.keys() for rule in found["rules"])
    assert found["looks"] == []
    short = [rule for rule in found["rules"] if rule["short"]]
    assert bool(short) == any(rule["verdict"] == "inconclusive" for rule in found["rules"])
    table = evalsvc("gate", "c2", "--policy", said(), "--db", db)
    assert table.code == code
    assert verdict.upper() in table.out


def test_a_usage_error_is_exit_code_2(evalsvc: Run, said: Callable[..., Path], db: Path, tmp_path: Path) -> None:
    filled(db)
    for change, arguments, message in (
        ({"alpa": 1}, ["c2"], "alpa: unknown key"),
        ({"retention": [{"suite": "core", "margin": 0.002}]}, ["c2"], "items, or a larger margin"),
        ({}, ["nobody"], "not in the store by label, name"),
        ({"mode": "finite_pool"}, ["c2", "--half", "select"], "--half needs mode fixed"),
    ):
        done = evalsvc("gate", *arguments, "--policy", said(**change), "--db", db)
        assert (done.code, done.out) == (2, ""), done
        assert message in done.err
        assert done.err.count("\n") == 1
    for policy, store in ((said(), tmp_path / "no.duckdb"), (tmp_path / "none.yaml", db)):
        done = evalsvc("gate", "c2", "--policy", policy, "--db", store)
        assert (done.code, done.out) == (2, "")


def test_a_plan_names_the_rules_that_it_cannot_analyse(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    filled(db)
    bits = (-np.ones(30), -np.ones(30))
    fill_store(db, "texts", {"t": bits}, role="drift", metric=BITS, weights=np.ones(30))
    extra = {"drift": {"suite": "texts", "max_bits_per_byte_increase": 0.1}, "diversity": {"min_ratio": 0.8}}
    for change, names in (({}, []), (extra, ["drift/texts", *["diversity"] * 3])):
        plan = ["gate", "c2", "--policy", said(**change), "--db", db, "--plan"]
        done = evalsvc(*plan, "--json")
        assert done.code == 0, done.err
        assert [note.split(":")[0] for note in done.json["notes"]] == names
        assert all(note in evalsvc(*plan).out for note in done.json["notes"])
    # At the level of the first candidate, 0.0304: n / (n + t^2) > 0.8 with t = 2.017 of 16 degrees of freedom.
    assert "an unchanged checkpoint needs 17 prompts" in done.json["notes"][2]
    assert "no suite with role diversity is in the store" in done.json["notes"][3]


def test_a_plan_of_a_diversity_rule_alone_says_what_is_known(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    store_collapsed(db)
    alone: dict[str, Any] = {"learning": None, "retention": []}
    plan = ["gate", "full", "--policy", said(**alone, diversity={"min_ratio": 0.8}), "--db", db, "--plan"]
    done = evalsvc(*plan)
    assert done.code == 0, done.err
    assert "to score: nothing" in done.out
    assert "diversity/open/open: has 40 prompts" in done.out
    assert not any(words in done.out for words in ("Power analysis", "probability", "100%"))
    report = evalsvc(*plan, "--json").json
    assert (report["rules"], report["power"]) == ([], None)
    said(**alone, diversity={"min_ratio": 0.95})
    refused = evalsvc(*plan)
    assert (refused.code, refused.out) == (2, "")
    # n / (n + t^2) > .95 with t = 1.906 of 69 degrees of freedom.
    assert "diversity/open/open: 40 prompts cannot show at alpha 0.0304 that more than 0.95 is kept" in refused.err
    assert "needs 70, or a smaller min_ratio" in refused.err


def test_a_plan_refuses_what_the_gate_refuses(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    filled(db)
    bits = (-np.ones(300), -np.ones(300))
    fill_store(db, "texts", {"t": bits}, role="drift", metric=BITS, weights=np.ones(300))
    for change in (
        {"retention": [{"suite": "texts", "margin": 0.1}]},
        {"learning": {"suites": ["texts"]}},
        {"drift": {"suite": "core", "max_bits_per_byte_increase": 0.1}},
    ):
        gate = ["gate", "c2", "--policy", said(**change), "--db", db]
        refused, planned = evalsvc(*gate), evalsvc(*gate, "--plan")
        assert (refused.code, planned.code, planned.out) == (5, 5, ""), planned
        assert refused.err == planned.err


def test_a_plan_counts_no_items_that_the_base_cannot_lose(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    nothing = np.zeros(200)
    filled(db, {"a": GOOD["a"], "b": (nothing, nothing)})
    gate = ["gate", "c2", "--policy", said(), "--db", db]
    plan = {rule["rule"]: rule for rule in evalsvc(*gate, "--plan", "--json").json["rules"]}
    alone = {"a": GOOD["a"]}
    filled(db, alone)
    of_a = evalsvc(*gate, "--plan", "--json").json["rules"][1]
    for key in ("n", "units", "power", "needed_n", "resolvable"):
        assert plan["retention/core"][key] == of_a[key]
    assert (plan["retention/core/b"]["power"], plan["retention/core/b"]["needed_n"]) == (0.0, None)
    filled(db, {"a": GOOD["a"], "b": (nothing, nothing)})
    assert "core/b: the base is at zero, so it is no evidence" in evalsvc(*gate, "--plan").out
    decided_on = evalsvc(*gate, "--json").json
    assert {rule["rule"]: rule["blind_spots"] for rule in decided_on["rules"]}["retention/core"] == ["core/b at zero"]
    shown = evalsvc(*gate)
    assert "the base has nothing to lose on more than half of the items (core/b at zero)" in " ".join(shown.out.split())


def test_a_checkpoint_must_not_be_worse_than_what_is_served_now(
    evalsvc: Run, said: Callable[..., Path], db: Path
) -> None:
    """The champion c3 learned 40 of 200 items; c2 learned 55 others and lost 20 of the champion's."""
    base = np.zeros(200)
    champion, better, worse = base.copy(), base.copy(), base.copy()
    champion[:40], better[:80], worse[20:75] = 1, 1, 1
    values = {"c3": champion, "c2": better, "c4": worse}
    for number, name in ((3, "c3"), (2, "c2"), (4, "c4")):
        fill_store(db, "clinic", {"q": (base, values[name])}, role="domain", adapted=make_candidate(number))
        fill_store(db, "core", GOOD, adapted=make_candidate(number))
    policy = said(incumbent={"margin": 0.05})
    gate = ["gate", "c4", "--policy", policy, "--db", db, "--batch-size", "1", "--incumbent"]
    done = evalsvc(*gate, "c3", "--json")
    rules = {rule["rule"]: rule for rule in done.json["rules"]}
    assert done.json["incumbent"] == "c3"
    assert rules["learning/clinic"]["verdict"] == "pass"
    against = rules["incumbent/clinic"]
    # Of the champion's 40 right items 20 are lost, and 35 are gained: Tango's interval, found by its definition.
    assert (against["lost"], against["gained"], against["estimate"]) == (20, 35, pytest.approx(15 / 200))
    for end in (against["low"], against["high"]):
        assert abs(float(tango_z(end, 20, 35, 200))) == pytest.approx(1.6449, abs=1e-3)
    assert rules["incumbent/core"]["estimate"] == 0
    path = done.json["decision"]["path"]
    assert evalsvc("verify", path, "--db", db).code == 0
    assert "c4 against c1 and c3, which is served now" in " ".join(evalsvc(*gate, "c3").out.split())
    for incumbent, code, message in (
        ("c4", 5, "is the checkpoint itself"),
        ("nobody", 2, "not in the store"),
    ):
        refused = evalsvc(*gate, incumbent)
        assert (refused.code, message in refused.err, refused.err.count("\n")) == (code, True, 1), refused
    planned = evalsvc(*gate, "nobody", "--plan")
    assert (planned.code, planned.out, planned.err.count("\n")) == (2, "", 1), planned
    assert "'nobody'" in planned.err
    assert "not in the store" in planned.err
    for change, option, message in (
        ({}, ["--incumbent", "c3"], "add incumbent: {margin: 0.02}"),
        ({"incumbent": {"margin": 0.05}}, [], "name the arm that is served now with --incumbent"),
        ({"incumbent": {"margin": 0.05}, "mode": "finite_pool"}, ["--incumbent", "c3"], "needs mode fixed"),
    ):
        refused = evalsvc("gate", "c4", "--policy", said(**change), "--db", db, *option)
        assert (refused.code, message in refused.err, refused.err.count("\n")) == (2, True, 1), refused
    sql(db, "UPDATE scores SET value = 1 - value WHERE task = 'q' AND run = (SELECT min(run) FROM runs WHERE arm = 2)")
    assert evalsvc("verify", path, "--db", db).code == 5


@pytest.mark.parametrize("half", ["select", "confirm"])
def test_the_incumbent_is_compared_on_the_same_half(
    evalsvc: Run, said: Callable[..., Path], db: Path, half: str
) -> None:
    fill_store(db, "clinic", LEARNED, role="domain")
    fill_store(db, "core", GOOD)
    fill_store(db, "clinic", LEARNED, role="domain", adapted=make_candidate(3))
    fill_store(db, "core", BAD, adapted=make_candidate(3))
    options = ["--policy", said(incumbent={"margin": 0.2}), "--db", db, "--half", half, "--json"]
    done = evalsvc("gate", "c2", *options, "--incumbent", "c3")
    rules = {rule["rule"]: rule for rule in done.json["rules"]}
    assert rules["incumbent/core"]["n"] == rules["retention/core"]["n"] < 500
    # The loss against the base is that of the champion plus that against it.
    alone = ["--policy", said(), *options[2:]]
    of_c2, of_c3 = (evalsvc("gate", arm, *alone).json["rules"][1]["estimate"] for arm in ("c2", "c3"))
    assert rules["incumbent/core"]["estimate"] == pytest.approx(of_c2 - of_c3)


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("nosuch", "--suite FILE.yaml, with its file (suites with scores: clinic, core)"),
        ("cores", "did you mean core?"),
        ("commands", "run: evalsvc submit c2 --suite commands"),
    ],
)
def test_a_suite_without_scores_is_advised_on(
    evalsvc: Run, said: Callable[..., Path], db: Path, suite: str, message: str
) -> None:
    filled(db)
    done = evalsvc("gate", "c2", "--policy", said(retention=[{"suite": suite, "margin": 0.05}]), "--db", db)
    assert (done.code, message in done.err) == (5, True), done.err


def unfinished(db: Path) -> None:
    filled(db)
    made = make_item_plan("core", GOOD, version="2")
    store = Store(db)
    store.register([BASE, CHILD], [made], driver_name())
    answer_requests(store, BASE, made)
    store.finish(BASE, made, grade_columns(made, [pair[0] for pair in GOOD.values()]))
    answer_requests(store, CHILD, made, 100)


def failed(db: Path) -> None:
    filled(db)
    store = Store(db)
    store.fail(CHILD, make_item_plan("core", GOOD), "a request could not be answered")


def base_failed(db: Path) -> None:
    filled(db)
    Store(db).fail(BASE, make_item_plan("core", GOOD), "gone")


def stale_base(db: Path) -> None:
    filled(db)
    made = make_item_plan("core", GOOD, version="2")
    store = Store(db)
    store.register([CHILD], [made], driver_name())
    answer_requests(store, CHILD, made)
    store.finish(CHILD, made, grade_columns(made, [pair[1] for pair in GOOD.values()]))


def only_an_old_version(db: Path) -> None:
    filled(db)
    fill_store(db, "core", GOOD, adapted=make_candidate(3), version="2")


def missing_task(db: Path) -> None:
    filled(db)
    sql(db, "DELETE FROM scores WHERE task = 'b' AND run = (SELECT max(run) FROM runs)")


def missing_task_of_base(db: Path) -> None:
    filled(db)
    sql(db, "DELETE FROM scores WHERE task = 'b' AND run = (SELECT max(run) - 1 FROM runs)")


def missing_item(db: Path) -> None:
    filled(db)
    sql(db, "DELETE FROM scores WHERE rowid = (SELECT max(rowid) FROM scores)")


def missing_item_of_base(db: Path) -> None:
    filled(db)
    sql(db, "DELETE FROM scores WHERE task = 'b' AND run = (SELECT max(run) - 1 FROM runs) AND sample % 7 = 0")


def missing_in_both(db: Path) -> None:
    filled(db)
    sql(db, "DELETE FROM scores WHERE task = 'b' AND sample % 7 = 0")


def null_score(db: Path) -> None:
    filled(db)
    sql(db, "UPDATE scores SET value = NULL WHERE rowid = (SELECT max(rowid) FROM scores)")


def nan_score(db: Path) -> None:
    filled(db)
    sql(db, "UPDATE scores SET value = 'NaN' WHERE rowid = (SELECT max(rowid) FROM scores)")


def infinite_score(db: Path) -> None:
    filled(db)
    sql(db, "UPDATE scores SET value = '-Infinity' WHERE rowid = (SELECT max(rowid) FROM scores)")


def unpaired(db: Path) -> None:
    """As many scores of the adapted arm, but of other samples."""
    filled(db)
    sql(db, "UPDATE scores SET sample = sample + 100000 WHERE task = 'b' AND run = (SELECT max(run) FROM runs)")


def scored_by_another_filter(db: Path) -> None:
    filled(db)
    sql(db, "UPDATE scores SET filter = 'strict' WHERE task = 'b' AND run = (SELECT max(run) FROM runs)")


def graded_but_not_done(db: Path) -> None:
    filled(db)
    sql(db, "UPDATE runs SET state = 'running' WHERE run = (SELECT max(run) FROM runs)")


def planned_items_gone(db: Path) -> None:
    filled(db)
    sql(db, "DELETE FROM plan_samples WHERE task = 'b' AND sample % 7 = 0")


def suite_file_changed(db: Path) -> None:
    """The suite's file is there, and says something else than when it was planned."""
    file = db.with_name("core.yaml")
    file.write_text("name: core\nrole: general\ntasks: [a, b]\n")
    filled(db)
    sql(db, f"INSERT INTO plan_files SELECT plan, '{file}', 'older' FROM plans WHERE suite = 'core'")


def out_of_range(db: Path) -> None:
    filled(db)
    sql(db, "UPDATE scores SET value = -3 WHERE rowid = (SELECT max(rowid) FROM scores)")


def doubled_score(db: Path) -> None:
    filled(db)
    sql(db, "INSERT INTO scores SELECT * FROM scores WHERE rowid = (SELECT max(rowid) FROM scores)")


def other_numerics(db: Path) -> None:
    other = replace(CHILD, numerics=replace(CHILD.numerics, dtype="bfloat16"))
    filled(db, adapted=other)


def no_learning_suite(db: Path) -> None:
    fill_store(db, "core", GOOD)


def other_metric(db: Path) -> None:
    fill_store(db, "clinic", LEARNED, role="domain")
    values = {"a": (-np.ones(300), -np.ones(300))}
    fill_store(db, "core", values, metric=BITS, weights=np.ones(300))


def differently_rendered(db: Path) -> None:
    """The adapted arm answered other prompts: its suite has another version, and other samples."""
    fill_store(db, "clinic", LEARNED, role="domain")
    store = Store(db)
    for of, version in ((BASE, "plain"), (CHILD, "chat")):
        made = make_item_plan("core", GOOD, version=version)
        store.register([of], [made], driver_name())
        answer_requests(store, of, made)
        store.finish(of, made, grade_columns(made, [pair[0] for pair in GOOD.values()]))


def base_without_runs(db: Path) -> None:
    store = Store(db)
    made = make_item_plan("core", GOOD)
    store.register([CHILD], [made], driver_name())
    answer_requests(store, CHILD, made)
    store.finish(CHILD, made, grade_columns(made, [pair[1] for pair in GOOD.values()]))


def orphan(db: Path) -> None:
    filled(db)
    sql(db, "UPDATE checkpoints SET parent = NULL")


def foreign_parent(db: Path) -> None:
    filled(db)
    sql(db, "UPDATE checkpoints SET parent = 'sha256:gone' WHERE parent IS NOT NULL")


def no_results(db: Path) -> None:
    filled(db)
    sql(db, "DELETE FROM scores")


def only_looks(db: Path) -> None:
    filled(db)
    sql(db, "UPDATE plans SET part_of = 'whole' WHERE suite = 'core'")


def sql(db: Path, statement: str) -> None:
    with Database(db).write() as connection:
        connection.execute(statement)


BROKEN: list[Callable[[Path], None]] = [
    *(unfinished, failed, base_failed, stale_base, only_an_old_version, missing_task, missing_task_of_base),
    *(missing_item, missing_item_of_base, missing_in_both, null_score, out_of_range, doubled_score, other_numerics),
    *(no_learning_suite, other_metric, differently_rendered, base_without_runs, orphan, foreign_parent, no_results),
    *(only_looks, nan_score, infinite_score, unpaired, scored_by_another_filter, graded_but_not_done),
    *(planned_items_gone, suite_file_changed),
]


@pytest.mark.parametrize(
    ("broken", "mode"),
    [
        *((broken, "fixed") for broken in BROKEN),
        *(
            (broken, mode)
            for broken in (missing_item, null_score, unpaired)
            for mode in ("group_sequential", "finite_pool")
        ),
    ],
)
def test_broken_evidence_is_exit_code_5_and_in_every_output(
    evalsvc: Run,
    said: Callable[..., Path],
    db: Path,
    tmp_path: Path,
    broken: Callable[[Path], None],
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken(db)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    done = evalsvc("gate", "c2", "--policy", said(mode=mode), "--db", db, "--junit", tmp_path / "gate.xml", "--json")
    assert (done.code, done.out) == (5, ""), done
    assert done.err.count("\n") == 1
    assert "<error" in (tmp_path / "gate.xml").read_text()
    assert summary.read_text().startswith("before\n")
    assert "NO VERDICT" in summary.read_text()
    assert Decisions(db).chain(BASE.checkpoint.digest) == []


@pytest.mark.parametrize(
    "change",
    [
        {"learning": None, "retention": []},
        {"retention": [{"suite": "cora", "margin": 0.05}]},
        {"learning": {"suites": ["clinics"]}},
        {"drift": {"suite": "texts", "max_bits_per_byte_increase": 0.1}},
        {"drift": {"suite": "core", "max_bits_per_byte_increase": 0.1}},
        {"diversity": {"min_ratio": 0.8}},
    ],
)
def test_a_policy_that_names_what_is_not_there_is_exit_code_5(
    evalsvc: Run, said: Callable[..., Path], db: Path, change: dict[str, Any]
) -> None:
    filled(db)
    assert evalsvc("gate", "c2", "--policy", said(**change), "--db", db).code == 5


def test_the_base_is_no_candidate(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    filled(db)
    assert evalsvc("gate", "c1", "--policy", said(), "--db", db).code == 5
    assert evalsvc("gate", "c1", "--base", "c1", "--policy", said(), "--db", db).code == 5


# -------------------------------------------------------------------------------------------------------------- record


def decided(evalsvc: Run, policy: Path, db: Path, arm: str = "c2", *more: str) -> dict[str, Any]:
    found: dict[str, Any] = evalsvc("gate", arm, "--policy", policy, "--db", db, "--json", *more).json
    return found


@pytest.mark.parametrize("mode", ["fixed", "group_sequential", "finite_pool"])
@pytest.mark.parametrize("core", [GOOD, BAD])
def test_a_decision_can_be_recomputed(
    evalsvc: Run, said: Callable[..., Path], db: Path, mode: str, core: evidence.Values
) -> None:
    filled(db, core)
    found = decided(evalsvc, said(mode=mode), db)
    path = Path(found["decision"]["path"])
    assert path.parent == db.with_name(db.name + ".decisions")
    record = json.loads(path.read_text())
    assert record["digest"] == record_digest(record) == found["decision"]["digest"]
    assert record["checkpoint"]["digest"] == CHILD.checkpoint.digest
    assert {suite["suite"] for suite in record["suites"]} == {"clinic", "core"}
    assert record["packages"]["numpy"] == np.__version__
    assert {entry["task"] for entry in record["inputs"]} == {"q", "a", "b"}
    done = evalsvc("verify", path, "--db", db)
    assert (done.code, done.out[:6]) == (0, "equal:")
    again = decided(evalsvc, said(mode=mode), db)
    assert again["rules"] == found["rules"]
    assert again["decision"]["previous"] == found["decision"]["digest"]


def edited(record: dict[str, Any], path: list[Any], value: Any, *, redigested: bool) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(record))
    inner: Any = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    if redigested:
        copy["digest"] = record_digest(copy)
    return copy


@pytest.mark.parametrize("redigested", [False, True])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["verdict"], "pass"),
        (["rules", 1, "verdict"], "pass"),
        (["rules", 1, "margin"], 0.5),
        (["policy", "content", "retention", 0, "margin"], 0.5),
        (["inputs", 0, "lost"], 0),
        (["checkpoint", "key"], BASE.key),
        (["waivers"], [{"waiver": "x", "state": "applied"}]),
        (["candidate", "number"], 2),
        (["candidate", "alpha"], 0.05),
        (["candidate", "batch_size"], 1),
        (["decided"], "yesterday"),
        (["previous"], "0" * 32),
        (["suites"], []),
    ],
)
def test_an_edited_record_is_caught(
    evalsvc: Run, said: Callable[..., Path], db: Path, tmp_path: Path, path: list[Any], value: Any, redigested: bool
) -> None:
    filled(db, BAD)
    found = decided(evalsvc, said(), db)
    record = json.loads(Path(found["decision"]["path"]).read_text())
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(edited(record, path, value, redigested=redigested)))
    done = evalsvc("verify", forged, "--db", db, "--json")
    assert done.code == 5
    assert done.json["differences"]


def test_changed_scores_and_a_changed_ledger_are_caught(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    filled(db, BAD)
    paths = [Path(decided(evalsvc, said(), db)["decision"]["path"]) for _ in range(3)]
    assert all(evalsvc("verify", path, "--db", db).code == 0 for path in paths)
    sql(
        db,
        'UPDATE decisions SET record = replace(record, \'"verdict":"fail"\', \'"verdict":"pass"\') WHERE decision = 1',
    )
    done = evalsvc("verify", paths[2], "--db", db)
    assert (done.code, "decision 1 of this base was edited" in done.out) == (5, True)
    sql(db, "DELETE FROM decisions WHERE decision = 1")
    assert "does not follow the previous one" in evalsvc("verify", paths[2], "--db", db).out
    sql(db, "DELETE FROM decisions")
    assert "the store has no decision" in evalsvc("verify", paths[2], "--db", db).out


def test_scores_that_changed_afterwards_are_named(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    filled(db, BAD)
    path = decided(evalsvc, said(), db)["decision"]["path"]
    sql(db, "UPDATE scores SET value = 1 WHERE task = 'a'")
    done = evalsvc("verify", path, "--db", db)
    assert done.code == 5
    assert "rules retention/core/a" in done.out
    assert "inputs core/a" in done.out


@pytest.mark.parametrize(("shift", "code"), [(1e-14, 0), (1e-6, 5)])
def test_a_record_of_another_processor_or_an_earlier_version_holds_but_for_what_matters(
    evalsvc: Run, said: Callable[..., Path], db: Path, shift: float, code: int
) -> None:
    filled(db, BAD)
    path = Path(decided(evalsvc, said(), db)["decision"]["path"])
    record = json.loads(path.read_text())
    (of_a,) = (entry for entry in record["inputs"] if entry["task"] == "a")
    of_a["stderr"] *= 1 + shift
    of_a["agreement"] = 0.9  # once kept, and never decided on
    record["digest"] = record_digest(record)
    with Database(db).write() as connection:
        connection.execute("UPDATE decisions SET digest = ?, record = ?", [record["digest"], json.dumps(record)])
    path.write_text(json.dumps(record))
    done = evalsvc("verify", path, "--db", db)
    assert (done.code, "inputs core/a: stderr" in done.out) == (code, code == 5)


def test_a_record_without_kinds_and_thresholds_is_read_and_holds(
    evalsvc: Run, said: Callable[..., Path], db: Path
) -> None:
    """Version 0.1.0 kept neither; both follow from a rule's name and margin."""
    filled(db, BAD)
    path = Path(decided(evalsvc, said(group_margin=0.05), db)["decision"]["path"])
    record = json.loads(path.read_text())
    rules = read_rules(record)
    assert {(r.rule, r.kind, r.suite, r.task, r.threshold) for r in rules} == {
        ("learning/clinic", "learning", "clinic", None, 0.0),
        ("retention/core", "retention", "core", None, -0.05),
        ("retention/core/a", "retention", "core", "a", -0.08),
        ("retention/core/b", "retention", "core", "b", -0.08),
        ("retention/group", "retention", None, None, -0.05),
    }
    for rule in record["rules"]:
        for key in ("kind", "suite", "task", "threshold"):
            del rule[key]
    del record["statistics"]
    record["digest"] = record_digest(record)
    with Database(db).write() as connection:
        connection.execute("UPDATE decisions SET digest = ?, record = ?", [record["digest"], json.dumps(record)])
    path.write_text(json.dumps(record))
    assert read_rules(record) == rules
    assert evalsvc("verify", path, "--db", db).code == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "evalsvc decision", "schema": 9}'])
def test_what_is_no_record_is_refused(evalsvc: Run, db: Path, tmp_path: Path, text: str) -> None:
    filled(db)
    (tmp_path / "r.json").write_text(text)
    done = evalsvc("verify", tmp_path / "r.json", "--db", db)
    assert (done.code, done.out, done.err.count("\n")) == (5, "", 1)


# -------------------------------------------------------------------------------------------------------- alpha ledger


def test_candidates_on_the_same_items_share_alpha(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    filled(db, BAD)
    just = {"a": make_binary(10, 5, 300, 2), "b": make_binary(5, 4, 200, 3)}
    rule = {"suite": "core", "margin": 0.04}
    verdicts = []
    for number in (3, 4):
        fill_store(db, "core", just, adapted=make_candidate(number))
        power = evalsvc("gate", f"c{number}", "--policy", said(learning=None, retention=[rule]), "--db", db, "--plan")
        found = decided(evalsvc, said(learning=None, retention=[rule]), db, f"c{number}")
        p = max(rule["p_pass"] for rule in found["rules"])
        assert 0.05 * 6 / np.pi**2 / 4 < p < 0.05 * 6 / np.pi**2
        assert found["candidate"]["alpha"] == pytest.approx(0.05 * 6 / np.pi**2 / (number - 2) ** 2)
        assert f"candidate {number - 2} on these items" in power.out
        verdicts.append(found["verdict"])
        assert evalsvc("verify", found["decision"]["path"], "--db", db).code == 0
    assert verdicts == ["pass", "inconclusive"]
    # Neither another margin, nor the same candidate again, starts the count anew; the first keeps its place.
    again = decided(evalsvc, said(learning=None, retention=[{**rule, "margin": 0.041}]), db, "c4")
    assert again["candidate"] == {"number": 2, "seen": 2, "batch_size": None, "alpha": found["candidate"]["alpha"]}
    first = decided(evalsvc, said(learning=None, retention=[rule]), db, "c3")
    assert (first["verdict"], first["candidate"]["number"], first["candidate"]["seen"]) == ("pass", 1, 2)
    late = evalsvc("gate", "c3", "--policy", said(learning=None), "--db", db, "--batch-size", "5")
    assert (late.code, "no batch was declared before the first of 2 candidates" in late.err) == (2, True)


def test_a_declared_batch_is_tested_at_equal_levels(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    filled(db)
    policy = said(learning=None)
    for number in (2, 3):
        if number == 3:
            fill_store(db, "core", GOOD, adapted=make_candidate(3))
        found = decided(evalsvc, policy, db, f"c{number}", *(("--batch-size", "2") if number == 2 else ()))
        assert found["candidate"] == {"number": number - 1, "seen": number - 1, "batch_size": 2, "alpha": 0.025}
        assert evalsvc("verify", found["decision"]["path"], "--db", db).code == 0
    fill_store(db, "core", GOOD, adapted=make_candidate(4))
    for more in ([], ["--plan"]):
        beyond = evalsvc("gate", "c4", "--policy", policy, "--db", db, *more)
        assert (beyond.code, "the batch of 2 candidates that was declared is used up" in beyond.err) == (5, True)
    none = evalsvc("gate", "c4", "--policy", policy, "--db", db, "--batch-size", "0")
    assert (none.code, none.err.count("\n")) == (2, 1)


def test_a_plan_is_for_the_half_that_is_asked_about(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    filled(db, {"a": make_binary(6, 5, 301), "b": make_binary(4, 4, 201, 1)})
    policy = said(retention=[{"suite": "core", "margin": 0.05}])
    for half in ("select", "confirm"):
        options = ["gate", "c2", "--policy", policy, "--db", db, "--half", half, "--json"]
        planned = {rule["rule"]: rule["n"] for rule in evalsvc(*options, "--plan").json["rules"]}
        assert planned == {rule["rule"]: rule["n"] for rule in evalsvc(*options).json["rules"]}


def test_two_gates_at_once_are_not_the_same_candidate(
    said: Callable[..., Path], db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the count of one and its record, the other is stored: then the first counts again."""
    filled(db)
    fill_store(db, "core", GOOD, adapted=make_candidate(3))
    policy = load_policy(said(learning=None))
    append, others = Decisions.append, ["c3"]

    def append_late(self: Decisions, *arguments: Any) -> Any:
        if others:
            decide(Store(db), Question(checkpoint=others.pop(), policy=policy))
        return append(self, *arguments)

    monkeypatch.setattr(Decisions, "append", append_late)
    late = decide(Store(db), Question(checkpoint="c2", policy=policy))
    chain = Decisions(db).chain(BASE.checkpoint.digest)
    assert [(entry["checkpoint"]["arm"], entry["candidate"]["number"]) for entry in chain] == [("c3", 1), ("c2", 2)]
    assert late.record == chain[1]


def test_halves_share_no_item_and_have_a_ledger_of_their_own(evalsvc: Run, said: Callable[..., Path], db: Path) -> None:
    filled(db)
    policy = said(retention=[{"suite": "core", "margin": 0.05}])
    whole, select, confirm = (
        decided(evalsvc, policy, db, "c2", *more) for more in ([], ["--half", "select"], ["--half", "confirm"])
    )
    for w, s, c in zip(whole["rules"], select["rules"], confirm["rules"], strict=True):
        assert s["n"] + c["n"] == w["n"]
        assert s["lost"] + c["lost"] == w["lost"]
    assert evalsvc("verify", confirm["decision"]["path"], "--db", db).code == 0


# ------------------------------------------------------------------------------------------------------- waivers, speed


def test_waived_rules_stay_visible_in_every_output(
    evalsvc: Run, said: Callable[..., Path], db: Path, tmp_path: Path
) -> None:
    filled(db, BAD)
    waivers = [
        {
            "rule": rule,
            "checkpoint": CHILD.checkpoint.digest,
            "reason": "old <b>bug</b>",
            "owner": "ada",
            "expires": "2099-01-01",
        }
        for rule in ("retention/core", "retention/core/a")
    ]
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    policy = said(waivers=waivers)
    done = evalsvc("gate", "c2", "--policy", policy, "--db", db, "--junit", junit, "--markdown", markdown)
    assert done.code == 0
    for text in (done.out, junit.read_text(), markdown.read_text()):
        assert "waived" in text
        assert "ada, until 2099-01-01" in " ".join(text.split())
    assert "<b>" not in junit.read_text() + markdown.read_text()
    expired = said(waivers=[{**waiver, "expires": "2020-01-01"} for waiver in waivers])
    done = evalsvc("gate", "c2", "--policy", expired, "--db", db)
    assert done.code == 3
    assert "expired on 2020-01-01" in " ".join(done.out.split())


def test_the_gate_loads_nothing_that_only_scoring_needs(said: Callable[..., Path], db: Path) -> None:
    filled(db)
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "evalsvc",
        "gate",
        "c2",
        "--policy",
        str(said()),
        "--db",
        str(db),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "numpy" in loaded
    assert not loaded & {"torch", "transformers", "lm_eval", "datasets", "ray", "plotly", "streamlit"}


def test_less_than_full_coverage_is_decided_where_it_is_allowed(
    evalsvc: Run, said: Callable[..., Path], db: Path
) -> None:
    filled(db, BAD)
    sql(db, "DELETE FROM scores WHERE task = 'a' AND run = (SELECT max(run) FROM runs) AND sample % 50 = 0")
    assert evalsvc("gate", "c2", "--policy", said(), "--db", db).code == 5
    found = evalsvc("gate", "c2", "--policy", said(require={"min_coverage": 0.95}), "--db", db, "--json")
    assert found.code == 3
    assert found.json["lost_items"]
    assert evalsvc("verify", found.json["decision"]["path"], "--db", db).code == 0
