"""One set of modules holds many checkpoints, one after another, and the base comes back bit by bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaForCausalLM

from evalsvc.checkpoints.discover import Description, open_checkpoints
from evalsvc.engine.resident import Resident
from evalsvc.engine.scorer import Scorer
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Arm, Checkpoint, Serving
from evalsvc.records.plans import Request
from tests.support import tiny

TOKENS = torch.tensor([[5, 9, 200, 17, 44]])
LINEAR = ["q_proj", "v_proj", "down_proj"]
KINDS: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=LINEAR),
    "rslora": lambda: peft.LoraConfig(r=4, target_modules="all-linear", use_rslora=True),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, use_dora=True),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=LINEAR),
    "ia3": lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "oft": lambda: peft.OFTConfig(r=0, oft_block_size=4, target_modules=["q_proj"]),
    "vera": lambda: peft.VeraConfig(r=4, target_modules=["q_proj"], vera_dropout=0.0),
}
PROMPTS: dict[str, Callable[[], Any]] = {
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
}


def adapter(folder: Path, base: Path, config: Any) -> Checkpoint:
    """Save an adapter with random weights and open it."""
    torch.manual_seed(7)
    model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(str(folder))
    _, (found,) = open_checkpoints(str(folder), str(base), Description())
    return found


def bits(model: Any) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(TOKENS).logits
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_served_as_peft_serves_it_and_leaves_no_trace(
    kind: str, models: Path, base: Checkpoint, tmp_path: Path
) -> None:
    added = adapter(tmp_path / kind, models / "base", KINDS[kind]())
    expected = logits(
        peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(models / "base"), str(tmp_path / kind)).eval()
    )
    resident = Resident("cpu", "float32")
    before, plain = bits(resident.hold(base)), logits(resident.hold(base))
    held = resident.hold(added)
    assert torch.equal(logits(held), expected)
    assert not torch.allclose(expected, plain, atol=1e-3)
    assert resident.parity.trie
    assert bits(resident.hold(base)) == before
    assert torch.equal(logits(resident.hold(base)), plain)


CARRYING: dict[str, Callable[[], Any]] = {
    "saved modules": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, modules_to_save=["lm_head", "embed_tokens"]),
    "layer norms": lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "new tokens": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, trainable_token_indices=[3, 4]),
    "biases": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, bias="all"),
}


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("kind", CARRYING)
def test_whatever_an_adapter_carries_the_base_comes_back_bit_by_bit(
    kind: str, merged: bool, models: Path, base: Checkpoint, lora: Checkpoint, tmp_path: Path
) -> None:
    added = adapter(tmp_path / "carrying", models / "base", CARRYING[kind]())
    resident = Resident("cpu", "float32")
    plain, other = logits(resident.hold(base)), logits(resident.hold(lora))
    first = logits(resident.hold(added, Serving(merged=merged)))
    assert torch.equal(logits(resident.hold(lora)), other)
    assert torch.equal(logits(resident.hold(added, Serving(merged=merged))), first)
    assert torch.equal(logits(resident.hold(base)), plain)
    assert not torch.equal(first, plain)


@pytest.mark.parametrize("quantisation", ["int8", "nf4"])
def test_quantised_weights_are_never_mixed_up_with_the_plain_ones(
    quantisation: Any, base: Checkpoint, lora: Checkpoint
) -> None:
    resident = Resident("cpu", "float32")
    plain = logits(resident.hold(base))
    coarse = logits(resident.hold(base, Serving(quantisation=quantisation)))
    on_coarse = logits(resident.hold(lora, Serving(quantisation=quantisation)))
    assert torch.equal(logits(resident.hold(base)), plain)
    assert torch.equal(logits(resident.hold(base, Serving(quantisation=quantisation))), coarse)
    assert not torch.equal(coarse, plain)
    assert not torch.equal(on_coarse, logits(resident.hold(lora)))


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "loha", "ia3", "oft"])
def test_a_merged_adapter_is_the_unmerged_one_and_the_base_keeps_its_bits(
    kind: str, models: Path, base: Checkpoint, tmp_path: Path
) -> None:
    added = adapter(tmp_path / kind, models / "base", KINDS[kind]())
    resident = Resident("cpu", "float32")
    before = bits(resident.hold(base))
    pointers = {name: tensor.data_ptr() for name, tensor in resident.hold(base).state_dict().items()}
    unmerged = logits(resident.hold(added))
    merged = logits(resident.hold(added, Serving(merged=True)))
    assert torch.allclose(merged, unmerged, atol=1e-4)
    assert not torch.equal(merged, unmerged), "nothing was merged"
    assert torch.equal(logits(resident.hold(added)), unmerged)
    assert bits(resident.hold(base)) == before
    assert {name: t.data_ptr() for name, t in resident.hold(base).state_dict().items()} == pointers


@pytest.mark.parametrize("kind", PROMPTS)
def test_adapters_that_put_tokens_before_the_prompt_take_the_plain_path(
    kind: str, models: Path, base: Checkpoint, tmp_path: Path
) -> None:
    added = adapter(tmp_path / kind, models / "base", PROMPTS[kind]())
    scorer = Scorer()
    asked = (Request.of("loglikelihood", ("the cat", " sat on")),)
    plain, with_tokens, again = (
        scorer.score(tiny.make_shards(asked, checkpoint)[0]) for checkpoint in (base, added, base)
    )
    assert with_tokens.path == "plain: its adapter adds tokens to the prompt"
    assert plain.path.startswith("trie")
    assert again.responses == plain.responses
    assert with_tokens.responses[0].loglikelihood != pytest.approx(plain.responses[0].loglikelihood or 0, abs=1e-3)


def test_full_fine_tunes_share_one_set_of_modules(base: Checkpoint, full: Checkpoint, lora: Checkpoint) -> None:
    resident = Resident("cpu", "float32")
    first = resident.hold(base)
    before, plain = bits(first), logits(first)
    second: Any = resident.hold(full)
    assert second is first
    expected: Any = LlamaForCausalLM.from_pretrained(full.path)
    assert bits(second) == bits(expected)
    assert torch.equal(logits(second), logits(expected))
    assert second.get_output_embeddings().weight.data_ptr() != first.get_input_embeddings().weight.data_ptr()
    resident.hold(lora)
    assert bits(resident.hold(base)) == before
    assert torch.equal(logits(resident.hold(base)), plain)


def test_tied_heads_stay_tied_in_an_exchange(tmp_path: Path, base: Checkpoint) -> None:
    checkpoints = []
    for seed in (1, 2):
        model: Any = LlamaForCausalLM(
            type(tiny.make_llama().config)(**{**tiny.make_llama().config.to_dict(), "tie_word_embeddings": True})
        )
        with torch.no_grad():
            model.get_input_embeddings().weight.normal_(generator=torch.Generator().manual_seed(seed))
        model.save_pretrained(tmp_path / str(seed))
        tiny.make_tokenizer().save_pretrained(tmp_path / str(seed))
        checkpoints.append(open_checkpoints(str(tmp_path / str(seed)), None, Description("base"))[0])
    resident = Resident("cpu", "float32")
    one = resident.hold(checkpoints[0])
    two = resident.hold(checkpoints[1])
    assert one is two
    assert two.get_output_embeddings().weight.data_ptr() == two.get_input_embeddings().weight.data_ptr()
    assert torch.equal(logits(two), logits(LlamaForCausalLM.from_pretrained(checkpoints[1].path)))


def test_weights_beside_leftover_shards_are_those_that_identify_the_checkpoint(
    full: Checkpoint, base: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "full"
    shutil.copytree(full.path, folder)
    tiny.make_llama(seed=5).save_pretrained(tmp_path / "earlier", max_shard_size="40KB")
    for file in (tmp_path / "earlier").glob("model*"):
        shutil.copy(file, folder)
    (checkpoint,) = open_checkpoints(str(folder), base.path, Description())[1]
    assert checkpoint.digest == full.digest
    resident = Resident("cpu", "float32")
    first = resident.hold(base)
    second = resident.hold(checkpoint)
    assert second is first  # exchanged in place, not loaded by transformers
    assert bits(second) == bits(LlamaForCausalLM.from_pretrained(full.path))


def test_another_architecture_is_built_anew(base: Checkpoint, tmp_path: Path) -> None:
    config = type(tiny.make_llama().config)(**{**tiny.make_llama().config.to_dict(), "num_hidden_layers": 3})
    LlamaForCausalLM(config).save_pretrained(tmp_path / "deeper")
    tiny.make_tokenizer().save_pretrained(tmp_path / "deeper")
    deeper, _ = open_checkpoints(str(tmp_path / "deeper"), None, Description("base"))
    resident = Resident("cpu", "float32")
    assert resident.hold(base) is not resident.hold(deeper)
    assert resident.hold(deeper).config.num_hidden_layers == 3


def test_what_cannot_be_merged_says_so_and_the_base_survives(models: Path, base: Checkpoint, tmp_path: Path) -> None:
    added = adapter(tmp_path / "prefix", models / "base", PROMPTS["prefix"]())
    resident = Resident("cpu", "float32")
    before = bits(resident.hold(base))
    with pytest.raises(CheckpointError, match="cannot be merged"):
        resident.hold(added, Serving(merged=True))
    assert bits(resident.hold(base)) == before


def test_divergences_come_back_per_request(base: Checkpoint, lora: Checkpoint, full: Checkpoint) -> None:
    scorer = Scorer()
    asked = (
        Request.of("loglikelihood_rolling", ("one two three " * 60,)),
        Request.of("loglikelihood_rolling", ("cat",)),
    )
    for adapted in (lora, full, base):
        (shard,) = tiny.make_shards(asked, adapted)
        alone = scorer.score(shard)
        found = scorer.score(replace(shard, reference=Arm(base, tiny.NUMERICS)))
        assert found.responses == alone.responses
        assert {key: len(kl) for key, kl in found.divergences.items()} == {r.request: r.tokens for r in alone.responses}
        means = [float(kl.mean()) for kl in found.divergences.values()]
        assert all(mean > 1e-3 for mean in means) if adapted is not base else max(map(abs, means)) < 1e-6
