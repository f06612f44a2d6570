"""Every kind of arm, made as people make them, by transformers and peft, on a tiny base with an untied or tied head."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from evalsvc.records.plans import Request
from tests.support.tiny import make_llama, make_tokenizer, save_peft

LINEAR = ["q_proj", "v_proj", "down_proj"]


def lora(**options: Any) -> peft.LoraConfig:
    """Configure a LoRA of rank 4 on some of the linear layers."""
    return peft.LoraConfig(r=4, target_modules=LINEAR, task_type="CAUSAL_LM", **options)


ADAPTERS: dict[str, Callable[[], peft.PeftConfig]] = {
    "lora": lora,
    "dora": lambda: lora(use_dora=True),
    "rslora": lambda: lora(use_rslora=True, lora_alpha=16),
    "pissa": lambda: lora(init_lora_weights="pissa"),
    "olora": lambda: lora(init_lora_weights="olora"),
    "alora": lambda: lora(alora_invocation_tokens=make_tokenizer()(" the")["input_ids"]),
    "replicated": lambda: lora(layer_replication=[[0, 2], [1, 2], [0, 1]]),
    "saved": lambda: lora(modules_to_save=["lm_head", "embed_tokens"]),
    "tokens": lambda: lora(trainable_token_indices=[3, 4, 300]),
    "ia3": lambda: peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    ),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "context": lambda: peft.CPTConfig(
        cpt_token_ids=[5, 6, 7], cpt_mask=[1, 1, 1], cpt_tokens_type_mask=[1, 2, 3], task_type="CAUSAL_LM"
    ),
    "p_tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=16, task_type="CAUSAL_LM"),
}
TIED_ADAPTERS: dict[str, Callable[[], peft.PeftConfig]] = {
    **{name: ADAPTERS[name] for name in ("lora", "olora", "prompt")},
    "saved": lambda: lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True),
}
"""Adapters to which it matters that the output head is tied to the embeddings."""
WITHOUT_WEIGHTS = ("prefix", "prompt", "context", "p_tuning")
"""Kinds that put something before the prompt, and change no weight."""
MERGEABLE = tuple(name for name in ADAPTERS if name not in (*WITHOUT_WEIGHTS, "alora", "replicated"))


GREEDY = '{"do_sample":false,"max_gen_toks":10,"until":["\\n"]}'
REQUESTS = (
    Request.of("loglikelihood", ("the cat sat on the", " mat")),
    Request.of("loglikelihood", ("one two the", " three four")),
    Request.of("loglikelihood", ("a dog ran over", " hill")),
    Request.of("loglikelihood_rolling", ("the sun is hot and the moon is cold, said the old man " * 4,)),
    Request.of("generate_until", ("the red house and the", GREEDY)),
    Request.of("generate_until", ("Question: what", GREEDY)),
)
"""Requests of every kind; some contain " the", which an activated LoRA waits for."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of arm on disk.

    Attributes:
        merged: Whether its adapter is merged before it is served.
        int8: Whether the full weights are rounded to 8 bits.
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
    make_llama(seed=int(tied), window=96, tied=tied).save_pretrained(folder)
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


def save_kinds(folder: Path) -> dict[str, Kind]:
    """Save every kind on a base with an untied head, and the ones that a tied head matters to on a second base."""
    kinds: dict[str, Kind] = {}
    for tied in (False, True):
        end = "-tied" if tied else ""
        base = save_base(folder / f"base{end}", tied=tied)
        kinds[f"base{end}"] = Kind(f"base{end}", base, base)
        kinds[f"full{end}"] = Kind(f"full{end}", base, save_full(folder / f"full{end}", base))
        for name, config in (TIED_ADAPTERS if tied else ADAPTERS).items():
            kinds[name + end] = Kind(name + end, base, save_peft(folder / (name + end), base, config(), seed=12))
    kinds["dotted"] = Kind("dotted", folder / "base", save_dotted(folder / "dotted", folder / "lora"))
    kinds["head-tied"] = Kind("head-tied", folder / "base-tied", save_head(folder / "head-tied", folder / "full-tied"))
    for name in ("base", "lora"):
        kinds[f"{name}-int8"] = Kind(f"{name}-int8", folder / "base", folder / name, int8=True)
    for name in MERGEABLE:
        kinds[f"{name}-merged"] = Kind(f"{name}-merged", folder / "base", folder / name, merged=True)
    return kinds


def save_dotted(folder: Path, source: Path) -> Path:
    """Save a LoRA whose tensors have the adapter's name in theirs, as some trainers save them."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    dotted = {re.sub(r"(lora_[AB])\.", r"\1.default.", name): 1.5 * tensor for name, tensor in tensors.items()}
    save_file(dotted, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def save_head(folder: Path, source: Path) -> Path:
    """Save full weights with an output head of their own, though their configuration ties it to the embeddings."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(13)
    embeddings = tensors["model.embed_tokens.weight"]
    head = embeddings + 0.1 * torch.randn_like(embeddings)
    save_file({**tensors, "lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load_base(folder: Path, dtype: torch.dtype = torch.float32, *, int8: bool = False) -> PreTrainedModel:
    """Load full weights as transformers does.

    Args:
        int8: Round the weights of linear layers, except the head, to 255 levels per output, as LLM.int8 does.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    for name, module in model.named_modules() if int8 else ():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            weight = module.weight.detach().numpy()
            scale = np.abs(weight).max(axis=1, keepdims=True) / np.float32(127)
            module.weight.data = torch.from_numpy(np.rint(weight / scale) * scale)
    return cast(PreTrainedModel, model.eval())


def load(kind: Kind, dtype: torch.dtype = torch.float32) -> Any:
    """Load an arm anew, by transformers and peft alone."""
    if not kind.is_adapter:
        return load_base(kind.folder, dtype, int8=kind.int8)
    base = load_base(kind.base, dtype, int8=kind.int8)
    model: Any = peft.PeftModel.from_pretrained(base, str(kind.folder)).eval()
    return model.merge_and_unload() if kind.merged else model


def add_factors(kind: Kind, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights + alpha / r * B A, for a LoRA that PEFT does not merge."""
    tensors = load_file(kind.folder / "adapter_model.safetensors")
    config = peft.PeftConfig.from_pretrained(str(kind.folder))
    changed = dict(weights)
    for name, a in tensors.items():
        if ".lora_A." in name:
            target = name.removeprefix("base_model.model.").replace(".lora_A", "")
            change = tensors[name.replace("lora_A", "lora_B")].double() @ a.double()
            changed[target] = weights[target].double() + config.lora_alpha / config.r * change
    return changed
