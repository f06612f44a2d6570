"""`evalsvc checkpoints`: what it prints, as tables and as JSON."""

from __future__ import annotations

import shutil
from dataclasses import replace
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


def test_show_only_reads_and_compare_computes_once(
    evalsvc: Run, stored: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evalsvc("checkpoints", "show", "lora", "--db", stored, "--json", "--quiet").json
    assert evalsvc("checkpoints", "show", "lora", "--db", stored, "--json", "--quiet").json == first
    assert first["change"] is None
    assert first["training_memory_gb"]["model_states_only"] is True
    lora = Store(stored).arms()[1].checkpoint
    assert CheckpointFacts(stored).change(lora) is None
    table = evalsvc("checkpoints", "show", "lora", "--db", stored, "--quiet").out
    assert "not computed yet; run: evalsvc checkpoints compare lora" in table

    answer = evalsvc("checkpoints", "compare", "lora", "--db", stored, "--json", "--quiet").json
    groups = {group["group"]: group for group in answer["change"]["groups"]}
    assert groups["attention"]["rank_90"] <= 4
    assert groups.keys() == {"attention", "feed-forward", "all"}
    assert answer == first | {"change": answer["change"]}  # cost and memory were known before
    change = answer["change"]
    assert first["cost"]["trainable_share"] == change["trainable"] / change["parameters"]

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("evalsvc.scoring.inspect_checkpoint.compute_change", never)
    assert evalsvc("checkpoints", "compare", "lora", "--db", stored, "--json", "-q").json == answer
    assert evalsvc("checkpoints", "show", "lora", "--db", stored, "--json", "-q").json == answer
    table = evalsvc("checkpoints", "show", "lora", "--db", stored, "--quiet").out
    for text in ("model states only", "rank-90", "GPU-hours", "CPU-hours", "feed-forward"):
        assert text in table
    assert evalsvc("checkpoints", "show", models / "lora", "--db", stored, "--json", "-q").json == answer | {
        "cost": {**answer["cost"], "gpu_hours": None}  # what the folder itself says
    }


def test_a_full_fine_tunes_share_is_known_before_weights_are_compared(evalsvc: Run, models: Path, db: Path) -> None:
    folder = ("checkpoints", "show", models / "full", "--base", models / "base", "--db", db)
    shown = evalsvc(*folder, "--json", "-q").json
    change = evalsvc("checkpoints", "compare", *folder[2:], "--json", "-q").json["change"]
    assert change["trainable"] == change["parameters"]
    assert shown["cost"]["trainable_share"] == 1.0
    assert shown["change"] is None
    assert not db.exists()
    command = f"evalsvc checkpoints compare {models / 'full'} --base {models / 'base'}"
    assert command in evalsvc(*folder, "-q").out.replace("\n", "").replace("│", "")


def test_the_store_says_what_a_folder_of_full_weights_was_adapted_from(
    evalsvc: Run, models: Path, db: Path, tmp_path: Path
) -> None:
    base, (full,) = open_checkpoints(str(models / "full"), str(models / "base"), Description(method="full"))
    Store(db).register([Arm(base, NUMERICS), Arm(full, NUMERICS)], [make_plan()], "host:1")
    copy = shutil.copytree(models / "full", tmp_path / "copy")
    shown = evalsvc("checkpoints", "show", copy, "--db", db, "--json", "-q").json
    assert (shown["method"], shown["parent"]) == ("full", base.digest)
    compared = evalsvc("checkpoints", "compare", copy, "--db", db, "--json", "-q").json
    assert compared["change"]["trainable"] == compared["change"]["parameters"] > 0
    assert evalsvc("checkpoints", "show", "full", "--db", db, "--json", "-q").json == compared


def test_what_compare_prints_first_it_prints_again(evalsvc: Run, models: Path, db: Path) -> None:
    base, (full,) = open_checkpoints(str(models / "full"), str(models / "base"), Description(method="full"))
    unknown = replace(full, cost=Cost())
    Store(db).register([Arm(base, NUMERICS), Arm(unknown, NUMERICS)], [make_plan()], "host:1")
    first = evalsvc("checkpoints", "compare", "full", "--db", db, "--json", "-q").json
    assert first["cost"]["trainable_share"] == 1.0
    assert evalsvc("checkpoints", "compare", "full", "--db", db, "--json", "-q").json == first


def test_what_cannot_be_kept_is_said(evalsvc: Run, stored: Path, models: Path) -> None:
    done = evalsvc("checkpoints", "compare", models / "full", "--base", models / "base", "--db", stored)
    assert done.code == 0
    assert "not kept: the store has no arm of this checkpoint; submit it first" in done.err


def test_show_and_compare_refuse_what_they_cannot_do(evalsvc: Run, models: Path, db: Path) -> None:
    assert evalsvc("checkpoints", "show", models / "base", "--db", db, "--json").json["change"] is None
    done = evalsvc("checkpoints", "show", models / "run", "--db", db)
    assert (done.code, "contains 2 checkpoints" in done.err) == (2, True)
    done = evalsvc("checkpoints", "compare", models / "base", "--db", db)
    assert (done.code, "has no base; name it with --base" in done.err) == (2, True)


def test_check(evalsvc: Run, models: Path, tmp_path: Path) -> None:
    done = evalsvc("checkpoints", "check", models / "run", "--device", "cpu", "--json")
    assert done.code == 0
    assert [c["arm"] for c in done.json["checkpoints"]] == ["base", "run@10", "run@20"]
    assert {finding["severity"] for finding in done.json["findings"]} == {"note"}
    table = evalsvc("checkpoints", "check", models / "run", "--device", "cpu").out
    assert "no findings" in table
    model = LlamaForCausalLM.from_pretrained(models / "base")
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(str(tmp_path / "zero"))
    refused = evalsvc("checkpoints", "check", tmp_path / "zero", "--device", "cpu")
    assert refused.code == 2
    assert "error: its change is exactly zero" in refused.out
    broken = Path(shutil.copytree(models / "full", tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    done = evalsvc("checkpoints", "check", broken, "--base", models / "base", "-q")
    assert (done.code, done.out) == (2, "")
    assert "is a Git LFS pointer" in done.err


def test_nothing_from_a_checkpoint_is_markup(evalsvc: Run, models: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(models / "full", tmp_path / "[red]odd[/red]"))
    out = evalsvc("checkpoints", "show", odd, "--base", models / "base", "--db", tmp_path / "no.duckdb", "-q").out
    assert "[red]odd[/red]" in out
