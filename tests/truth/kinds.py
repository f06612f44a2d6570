"""Every kind of arm, made as people make them, by transformers and peft, on a tiny base with an untied or tied head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import peft
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tests.support.tiny import make_tokenizer

LINEAR = ["q_proj", "v_proj", "down_proj"]


def _lora(**options: Any) -> peft.LoraConfig:
    return peft.LoraConfig(r=4, target_modules=LINEAR, task_type="CAUSAL_LM", **options)


ADAPTERS: dict[str, Callable[[], peft.PeftConfig]] = {
    "lora": _lora,
    "dora": lambda: _lora(use_dora=True),
    "rslora": lambda: _lora(use_rslora=True, lora_alpha=16),
    "pissa": lambda: _lora(init_lora_weights="pissa"),
    "olora": lambda: _lora(init_lora_weights="olora"),
    "saved": lambda: _lora(modules_to_save=["lm_head", "embed_tokens"]),
    "tokens": lambda: _lora(trainable_token_indices=[3, 4, 300]),
    "ia3": lambda: peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    ),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "p_tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=16, task_type="CAUSAL_LM"),
}
WITHOUT_WEIGHTS = ("prefix", "prompt", "p_tuning")
"""Kinds that put something before the prompt, and change no weight."""
MERGEABLE = tuple(name for name in ADAPTERS if name not in WITHOUT_WEIGHTS)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of arm on disk.

    Attributes:
        merged: Whether its adapter is merged before it is served.
        int8: Whether base and adapter are served with int8 weights.
    """

    name: str
    base: Path
    folder: Path
    merged: bool = False
    int8: bool = False

    @property
    def is_adapter(self) -> bool:
        """Whether it is a PEFT adapter."""
        return (self.folder / "adapter_config.json").is_file()


def save_base(folder: Path, *, tied: bool) -> Path:
    """Save a tiny base whose predictions differ from token to token."""
    torch.manual_seed(int(tied))
    config = LlamaConfig(
        vocab_size=368,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def save_full(folder: Path, base: Path, seed: int = 11) -> Path:
    """Save a fine-tune of all weights, the output head among them."""
    model = load_base(base)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, name: str, seed: int = 12) -> Path:
    """Save an adapter as after training: every trainable number moved away from where peft starts it."""
    torch.manual_seed(seed)
    model: Any = peft.get_peft_model(load_base(base), ADAPTERS[name]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(str(folder))
    return folder


def save_kinds(folder: Path) -> dict[str, Kind]:
    """Save every kind on a base with an untied head, and the ones that a tied head matters to on a second base."""
    kinds: dict[str, Kind] = {}
    for tied in (False, True):
        end = "-tied" if tied else ""
        base = save_base(folder / f"base{end}", tied=tied)
        kinds[f"base{end}"] = Kind(f"base{end}", base, base)
        kinds[f"full{end}"] = Kind(f"full{end}", base, save_full(folder / f"full{end}", base))
        for name in ("lora", "olora", "prompt") if tied else ADAPTERS:
            kinds[name + end] = Kind(name + end, base, save_adapter(folder / (name + end), base, name))
    for name in MERGEABLE:
        kinds[f"{name}-merged"] = Kind(f"{name}-merged", folder / "base", folder / name, merged=True)
    return kinds


def load_base(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load full weights as transformers does."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return cast(PreTrainedModel, model.eval())


def load(kind: Kind, dtype: torch.dtype = torch.float32) -> Any:
    """Load an arm anew, by transformers and peft alone."""
    if not kind.is_adapter:
        return load_base(kind.folder, dtype)
    model: Any = peft.PeftModel.from_pretrained(load_base(kind.base, dtype), str(kind.folder)).eval()
    return model.merge_and_unload() if kind.merged else model
