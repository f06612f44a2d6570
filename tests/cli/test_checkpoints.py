"""`evalsvc checkpoints`: what it prints, as tables and as JSON."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from evalsvc.checkpoints.discover import Description, open_checkpoints
from evalsvc.records.arms import Arm, Cost
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.store import Store
from tests.support.commands import Run
from tests.support.fakes import NUMERICS, make_plan


@pytest.fixture
def stored(models: Path, db: Path) -> Path:
    base, (lora,) = open_checkpoints(str(models / "lora"), None, Description(cost=Cost(gpu_hours=1.5)))
    Store(db).register([Arm(base, NUMERICS), Arm(lora, NUMERICS)], [make_plan()], "host:1")
    return db


def test_list(evalsvc: Run, stored: Path) -> None:
    answer = evalsvc("checkpoints", "list", "--db", stored, "--json").json
    assert [(c["arm"], c["method"], c["cost"]["gpu_hours"]) for c in answer["checkpoints"]] == [
        ("base", "base", None),
        ("lora", "lora", 1.5),
    ]
    table = evalsvc("checkpoints", "list", "--db", stored).out
    assert "lora" in table
    assert "1.5" in table


def test_show_computes_once_and_keeps(
    evalsvc: Run, stored: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = evalsvc("checkpoints", "show", "lora", "--db", stored, "--json", "--quiet").json
    groups = {group["group"]: group for group in answer["change"]["groups"]}
    assert groups["attention"]["rank_90"] <= 4
    assert groups.keys() == {"attention", "feed-forward", "all"}
    assert answer["cost"]["gpu_hours"] == 1.5
    assert answer["training_memory_gb"]["model_states_only"] is True
    lora = Store(stored).arms()[1].checkpoint
    assert CheckpointFacts(stored).change(lora) is not None

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("evalsvc.scoring.inspect_checkpoint.compute_change", never)
    table = evalsvc("checkpoints", "show", "lora", "--db", stored, "--quiet").out
    for text in ("model states only", "rank-90", "GPU-hours", "feed-forward"):
        assert text in table
    assert evalsvc("checkpoints", "show", models / "lora", "--db", stored, "--json", "-q").json == answer | {
        "cost": {**answer["cost"], "gpu_hours": None}  # what the folder itself says
    }


def test_show_needs_no_store(evalsvc: Run, models: Path, db: Path) -> None:
    answer = evalsvc("checkpoints", "show", models / "full", "--base", models / "base", "--db", db, "--json").json
    assert answer["change"]["trainable"] == answer["change"]["parameters"]
    assert not db.exists()
    assert evalsvc("checkpoints", "show", models / "base", "--db", db, "--json").json["change"] is None
    done = evalsvc("checkpoints", "show", models / "run", "--db", db)
    assert (done.code, "holds 2 checkpoints" in done.err) == (2, True)


def test_check(evalsvc: Run, models: Path, tmp_path: Path) -> None:
    done = evalsvc("checkpoints", "check", models / "run", "--device", "cpu", "--json")
    assert done.code == 0
    assert [c["arm"] for c in done.json["checkpoints"]] == ["base", "run@10", "run@20"]
    assert {finding["severity"] for finding in done.json["findings"]} == {"note"}
    table = evalsvc("checkpoints", "check", models / "run", "--device", "cpu").out
    assert "nothing found" in table
    model = LlamaForCausalLM.from_pretrained(models / "base")
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(str(tmp_path / "zero"))
    refused = evalsvc("checkpoints", "check", tmp_path / "zero", "--device", "cpu")
    assert refused.code == 2
    assert "error: its change is exactly zero" in refused.out
    broken = Path(shutil.copytree(models / "full", tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    done = evalsvc("checkpoints", "check", broken, "--base", models / "base", "-q")
    assert (done.code, done.out) == (2, "")
    assert "is a git-lfs pointer" in done.err


def test_nothing_from_a_checkpoint_is_markup(evalsvc: Run, models: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(models / "full", tmp_path / "[red]odd[/red]"))
    out = evalsvc("checkpoints", "show", odd, "--base", models / "base", "--db", tmp_path / "no.duckdb", "-q").out
    assert "[red]odd[/red]" in out
