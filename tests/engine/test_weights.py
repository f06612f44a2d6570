"""What changed, block by block, is what whole matrices and peft's own merging say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, TaskType
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from evalsvc.checkpoints.digests import read_contents
from evalsvc.checkpoints.discover import Description, open_checkpoints
from evalsvc.checkpoints.file_checks import is_zero
from evalsvc.checkpoints.safetensors import Tensor, read_headers
from evalsvc.engine import weights
from evalsvc.engine.weights import Between, Stored, full_change, measure
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.scoring.inspect_checkpoint import compute_change
from evalsvc.stats.spectrum import effective_rank, rank_90
from tests.support import tiny


def ignore(done: int, total: int) -> None:
    """Show no progress."""


def change_of(folder: Path, base: Path) -> WeightChange:
    _, (checkpoint,) = open_checkpoints(str(folder), str(base), Description())
    return compute_change(checkpoint, str(base), ignore)


def pair(folder: Path, base: torch.Tensor, adapted: torch.Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    for name, tensor in (("base", base), ("adapted", adapted)):
        save_file({"w": tensor.contiguous()}, folder / f"{name}.safetensors")
    return read_headers([folder / "adapted.safetensors"]), read_headers([folder / "base.safetensors"])


def check(change: TensorChange, before: torch.Tensor, delta: torch.Tensor, ranks: bool = True) -> None:
    """Hold what was streamed against the same from whole matrices."""
    before, delta = before.double(), delta.double()
    assert change.norm == pytest.approx(float(delta.norm()), rel=1e-4)
    assert change.base_norm == pytest.approx(float(before.norm()), rel=1e-4)
    assert change.changed == pytest.approx(int((delta.abs() > 1e-5).sum()), rel=1e-2, abs=2)
    if ranks:
        values = torch.linalg.svdvals(delta).numpy()
        assert change.rank_90 == rank_90(values)
        assert change.effective_rank == pytest.approx(effective_rank(values), rel=1e-2)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (1, 50), (50,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [1 << 20, 64, 16])
def test_streamed_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: torch.dtype, block: int
) -> None:
    monkeypatch.setattr(weights, "_BLOCK", block)
    torch.manual_seed(0)
    base = torch.randn(shape).to(dtype)
    adapted = (base.float() + 0.1 * torch.randn(shape) * (torch.rand(shape) > 0.3)).to(dtype)
    (change,) = full_change(*pair(tmp_path, base, adapted), ignore).tensors
    check(change, base, adapted.double() - base.double(), ranks=len(shape) == 2 and min(shape) > 1)


@pytest.mark.parametrize("shape", [(1500, 1200), (1100, 1800)])
@pytest.mark.parametrize("kind", ["low rank", "power law", "noise"])
def test_a_randomised_spectrum_is_close_to_the_exact_one(shape: tuple[int, int], kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    delta = torch.randn(shape)
    if kind == "low rank":
        delta = torch.randn(shape[0], 20) @ torch.randn(20, shape[1]) + 0.3 * delta
    if kind == "power law":
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
        delta = (u * torch.arange(1, len(s) + 1) ** -0.7) @ v
    adapted, base = pair(tmp_path, torch.zeros(shape), delta)
    stored = Stored(adapted["w"])
    found = measure("w", shape, Stored(base["w"]), Between(stored, Stored(base["w"]), stored.shape))
    exact = torch.linalg.svdvals(delta).double().numpy()
    assert found.rank_90 == pytest.approx(rank_90(exact), rel=0.2)
    assert found.effective_rank == pytest.approx(effective_rank(exact), rel=0.2)


def test_rounding_to_another_format_is_no_change(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = torch.randn(200, 100)
    found = full_change(*pair(tmp_path, base, base.bfloat16()), ignore)
    assert found.tensors[0].changed == 0
    assert found.tensors[0].norm > 0
    assert "half a step of the coarser number format" in found.tolerance
    (change,) = full_change(*pair(tmp_path, base, (base * 1.02).bfloat16()), ignore).tensors
    assert change.changed > 0.99 * base.numel()


def test_rows_of_a_grown_vocabulary_are_compared_as_far_as_both_have_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = torch.randn(40, 30)
    adapted = torch.cat([base, torch.ones(5, 30)])
    adapted[3] += 1
    (change,) = full_change(*pair(tmp_path, base, adapted), ignore).tensors
    assert (change.shape, change.changed, change.rank_90) == ((45, 30), 30, 1)


def test_a_full_fine_tune_counts_what_moved(models: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(models / "base", tmp_path / "frozen"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = change_of(folder, models / "base")
    assert found.trainable == 32
    assert found.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert sum(tensor.changed for tensor in found.tensors) == 32


ADAPTERS = {
    "lora": LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type=TaskType.CAUSAL_LM),
    "rslora": LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["v_proj"], task_type=TaskType.CAUSAL_LM),
    "patterns": LoraConfig(
        r=4, rank_pattern={"v_proj": 2}, alpha_pattern={"layers.1.self_attn.v_proj": 9}, target_modules=["v_proj"]
    ),
    "embedding": LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"]),
    "dora": LoraConfig(r=4, use_dora=True, target_modules=["q_proj", "up_proj"]),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "whole modules": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapters_change_is_that_of_merging_it(models: Path, tmp_path: Path, kind: str) -> None:
    folder = tiny.save_peft(tmp_path / "adapter", models / "base", ADAPTERS[kind])
    found = change_of(folder, models / "base")
    before: dict[str, torch.Tensor] = LlamaForCausalLM.from_pretrained(models / "base").state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    model: Any = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(models / "base"), str(folder))
    after = model.merge_and_unload().state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {tensor.name for tensor in found.tensors} == moved
    for tensor in found.tensors:
        check(tensor, before[tensor.name], after[tensor.name].double() - before[tensor.name].double(), ranks=False)
        assert tensor.rank_90 is not None
        if "lora" in kind:
            assert tensor.rank_90 <= 4
    assert found.trainable == sum(t.count for t in read_headers([folder / "adapter_model.safetensors"]).values())


def test_a_prompt_changes_no_weight(models: Path, tmp_path: Path) -> None:
    kind = PrefixTuningConfig(num_virtual_tokens=3, task_type=TaskType.CAUSAL_LM)
    found = change_of(tiny.save_peft(tmp_path / "prefix", models / "base", kind), models / "base")
    assert found.tensors == ()
    assert found.trainable == 3 * 2 * 2 * 16


def test_a_zero_adapter_has_rank_zero(models: Path, tmp_path: Path) -> None:
    from peft import get_peft_model

    model = LlamaForCausalLM.from_pretrained(models / "base")
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(str(tmp_path / "zero"))
    (contents,) = read_contents([tmp_path / "zero" / "adapter_model.safetensors"]).values()
    assert is_zero(contents)
    tensors = change_of(tmp_path / "zero", models / "base").tensors
    assert {(t.norm, t.changed, t.rank_90, t.effective_rank) for t in tensors} == {(0.0, 0, 0, 0.0)}


def test_a_long_vector_and_a_tensor_of_three_dimensions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for shape in ((3_000_000,), (6, 50, 40)):
        base = torch.randn(shape)
        (change,) = full_change(*pair(tmp_path, base, base + 1), ignore).tensors
        assert change.changed == math.prod(shape)
        assert change.rank_90 is None


def test_memory_stays_small(tmp_path: Path) -> None:
    """As tests/benchmarks/checkpoints.py does with 2 GB, here with 2 x 68 MB, the largest tensor 34 MB."""
    from tests.benchmarks.checkpoints import peak_memory, write_pair

    base, adapted = write_pair(tmp_path, layers=4, width=2048)
    before, peak, _ = peak_memory(base, adapted)
    largest = max(tensor.size for tensor in read_headers([base]).values()) / 2**20
    assert peak - before < 2 * largest
