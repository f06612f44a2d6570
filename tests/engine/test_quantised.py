"""Quantised weights are the nearest that the format holds, and the references of what was trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from evalsvc.engine.quantised import _NF4, quantise, rounded_int8, rounded_nf4
from evalsvc.engine.resident import load_full
from evalsvc.errors import CheckpointError, UsageError

CPU = torch.device("cpu")


def test_nf4_takes_the_nearest_level_of_its_block() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 100)
    found = rounded_nf4(weight)
    code = torch.tensor(_NF4)
    for block in range(0, 600, 64):
        exact, rounded = weight.flatten()[block : block + 64], found.flatten()[block : block + 64]
        levels = code * exact.abs().max()
        nearest = (exact[:, None] - levels).abs().min(dim=1).values
        assert torch.allclose((exact - rounded).abs(), nearest, atol=1e-6)
    assert torch.equal(rounded_nf4(found), found)  # what a format holds, it keeps
    assert torch.equal(rounded_nf4(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_levels_of_nf4_are_the_published_ones() -> None:
    """Normal quantiles: Dettmers et al. 2023, appendix E, with the offset of bitsandbytes' create_normal_map."""
    from scipy.stats import norm
    from torch import linspace

    offset = 0.9677083
    positive = norm.ppf(linspace(offset, 0.5, 9)[:-1])
    negative = -norm.ppf(linspace(offset, 0.5, 8)[:-1])
    levels = torch.tensor(sorted([*positive, 0.0, *negative]))
    assert torch.allclose(levels / levels.max(), torch.tensor(_NF4, dtype=levels.dtype), atol=1e-6)


def test_int8_is_within_half_a_step_of_each_output() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 100) * torch.tensor([1e-3, 1, 10, 100, 0, 1])[:, None]
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((rounded_int8(weight) - weight).abs() <= step / 2 + 1e-7).all()
    assert len(set(rounded_int8(weight)[1].tolist())) <= 255


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_only_linear_layers_are_quantised(models: Path, kind: str) -> None:
    exact = AutoModelForCausalLM.from_pretrained(models / "base", dtype=torch.float32)
    model = load_full(str(models / "base"), CPU, torch.float32, kind)  # type: ignore[arg-type]
    differ = {name for name, weight in exact.state_dict().items() if not torch.equal(weight, model.state_dict()[name])}
    assert differ == {name for name in exact.state_dict() if name.endswith("_proj.weight")}


def test_a_real_model_stays_close_at_8_bits_and_less_so_at_4(data: Path) -> None:
    folder = str(data / "models" / "stories260K")
    tokens = torch.arange(1, 200)[None]
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits.log_softmax(-1).detach()
    drift = {}
    for kind in ("int8", "nf4"):
        model = load_full(folder, CPU, torch.float32, kind)
        logits = model(tokens).logits.log_softmax(-1).detach()
        drift[kind] = float((exact.exp() * (exact - logits)).sum(-1).mean())
    assert 0 < drift["int8"] < 0.01 < drift["nf4"] < 1


def test_an_adapter_attaches_to_a_quantised_base(models: Path) -> None:
    base = load_full(str(models / "base"), CPU, torch.float32, "nf4")
    tokens = torch.arange(1, 60)[None]
    before = base(tokens).logits
    adapted = PeftModel.from_pretrained(base, str(models / "lora"))
    assert not torch.equal(adapted(tokens).logits, before)
    assert torch.equal(adapted.unload()(tokens).logits, before)


def test_a_layer_that_is_stored_the_other_way_round() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=8))
    exact = model.transformer.h[0].attn.c_attn.weight.detach().clone()
    quantise(model, "int8")
    assert torch.equal(model.transformer.h[0].attn.c_attn.weight, rounded_int8(exact.T).T)


def test_what_cannot_be_had_is_said(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="quantisation bnb-nf4: needs a CUDA device; nf4 works without"):
        load_full(str(models / "base"), CPU, torch.float32, "bnb-nf4")
    with pytest.raises(CheckpointError, match="cannot be loaded as int8"):
        load_full(str(tmp_path), CPU, torch.float32, "int8")
