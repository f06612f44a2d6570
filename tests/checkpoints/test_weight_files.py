"""What a loader reads is what identifies a checkpoint: files that were left in the folder count for nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

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
