"""Checkpoints are known by content, and refused with a reason."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from evalsvc.checkpoints.discover import Description, locate, open_base, open_checkpoints
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Checkpoint, Cost
from evalsvc.records.methods import find_group
from tests.support import tiny

NOTHING = Description()


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


# ----------------------------------------------------------------------------------------------------------- identity


def test_the_same_content_elsewhere_is_the_same_checkpoint(models: Path, base: Checkpoint, tmp_path: Path) -> None:
    assert open_base(str(copy(models / "base", tmp_path / "copy"))).digest == base.digest


def test_shards_do_not_change_a_digest(base: Checkpoint, models: Path, tmp_path: Path) -> None:
    tiny.make_llama().save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    tiny.make_tokenizer().save_pretrained(tmp_path)
    assert open_base(str(tmp_path)).digest == base.digest


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_a_changed_byte_is_another_checkpoint(models: Path, base: Checkpoint, tmp_path: Path, file: str) -> None:
    folder = copy(models / "base", tmp_path / "copy")
    path = folder / file
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        content["something_new"] = 1
        path.write_text(json.dumps(content))
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert open_base(str(folder)).digest != base.digest


def test_paths_and_versions_in_configurations_do_not_matter(models: Path, base: Checkpoint, tmp_path: Path) -> None:
    folder = copy(models / "base", tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config |= {"_name_or_path": "/elsewhere", "transformers_version": "9.9"}
    (folder / "config.json").write_text(json.dumps(config, indent=7))
    assert open_base(str(folder)).digest == base.digest


def test_a_chat_template_is_part_of_the_tokenizer(models: Path, base: Checkpoint, tmp_path: Path) -> None:
    folder = copy(models / "base", tmp_path / "copy")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    changed = open_base(str(folder))
    assert changed.tokenizer != base.tokenizer
    assert changed.digest != base.digest


def test_an_adapter_on_another_base_is_another_checkpoint(models: Path, lora: Checkpoint) -> None:
    _, (other,) = open_checkpoints(str(models / "lora"), str(models / "full"), NOTHING)
    assert other.digest != lora.digest
    assert lora.base_path == str(models / "base")


# -------------------------------------------------------------------------------------------------------------- forms


def test_a_full_model_alone_is_a_base(models: Path, base: Checkpoint) -> None:
    assert open_checkpoints(str(models / "base"), None, NOTHING) == (base, [])


def test_an_adapter_names_its_base_by_itself(models: Path, base: Checkpoint, lora: Checkpoint) -> None:
    assert open_checkpoints(str(models / "lora"), None, NOTHING) == (base, [lora])
    assert (lora.method, lora.parent) == ("lora", base.digest)


def test_a_training_run_is_a_trajectory_in_the_order_of_its_steps(models: Path, base: Checkpoint) -> None:
    root, found = open_checkpoints(str(models / "run"), None, NOTHING)
    assert root == base
    assert [(c.label, c.step, c.trajectory) for c in found] == [("run@10", 10, "run"), ("run@20", 20, "run")]


def test_the_final_model_of_a_run_counts_unless_it_is_its_last_step(models: Path, tmp_path: Path) -> None:
    run = copy(models / "run", tmp_path / "run")
    for file in (run / "checkpoint-20").iterdir():
        shutil.copy(file, run)
    assert len(open_checkpoints(str(run), str(models / "base"), NOTHING)[1]) == 2
    tiny.save_adapter(run, models / "base", seed=9)
    found = open_checkpoints(str(run), str(models / "base"), NOTHING)[1]
    assert [checkpoint.step for checkpoint in found] == [10, 20, None]


def test_what_the_user_says_counts(models: Path) -> None:
    said = Description(method="cpt", name="mine", step=7, cost=Cost(gpu_hours=1.5))
    _, (found,) = open_checkpoints(str(models / "full"), str(models / "base"), said)
    assert (found.label, found.method, found.cost.gpu_hours) == ("mine@7", "cpt", 1.5)


def test_the_cost_of_a_run_is_shared_out_over_its_steps(models: Path) -> None:
    said = Description(cost=Cost(gpu_hours=3.0, train_tokens=101, peak_memory_gb=40.0))
    _, found = open_checkpoints(str(models / "run"), None, said)
    shares = [checkpoint.cost.trainable_share for checkpoint in found]
    costs = [
        Cost(gpu_hours=1.5, train_tokens=50, peak_memory_gb=40.0),
        Cost(gpu_hours=3.0, train_tokens=101, peak_memory_gb=40.0),
    ]
    assert [c.cost for c in found] == [replace(c, trainable_share=s) for c, s in zip(costs, shares, strict=True)]
    assert all(share and 0 < share < 0.1 for share in shares)


def test_a_hub_id_comes_from_the_local_cache(
    models: Path, base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    repository = tmp_path / "models--org--tiny"
    copy(models / "base", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert locate("org/tiny") == repository / "snapshots" / commit
    found = open_base(f"org/tiny@{commit}")
    assert found.digest == base.digest
    assert found.name == "org/tiny"


def test_a_cached_hub_id_without_its_weights_says_how_to_fill_the_cache(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--org--tiny"
    copy(models / "base", repository / "snapshots" / ("a" * 40))
    (repository / "snapshots" / ("a" * 40) / "model.safetensors").unlink()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"no safetensors weights\); .*: hf download org/tiny$"):
        open_base("org/tiny")


# ----------------------------------------------------------------------------------------------------------- refusals


def test_what_is_not_there_or_not_a_checkpoint(tmp_path: Path, models: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    for source, message in (
        ("./nowhere", "neither a folder nor a Hub id"),
        (str(tmp_path / "empty"), "is not a checkpoint: no config.json"),
        (str(tmp_path / "file.txt"), "is a file, must be a folder"),
        ("org/absent@v1", "hf download org/absent --revision v1"),
    ):
        with pytest.raises(CheckpointError, match=message):
            open_checkpoints(source, None, NOTHING)
    with pytest.raises(CheckpointError, match="is an adapter; give the full model"):
        open_base(str(models / "lora"))


def test_an_adapter_without_a_resolvable_base(models: Path, tmp_path: Path) -> None:
    folder = copy(models / "lora", tmp_path / "lora")
    config = json.loads((folder / "adapter_config.json").read_text())
    for named, message in (
        ("/gone/base", "cannot be found; give its path with --base"),
        (None, "names no base"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": named}))
        with pytest.raises(CheckpointError, match=message):
            open_checkpoints(str(folder), None, NOTHING)


def test_full_steps_without_a_base(models: Path, tmp_path: Path) -> None:
    copy(models / "full", tmp_path / "run" / "step_0010")
    with pytest.raises(CheckpointError, match="give the model that they were trained from with --base"):
        open_checkpoints(str(tmp_path / "run"), None, NOTHING)


def test_weights_that_are_none(models: Path, tmp_path: Path) -> None:
    folder = copy(models / "base", tmp_path / "copy")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for content, message in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (whole[:-100], "is truncated"),
        (b"", "is not a safetensors file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b"not json at all!" * 4, "is not a safetensors file"),
    ):
        weights.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            open_base(str(folder))
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled \(pytorch_model.bin\)"):
        open_base(str(folder))


def test_a_base_without_a_tokenizer(models: Path, tmp_path: Path) -> None:
    folder = copy(models / "base", tmp_path / "copy")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="no tokenizer files"):
        open_base(str(folder))


def test_a_misspelt_folder_is_no_hub_id(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models.parent)
    with pytest.raises(CheckpointError) as caught:
        open_base(f"{models.name}/bsae")
    assert str(caught.value) == f"checkpoint {models.name}/bsae: no such folder; did you mean {models.name}/base?"


def test_an_adapters_method_is_its_type(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "lora", tmp_path / "lora"))
    config = json.loads((folder / "adapter_config.json").read_text())
    types = [("LORA", "lora"), ("IA3", "ia3"), ("CPT", "context_aware_prompt_tuning")]  # not continued pre-training
    for kind, method in types:
        (folder / "adapter_config.json").write_text(json.dumps({**config, "peft_type": kind}))
        _, (checkpoint,) = open_checkpoints(str(folder), str(models / "base"), Description())
        assert checkpoint.method == method
        assert find_group(method) == "peft"
