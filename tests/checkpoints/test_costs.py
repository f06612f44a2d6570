"""What training left beside a checkpoint becomes its cost card; nothing pickled is ever loaded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import Trainer, TrainingArguments

from evalsvc.checkpoints.costs import compute_changed_share, estimate_training_memory, read_card, read_training_cost
from evalsvc.checkpoints.digests import Content
from evalsvc.checkpoints.discover import Description, open_checkpoints
from evalsvc.errors import CheckpointError
from evalsvc.hooks.cost_card import CostCard
from evalsvc.records.arms import Cost
from tests.support import tiny


@pytest.fixture(scope="module")
def run(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers' Trainer really writes: 4 steps of 2 x 2 samples of 16 tokens, on a CPU."""
    folder = tmp_path_factory.mktemp("run")
    model = tiny.make_llama()
    model.requires_grad_(True)
    words = tiny.make_tokenizer()
    words.pad_token = "</s>"
    rows: Any = [{"input_ids": torch.arange(16) + n, "labels": torch.arange(16) + n} for n in range(40)]
    arguments = TrainingArguments(
        str(folder),
        max_steps=4,
        save_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        include_num_input_tokens_seen="all",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=1_000_003,
    )
    card = CostCard(annotation_cost=12.5)
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=words, callbacks=[card])
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    return folder


def test_a_trainers_folder_is_a_trajectory_with_its_cost(models: Path, run: Path) -> None:
    _, found = open_checkpoints(str(run), str(models / "base"), Description())
    assert [(c.step, c.cost.train_tokens, c.cost.train_samples) for c in found] == [(2, 128, 8), (4, 256, 16)]
    assert [c.cost.annotation_cost for c in found] == [12.5, 12.5]  # from the callback's card
    assert [c.cost.trainable_share for c in found] == [1.0, 1.0]  # ditto
    assert [c.cost.gpu_hours for c in found] == [None, None]  # hours on a CPU are no GPU-hours
    hours, peaks = ([getattr(c.cost, name) for c in found] for name in ("cpu_hours", "peak_memory_gb"))
    assert 0 < hours[0] <= hours[1] < time.process_time() / 3600
    assert 0.1 < peaks[0] <= peaks[1] < psutil.virtual_memory().total / 1e9
    assert {c.trajectory for c in found} == {run.name}


def test_the_seed_is_the_users_else_the_cards_else_the_trainers(models: Path, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "checkpoint-2", tmp_path / "checkpoint-2"))
    base = str(models / "base")
    assert read_card(folder).seed == 1_000_003
    (folder / "evalsvc.json").unlink()
    assert open_checkpoints(str(folder), base, Description())[1][0].seed == 1_000_003  # from training_args.bin
    (folder / "evalsvc.json").write_text('{"seed": 8}')
    assert open_checkpoints(str(folder), base, Description())[1][0].seed == 8
    assert open_checkpoints(str(folder), base, Description(seed=9))[1][0].seed == 9
    (folder / "evalsvc.json").unlink()
    (folder / "training_args.bin").unlink()
    assert open_checkpoints(str(folder), base, Description())[1][0].seed is None


def test_hours_are_those_of_all_gpus(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evalsvc.checkpoints import costs

    folder = Path(shutil.copytree(run / "checkpoint-2", tmp_path / "run" / "checkpoint-2"))
    monkeypatch.setattr(costs, "_arguments", lambda _: {"num_processes": 8, "_n_gpu": 1})
    state = json.loads((folder / "trainer_state.json").read_text())
    (folder / "trainer_state.json").write_text(json.dumps({**state, "log_history": []}))
    assert read_training_cost(folder).gpu_hours is None
    whole = {"global_step": 4, "log_history": [{"step": 4, "train_runtime": 7200.0}]}
    (tmp_path / "run" / "trainer_state.json").write_text(json.dumps(whole))
    assert read_training_cost(folder).gpu_hours == pytest.approx(8.0)  # half of two hours on eight GPUs
    logged = [{"step": 2, "train_runtime": 900.0}, {"step": 4, "train_runtime": 3600.0}]
    (folder / "trainer_state.json").write_text(json.dumps({**state, "log_history": logged}))
    assert read_training_cost(folder).gpu_hours == pytest.approx(2.0)


def test_pickled_arguments_are_looked_through_and_never_loaded(run: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "it ran"),)

    folder = Path(shutil.copytree(run / "checkpoint-2", tmp_path / "checkpoint-2"))
    state = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 300, "trap": Trap()}
    with zipfile.ZipFile(folder / "training_args.bin", "w") as archive:
        archive.writestr("training_args/data.pkl", pickle.dumps(state))
    assert read_training_cost(folder).train_samples == 2 * 3 * 300
    assert not (tmp_path / "it ran").exists()
    (folder / "training_args.bin").write_bytes(b"no zip")
    assert read_training_cost(folder).train_samples is None


