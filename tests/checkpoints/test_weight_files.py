"""What a loader reads is what identifies a checkpoint: files that were left in the folder count for nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from evalsvc.checkpoints.discover import Description, open_base, open_checkpoints
from evalsvc.checkpoints.file_checks import examine_files
from evalsvc.checkpoints.weight_files import INDEX, find_pickled_weights, list_weights
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Checkpoint
from tests.support import tiny


def test_shards_left_from_an_earlier_save_are_not_weights(models: Path, base: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(models / "base", folder)
    tiny.make_llama(seed=5).save_pretrained(tmp_path / "earlier", max_shard_size="40KB")
    for file in (tmp_path / "earlier").glob("model*"):
        shutil.copy(file, folder)
    assert (folder / INDEX).is_file()
    assert list_weights(folder) == [folder / "model.safetensors"]
    assert open_base(str(folder)).digest == base.digest


def test_an_adapter_is_the_one_file_that_peft_loads(models: Path, lora: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(models / "lora", folder)
    shutil.copy(folder / "adapter_model.safetensors", folder / "adapter_model-earlier.safetensors")
    assert list_weights(folder) == [folder / "adapter_model.safetensors"]
    _, (copy,) = open_checkpoints(str(folder), str(models / "base"), Description())
    assert copy.digest == lora.digest


def test_the_index_names_files_in_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for text, message in (
        ('{"weight_map": {"a": "../other/model.safetensors"}}', "must refer to files in the same folder"),
        ("{}", "has no weight_map"),
        ('{"weight_map": {"a": "model-1.safetensors"}}', r"1 of its 1 weight files are missing \(first: model-1"),
    ):
        (tmp_path / INDEX).write_text(text)
        with pytest.raises(CheckpointError, match=message):
            list_weights(tmp_path)


def test_pickled_weights_are_named_and_the_trainer_s_own_files_are_not(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(models / "base", folder)
    for name in ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state_0.pth", "training_args.bin"):
        (folder / name).write_bytes(b"state")
    assert not find_pickled_weights(folder)
    assert not examine_files(open_base(str(folder)), None)
    for name in ("pytorch_model.bin", "consolidated.00.pth"):
        (folder / name).write_bytes(b"weights")
    assert find_pickled_weights(folder) == ["consolidated.00.pth", "pytorch_model.bin"]
    (finding,) = examine_files(open_base(str(folder)), None)
    assert (finding.severity, finding.check) == ("note", "pickled")


def test_an_adapter_that_peft_saved_under_a_name_is_named_by_its_subfolder(models: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(models / "base")
    named = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]), adapter_name="mine")
    with torch.no_grad():
        for parameter in named.parameters():
            parameter.add_(0.01)
    run, base = tmp_path / "run", str(models / "base")
    for step in (1, 2):
        named.save_pretrained(str(run / f"checkpoint-{step}"))
    assert not (run / "checkpoint-1" / "adapter_model.safetensors").exists()
    advice = f"in the subfolder mine, .*; submit {run / 'checkpoint-1' / 'mine'}$"
    with pytest.raises(CheckpointError, match=advice):
        open_checkpoints(str(run / "checkpoint-1"), base, Description())
    with pytest.raises(CheckpointError, match=advice):
        open_checkpoints(str(run), base, Description())
    shutil.copytree(run / "checkpoint-2" / "mine", run / "checkpoint-3")
    notes: list[str] = []
    _, (loaded,) = open_checkpoints(str(run), base, Description(), note=notes.append)
    assert loaded.step == 3
    assert len(notes) == 2
    assert all("is still being written" not in note and "/mine" in note for note in notes)
    _, (single,) = open_checkpoints(str(run / "checkpoint-1" / "mine"), base, Description())  # the advice
    assert single.method == "lora"
