"""Tiny real models: random weights, but every code path of a large one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evalsvc.engine.encoding import load_encoder
from evalsvc.engine.sharding import cut_requests
from evalsvc.records.arms import Arm, Checkpoint, Numerics
from evalsvc.records.plans import Request
from evalsvc.records.shards import Shard

NUMERICS = Numerics(device="cpu", dtype="float32", torch="2", transformers="5")

TEXT = [
    "the cat sat on the mat and looked at the dog",
    "a dog ran over the hill to see the red house",
    "the sun is hot and the moon is cold, said the old man",
    "one two three four five six seven eight nine ten",
    "Question: what is red? Answer: the house is red.",
]
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


SWITCHED = CHAT + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
"""A template with a switch that a user may set."""


def make_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on a few sentences."""
    raw = Tokenizer(BPE())
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=360, special_tokens=["<s>", "</s>"], initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator(TEXT, trainer)
    wrapped: Any = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    if template:
        wrapped.chat_template = template
    return cast(PreTrainedTokenizerFast, wrapped)


def make_llama(seed: int = 0, window: int = 128, *, tied: bool = False) -> LlamaForCausalLM:
    """Make a Llama whose random weights are large enough that its predictions differ."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=368,  # padded beyond the tokenizer's vocabulary, as real bases are
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=window,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    model.requires_grad_(False)
    return cast(LlamaForCausalLM, model.train(False))


def make_shards(requests: Sequence[Request], checkpoint: Checkpoint) -> list[Shard]:
    """Cut requests into shards for a checkpoint."""
    made = cut_requests(requests, load_encoder(checkpoint))
    assert not made.refused
    arm = Arm(checkpoint, NUMERICS)
    return [
        Shard(key=str(n), arm=arm, requests=made.digests(part), work=part.work) for n, part in enumerate(made.slices)
    ]


def save_all(folder: Path) -> None:
    """Save `base`, a full fine-tune `full`, an adapter `lora`, and a `run` with two steps of the adapter."""
    words = make_tokenizer()
    model = make_llama()
    model.save_pretrained(folder / "base")
    words.save_pretrained(folder / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder / "full")
    words.save_pretrained(folder / "full")
    save_adapter(folder / "lora", folder / "base", seed=1)
    save_adapter(folder / "run" / "checkpoint-10", folder / "base", seed=2)
    save_adapter(folder / "run" / "checkpoint-20", folder / "base", seed=3)


def save_adapter(folder: Path, base: Path, seed: int, rank: int = 4) -> None:
    """Save a LoRA adapter with random, non-zero weights."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=rank, target_modules=["q_proj", "v_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(str(folder))


def save_peft(folder: Path, base: Path, config: Any, seed: int = 5) -> Path:
    """Save an adapter of any type with random weights."""
    torch.manual_seed(seed)
    adapted = randomise(get_peft_model(LlamaForCausalLM.from_pretrained(base), config))
    adapted.save_pretrained(str(folder))
    return folder


def randomise(adapted: Any) -> Any:
    """Change the trainable parameters of an adapter at random; return it."""
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return adapted
