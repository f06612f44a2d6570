"""Arms whose base is prompted instead of trained: few-shot examples and retrieved passages, on real models."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsvc.analysis import stored
from evalsvc.checkpoints.discover import Description
from evalsvc.errors import SuiteError, UsageError
from evalsvc.scoring.driver import RunJob
from evalsvc.scoring.submission import Source, Submission
from evalsvc.scoring.submit import submit
from evalsvc.settings import Compute
from evalsvc.store.arms import find_arm, find_family
from evalsvc.store.database import Database
from evalsvc.store.store import Store
from tests.support.commands import Run
from tests.support.tasks import CHOICE, make_choices, make_sentence, write_task


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a domain and a general suite, one with the domain's documents and passages, and some that fit neither."""
    folder = tmp_path_factory.mktemp("prompting")
    rng = random.Random(3)
    rows = make_choices(rng, 24)
    helped = [{**row, "passage": f"{row['query']} {row['choices'][row['gold']]}"} for row in rows]
    with_passage = {**CHOICE, "doc_to_text": "{{passage}} {{query}}"}
    write_task(folder, "asked", rows, **CHOICE)
    write_task(folder, "kept", make_choices(rng, 20), **CHOICE)
    write_task(folder, "helped", helped, **with_passage)
    write_task(folder, "others", [{**row, "gold": (row["gold"] + 1) % 4} for row in helped], **with_passage)
    for file, name, role, tasks in (
        ("domain", "domain", "domain", [{"task": "asked", "limit": 15}]),
        ("general", "general", "general", ["kept"]),
        ("passages", "domain", "domain", ["helped"]),
        ("wrong", "domain", "domain", ["others"]),
        ("lost", "elsewhere", "domain", ["helped"]),
        ("two", "domain", "domain", ["helped", "kept"]),
    ):
        text = yaml.safe_dump({"name": name, "role": role, "include": str(folder), "tasks": tasks})
        (folder / f"{file}.yaml").write_text(text)
    return folder


def run(db: Path, models: Path, folder: Path, **options: Any) -> tuple[list[RunJob], list[str]]:
    notes: list[str] = []
    files = tuple(str(folder / f"{name}.yaml") for name in ("domain", "general"))
    wanted = Submission(
        sources=(Source(str(models / "base")),), base=None, suites=files, compute=Compute(workers=0, device="cpu")
    )
    jobs = submit(Store(db), replace(wanted, **options), lambda done, total: None, notes.append)
    return jobs, notes


def by_document(db: Path, arm: str, task: str) -> dict[int, float]:
    """Return an arm's scores on the base's newest plans, by the position of the document."""
    store = Store(db)
    arms = {one.label: one.number for one in store.arms()}
    found = {scores.task: scores for scores in store.task_scores(arms["base"], [arms[arm]])[arms[arm]]}[task]
    with Database(db).read() as connection:
        place = dict(connection.execute("SELECT sample, doc_id FROM samples").fetchall())
    return {place[sample]: value for sample, value in zip(found.samples.tolist(), found.values.tolist(), strict=True)}


def test_worked_examples_are_an_arm_on_the_frontier(models: Path, db: Path, tmp_path: Path, suites: Path) -> None:
    jobs, notes = run(db, models, suites, shots=2)
    assert [(job.arm.label, job.state) for job in jobs] == [("base", "done")] * 2 + [("base-2shot", "done")] * 2
    # The base's own answers to the general suite serve the arm too: it has the same weights, and is asked the same.
    assert "scoring 200 requests for 2 arms" in notes
    store = Store(db)
    compared = stored.compare_arms(store, "base-2shot")
    assert compared.adapted.checkpoint.method == "icl"
    learned, kept = compared.tasks
    assert (learned.task, learned.n, kept.task, kept.n) == ("asked", 15, "kept", 20)
    assert (kept.lost, kept.gained) == (0, 0)

    said = yaml.safe_load((suites / "domain.yaml").read_text())
    (tmp_path / "shots.yaml").write_text(yaml.safe_dump({**said, "tasks": [{"task": "asked", "shots": 2}]}))
    run(tmp_path / "alone.duckdb", models, suites, suites=(str(tmp_path / "shots.yaml"),))
    expected = by_document(tmp_path / "alone.duckdb", "base", "asked")
    found = by_document(db, "base-2shot", "asked")
    assert len(found) == 15
    assert found.items() <= expected.items()
    assert found != by_document(db, "base", "asked")

    points = {point.arm: point for point in stored.load_frontier(store, find_family(store.arms())).points}
    assert points["base-2shot"].forgetting == 0
    base, prompted = points["base"].cost, points["base-2shot"].cost
    assert (base.tokens_per_query or 0) * 1.5 < (prompted.tokens_per_query or 0)
    assert (prompted.gpu_hours, prompted.train_tokens, prompted.trainable_share) == (0, 0, 0)


def test_submitting_again_scores_nothing_and_another_number_of_examples_is_another_arm(
    models: Path, db: Path, suites: Path
) -> None:
    run(db, models, suites, shots=2)
    again, notes = run(db, models, suites, shots=2)
    assert {job.state for job in again} == {"done"}
    assert not any(note.startswith("scoring") for note in notes)
    more, notes = run(db, models, suites, shots=3)
    assert {job.state for job in more} == {"done"}
    assert "scoring 60 requests for 2 arms" in notes
    assert [arm.label for arm in Store(db).arms()] == ["base", "base-2shot", "base-3shot"]
    assert find_arm(Store(db).arms(), str(models / "base")).label == "base"