def test_a_step_that_is_still_being_written_is_left_out(models: Path, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "model.safetensors").unlink()
    unfinished = Path(shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-6"))
    (unfinished / "trainer_state.json").unlink()  # what the trainer writes last
    notes: list[str] = []
    _, found = open_checkpoints(str(folder), str(models / "base"), Description(), note=notes.append)
    assert [checkpoint.step for checkpoint in found] == [2, 4]
    assert notes == ["checkpoint-6: skipped, because it is still being written; submit again when it is complete"]
    whole = (unfinished / "model.safetensors").read_bytes()
    (unfinished / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert len(open_checkpoints(str(folder), str(models / "base"), Description())[1]) == 2
    for path in (*unfinished.iterdir(), unfinished):
        os.utime(path, (1e9, 1e9))
    with pytest.raises(CheckpointError, match="is truncated"):  # nobody writes to it any more
        open_checkpoints(str(folder), str(models / "base"), Description())


def test_a_step_that_is_removed_meanwhile_is_left_out(
    models: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalsvc.checkpoints import discover

    folder = Path(shutil.copytree(run, tmp_path / "run"))
    real = discover._open_step

    def rotate(path: Path, *rest: Any) -> Any:
        if path.name == "checkpoint-2":
            shutil.rmtree(path)
        return real(path, *rest)

    monkeypatch.setattr(discover, "_open_step", rotate)
    _, found = open_checkpoints(str(folder), str(models / "base"), Description())
    assert [checkpoint.step for checkpoint in found] == [4]


def test_pickled_steps_are_refused(models: Path, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    for step in (folder, folder / "checkpoint-2", folder / "checkpoint-4"):
        (step / "model.safetensors").rename(step / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"weights are pickled \(pytorch_model.bin\)"):
        open_checkpoints(str(folder), str(models / "base"), Description())


# --------------------------------------------------------------------------------------------------------------- card


def test_a_card_says_what_the_trainer_does_not(models: Path, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "checkpoint-2", tmp_path / "checkpoint-2"))
    card = {"method": "cpt", "gpu_hours": 2, "train_samples": 9, "annotation_cost": 100.5}
    (folder / "evalsvc.json").write_text(json.dumps(card))
    said = Description(cost=Cost(peak_memory_gb=40.0, gpu_hours=3.0))
    _, (found,) = open_checkpoints(str(folder), str(models / "base"), said)
    assert found.method == "cpt"
    assert found.cost == Cost(
        gpu_hours=3.0,
        train_tokens=128,
        peak_memory_gb=40.0,
        train_samples=9,
        annotation_cost=100.5,
        trainable_share=1.0,  # every tensor of the run differs from the base's
    )


def test_the_card_of_a_run_is_shared_out_over_its_steps(models: Path, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "evalsvc.json").write_text(json.dumps({"gpu_hours": 2.0, "annotation_cost": 10}))
    _, found = open_checkpoints(str(folder), str(models / "base"), Description())
    assert [(c.cost.gpu_hours, c.cost.annotation_cost) for c in found] == [(1.0, 10.0), (2.0, 10.0)]


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"gpu_hour": 1}, "unknown field 'gpu_hour'"),
        ({"gpu_hours": -1}, "gpu_hours is -1, must be a finite number of at least 0"),
        ({"train_tokens": "many"}, "train_tokens is 'many'"),
        ({"peak_memory_gb": True}, "peak_memory_gb is True"),
        ({"method": 3}, "method is 3, must be a string"),
        ({"seed": 1.5}, "seed is 1.5, must be a whole number"),
        ({"seed": True}, "seed is True, must be a whole number"),
        ([], "must be a JSON object"),
    ],
)
def test_a_bad_card_is_refused(tmp_path: Path, card: Any, message: str) -> None:
    (tmp_path / "evalsvc.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=message):
        read_card(tmp_path)


# ------------------------------------------------------------------------------------------------------------- memory


def test_memory_of_model_states_as_published() -> None:
    """Biderman et al. 2024, table S14 (7B): Adam 112 GB, Adam with LoRA on 1 % of the parameters 15.12 GB."""
    memory = estimate_training_memory(7_000_000_000, 70_000_000)
    assert memory.full == pytest.approx(112)
    assert memory.adapter == pytest.approx(15.12)
    assert memory.adapter_4bit == pytest.approx(3.5 + 1.12)


def test_full_fine_tuning_has_no_memory_of_an_adapter() -> None:
    memory = estimate_training_memory(7_000_000_000, None)
    assert memory.full == pytest.approx(112)
    assert (memory.adapter, memory.adapter_4bit) == (None, None)


# --------------------------------------------------------------------------------------------------- trainable share


def content(name: str, shape: tuple[int, ...], sha256: str, dtype: str = "F32") -> Content:
    return Content(name=name, dtype=dtype, shape=shape, sha256=sha256, finite=True, zero=False)


BASE_CONTENTS = [content("embed", (10, 4), "a"), content("layer", (4, 5), "b"), content("norm", (4,), "c")]


@pytest.mark.parametrize(
    ("adapted", "share"),
    [
        ([content("embed", (10, 4), "a"), content("layer", (4, 5), "x"), content("norm", (4,), "c")], 20 / 64),
        ([content("embed", (10, 4), "x"), content("layer", (4, 5), "x"), content("norm", (4,), "x")], 1.0),
        (BASE_CONTENTS, 0.0),
        ([*BASE_CONTENTS, content("head", (10, 4), "new")], 0.0),  # not of the base: nothing it is a share of
        ([content("layer", (4, 5), "x", "BF16")], None),  # another number format has other bytes, changed or not
        ([content("embed", (12, 4), "x")], None),  # a grown vocabulary
    ],
)
def test_the_share_of_full_weights_follows_from_digests(adapted: list[Content], share: float | None) -> None:
    assert compute_changed_share(adapted, BASE_CONTENTS) == share
