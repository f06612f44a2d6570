"""Costs as axes of a frontier, from real submissions: what queries cost is measured, what was trained is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from evalsvc.analysis.frontier import FrontierOptions
from evalsvc.analysis.stored import load_frontier
from evalsvc.engine.encoding import load_tokenizer
from evalsvc.errors import EvidenceError
from evalsvc.records.arms import Checkpoint
from evalsvc.records.plans import Plan
from evalsvc.store.arms import find_arm, find_family
from evalsvc.store.store import Store
from tests.support.commands import Run
from tests.support.runs import submit_tiny
from tests.support.tasks import write_suites

GENERAL = {"general": ["member_a"]}
AXES = FrontierOptions(axes=("learning", "forgetting", "tokens_per_query"))


def cost(db: Path, name: str) -> dict[str, float | None]:
    found = find_arm(Store(db).arms(), name).checkpoint.cost
    return {"tokens": found.tokens_per_query, "share": found.trainable_share}


def counted(plan: Plan, checkpoint: Checkpoint) -> float:
    """The mean length of the contexts as the tokenizer alone counts them."""
    words = load_tokenizer(checkpoint)
    contexts = [r.arguments[0] for r in plan.requests if r.kind != "loglikelihood_rolling"]
    return float(np.mean([len(words(text.rstrip())["input_ids"]) for text in contexts]))


@pytest.mark.parametrize("shots", [0, 2])
def test_few_shot_examples_are_paid_for_with_every_query(
    models: Path, task_folder: Path, tmp_path: Path, db: Path, shots: int
) -> None:
    domain: list[object] = [{"task": "mc_shots", "shots": shots}, "gen", "roll"]
    jobs = submit_tiny(db, models, write_suites(tmp_path, task_folder, {"domain": domain, **GENERAL}), source="lora")
    (asked,) = {job.planned.plan.digest: job.planned.plan for job in jobs if job.planned.plan.role == "domain"}.values()
    known = cost(db, "lora")["tokens"]
    assert known == pytest.approx(counted(asked, jobs[0].arm.checkpoint))
    assert known == cost(db, "base")["tokens"]
    assert known is not None
    assert (known > 20) == (shots > 0)
    points = load_frontier(Store(db), find_family(Store(db).arms()), AXES).points
    assert [point.cost.tokens_per_query for point in points] == [known, known]


def test_the_base_stands_on_the_axis_where_its_queries_do(
    models: Path, task_folder: Path, tmp_path: Path, db: Path
) -> None:
    submit_tiny(db, models, write_suites(tmp_path, task_folder, {"domain": ["mc"], **GENERAL}), source="lora")
    found = load_frontier(Store(db), find_family(Store(db).arms()), AXES)
    tokens = found.points[0].cost.tokens_per_query
    assert tokens is not None
    assert found.reference[2] == pytest.approx(1.1 * tokens)
    # An arm with equal scores and equal prompts is as good as the base: cost tells them apart only where it differs.
    assert all(point.dominated_by is None for point in found.points)


def test_texts_alone_are_no_queries(models: Path, task_folder: Path, tmp_path: Path, db: Path) -> None:
    submit_tiny(db, models, write_suites(tmp_path, task_folder, {"domain": ["roll"], **GENERAL}), source="lora")
    assert cost(db, "lora")["tokens"] is None
    with pytest.raises(EvidenceError, match="base has no tokens_per_query, which is measured"):
        load_frontier(Store(db), find_family(Store(db).arms()), AXES)


def test_what_was_trained_is_read_or_declared_or_not_known(
    models: Path,
    task_folder: Path,
    tmp_path: Path,
    db: Path,
    evalsvc: Run,
) -> None:
    adapter = load_file(models / "lora" / "adapter_model.safetensors")
    base = load_file(models / "base" / "model.safetensors")
    expected = sum(v.size for v in adapter.values()) / sum(v.size for v in base.values())
    where = write_suites(tmp_path, task_folder, {"domain": ["mc"], **GENERAL})
    for source in ("lora", "full"):
        submit_tiny(db, models, where, source=source)
    assert cost(db, "lora")["share"] == pytest.approx(expected)
    full = load_file(models / "full" / "model.safetensors")
    trained = sum(v.size for name, v in full.items() if not (v == base[name]).all())
    share = trained / sum(v.size for v in base.values())
    assert cost(db, "full")["share"] == pytest.approx(share)
    asked = ["frontier", "--axes", "learning,forgetting,trainable_share", "--db", db]
    answer = evalsvc(*asked, "--json").json
    assert answer["incomplete"] == []
    assert evalsvc("checkpoints", "show", "full", "--db", db).code == 0
    assert evalsvc(*asked, "--json").json == answer  # showing changes nothing
    assert {p["arm"]: p["cost"]["trainable_share"] for p in answer["points"]} == {
        "base": None,
        "lora": pytest.approx(expected),
        "full": pytest.approx(share),
    }

    folder = tmp_path / "declared"
    shutil.copytree(models / "full", folder)
    weights = folder / "config.json"
    weights.write_text(json.dumps({**json.loads(weights.read_text()), "rms_norm_eps": 1e-5}))
    (folder / "evalsvc.json").write_text(json.dumps({"tokens_per_query": 12}))
    refused = evalsvc("submit", folder, "--base", models / "base", "--suite", where[0], "--db", db, "--workers", 0)
    assert (refused.code, "unknown field 'tokens_per_query'" in refused.err) == (2, True)
    (folder / "evalsvc.json").write_text(json.dumps({"trainable_share": 0.25}))
    done = evalsvc("submit", folder, "--base", models / "base", "--suite", where[0], "--db", db, "--workers", 0)
    assert (done.code, cost(db, "declared")["share"]) == (0, 0.25)


def test_old_runs_have_no_tokens_until_they_are_submitted_again(
    models: Path, task_folder: Path, tmp_path: Path, db: Path
) -> None:
    where = write_suites(tmp_path, task_folder, {"domain": ["mc"], **GENERAL})
    submit_tiny(db, models, where, source="lora")
    before = cost(db, "lora")["tokens"]
    with Store(db)._database.write() as connection:
        connection.execute("UPDATE runs SET prompt_tokens = NULL")
    assert cost(db, "lora")["tokens"] is None
    jobs = submit_tiny(db, models, where, source="lora")
    assert all(job.reused == job.total for job in jobs)
    assert cost(db, "lora")["tokens"] == before