def test_retrieved_passages_are_paired_by_document(models: Path, db: Path, tmp_path: Path, suites: Path) -> None:
    passages = str(suites / "passages.yaml")
    jobs, _ = run(db, models, suites, prompts=(passages,))
    assert jobs[-1].arm.label == "base-rag"
    run(tmp_path / "alone.duckdb", models, suites, suites=(passages,))
    expected = by_document(tmp_path / "alone.duckdb", "base", "helped")
    found = by_document(db, "base-rag", "asked")
    assert len(found) == 15
    assert found.items() <= expected.items()
    assert found != by_document(db, "base", "asked")
    said = Description(name="library", method="icl")
    named, _ = run(db, models, suites, prompts=(passages,), sources=(Source(str(models / "base"), said),))
    assert named[-1].arm.checkpoint.method == "icl"
    assert [arm.label for arm in Store(db).arms()] == ["base", "base-rag", "library"]


def test_trained_and_prompted_arms_are_placed_gated_and_shown_alike(
    models: Path,
    db: Path,
    suites: Path,
    tmp_path: Path,
    evalsvc: Run,
) -> None:
    given = ["--db", db, "--workers", "0"]
    given += [option for name in ("domain", "general") for option in ("--suite", suites / f"{name}.yaml")]
    for arguments in ([models / "base", "--shots", "2"], [models / "lora", "--base", models / "base"]):
        done = evalsvc("submit", *arguments, *given)
        assert done.code == 0, done.err
    frontier = evalsvc("frontier", "--db", db, "--json").json
    assert {point["method"] for point in frontier["points"]} == {"base", "icl", "lora"}
    policy = tmp_path / "policy.yaml"
    retention = [{"suite": "general", "margin": 0.2}]
    content = {"version": 1, "learning": {"suites": ["domain"]}, "retention": retention}
    guessing = {"require": {"allow_blind_spots": ["general"]}}  # the models have random weights
    policy.write_text(yaml.safe_dump(content | guessing))
    done = evalsvc("gate", "base-2shot", "--policy", policy, "--db", db, "--json")
    assert [rule["verdict"] for rule in done.json["rules"] if "general" in rule["rule"]] == ["pass"]
    shown = evalsvc("checkpoints", "show", "base-2shot", "--db", db)
    assert shown.code == 0, shown.err


@pytest.mark.parametrize(
    ("options", "wrong", "message"),
    [
        ({"shots": 2, "prompts": ["passages"]}, UsageError, "cannot go with --prompts"),
        ({"shots": 2, "base": "base", "source": "lora"}, UsageError, "is adapted; other prompts are for its base"),
        ({"shots": 2, "suites": ["general"]}, UsageError, "no suite has role domain"),
        ({"prompts": ["lost"]}, SuiteError, "its name 'elsewhere' must be the name of the domain suite"),
        ({"prompts": ["wrong"]}, SuiteError, "gold answers differ from task asked; only the prompts may differ"),
        ({"prompts": ["two"]}, SuiteError, "has 2 tasks, but suite domain has 1"),
        ({"shots": 2, "method": "lora"}, UsageError, "--method lora must be icl or rag"),
        ({"method": "rag"}, UsageError, "is not a training method; give --shots N or --prompts FILE"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_stores_nothing(
    models: Path, db: Path, suites: Path, options: dict[str, Any], wrong: type[UsageError], message: str
) -> None:
    given = dict(options)
    said = Description(method=given.pop("method", None))
    given["sources"] = (Source(str(models / given.pop("source", "base")), said),)
    given |= {"base": str(models / "base")} if "base" in given else {}
    given |= {
        key: tuple(str(suites / f"{n}.yaml") for n in given[key]) for key in ("prompts", "suites") if key in given
    }
    with pytest.raises(wrong, match=message):
        run(db, models, suites, **given)
    assert not db.exists()


@pytest.mark.parametrize("prompts", [{"shots": 2}, {"prompts": "passages"}])
def test_the_same_documents_are_drawn_whatever_the_prompts(
    models: Path, db: Path, tmp_path: Path, prompts: dict[str, Any]
) -> None:
    """F1 of the base and of its arm with examples, or with passages, which are part of the documents there."""
    rng = random.Random(4)
    rows = [{"query": make_sentence(rng), "choices": ["no", "yes"], "gold": rng.randrange(2)} for _ in range(40)]
    f1 = {**CHOICE, "metric_list": [{"metric": "f1", "aggregation": "f1", "higher_is_better": True}]}
    write_task(tmp_path, "asked", rows, **f1)
    helped = [{**row, "passage": make_sentence(rng)} for row in rows]
    write_task(tmp_path, "helped", helped, **{**f1, "doc_to_text": "{{passage}} {{query}}"})
    for file, task in (("domain", {"task": "asked", "limit": 30}), ("passages", {"task": "helped"})):
        suite = {"name": "domain", "role": "domain", "include": str(tmp_path), "tasks": [task]}
        (tmp_path / f"{file}.yaml").write_text(yaml.safe_dump(suite))
    if "prompts" in prompts:
        prompts = {"prompts": (str(tmp_path / "passages.yaml"),)}
    run(db, models, tmp_path, suites=(str(tmp_path / "domain.yaml"),), **prompts)
    base, arm = Store(db).arms()
    (compared,) = stored.compare_arms(Store(db), arm.label, base.label).tasks
    assert (compared.n, compared.units, compared.test) == (30, 30, "paired bootstrap over documents")
