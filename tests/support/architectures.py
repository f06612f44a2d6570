"""Tiny random models of the architectures that the engine takes, each with what makes it special switched on."""

from __future__ import annotations

from typing import Any

import torch
import transformers

_SIZE = {
    "vocab_size": 368,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

TRIE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": 20}),
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "sliding_window": 20}),
    "gemma3": (
        "Gemma3Text",
        {"head_dim": 16, "sliding_window": 20, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]},
    ),
    "gpt_neox": ("GPTNeoX", {}),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96}),
    "phi": ("Phi", {}),
    "phi3": ("Phi3", {}),
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen2_moe": ("Qwen2Moe", {**_MOE, "shared_expert_intermediate_size": 32}),
    "qwen3_moe": ("Qwen3Moe", {**_MOE, "head_dim": 16}),
    "gpt_oss": ("GptOss", {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 20}),
    "granite": ("Granite", {"logits_scaling": 3.0}),
    "cohere": ("Cohere", {"logit_scale": 0.2}),
}
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "bloom": ("Bloom", {"n_layer": 3, "n_head": 4}),
    "falcon": ("Falcon", {"alibi": True}),
    "mamba": ("Mamba", {"state_size": 8}),
    "mamba2": ("Mamba2", {"head_dim": 16, "num_heads": 4, "n_groups": 1, "state_size": 8}),
    "lfm2": ("Lfm2", {"layer_types": ["conv", "full_attention", "conv"]}),
}


def make(name: str, seed: int = 0, **options: Any) -> Any:
    """Make a model of an architecture."""
    kind, special = (TRIE | PLAIN)[name]
    config = getattr(transformers, f"{kind}Config")(**{**_SIZE, **special, **options})
    torch.manual_seed(seed)
    model: Any = transformers.AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "sinks" in parameter_name:
                parameter.normal_()
    return model.train(False).requires_grad_(False)
