"""Models with random weights, requests and shards, in the sizes of a GPU and, for a trial run, of a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

from evalsvc.engine import trie as tries
from evalsvc.engine.encoding import Encoder
from evalsvc.engine.unpacked import items_of
from evalsvc.records.shards import Likelihoods, Tokens
from tests.benchmarks.texts import VOCABULARY as WORDS
from tests.benchmarks.texts import Texts, read, train_tokenizer

WINDOW = 4096
FEW_WORDS = 512
"""Vocabulary of random sequences, and of the smallest models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Sizes.

    Attributes:
        device: Where the engine runs.
        dtype: Of everything whose speed is measured.
        width, layers: Of the four architectures that are compared with float64.
        shards: Per architecture, for counting graphs.
        shard_rows: Least and most rows of those shards.
        mask_rows: Rows of the pack whose mask is measured.
        documents: Per subject of MMLU's shape, and of HellaSwag's.
        subjects: Of MMLU's shape.
        batches: Batch sizes of the harness, the best of which counts.
        prompts, answer: Prompts to continue, and by how many tokens.
        free_gb: Free memory to leave, for determinism.
    """

    device: str
    dtype: torch.dtype
    width: int
    layers: int
    shards: int
    shard_rows: tuple[int, int]
    mask_rows: int
    subjects: int
    documents: int
    batches: tuple[int, ...]
    prompts: int
    answer: int
    free_gb: tuple[float, ...]
    matmul: int
    small: bool


FULL = Scale(
    device="cuda",
    dtype=torch.bfloat16,
    width=512,
    layers=4,
    shards=8,
    shard_rows=(4000, 20_000),
    mask_rows=16_384,
    subjects=3,
    documents=150,
    batches=(16, 64),
    prompts=256,
    answer=64,
    free_gb=(6.0, 1.5, 0.5),
    matmul=8192,
    small=False,
)
SMALL = Scale(
    device="cpu",
    dtype=torch.float32,
    width=64,
    layers=2,
    shards=3,
    shard_rows=(100, 500),
    mask_rows=256,
    subjects=1,
    documents=3,
    batches=(1, 4),
    prompts=4,
    answer=6,
    free_gb=(1.0,),
    matmul=256,
    small=True,
)

ARCHITECTURES = ("llama", "qwen3", "gemma2", "gpt_neox")


def architecture(name: str, scale: Scale) -> Any:
    """Return the configuration of a small model, with the head sizes that real models of its kind have."""
    sizes = {
        "vocab_size": FEW_WORDS if scale.small else WORDS,
        "hidden_size": scale.width,
        "intermediate_size": 3 * scale.width,
        "num_hidden_layers": scale.layers,
        "max_position_embeddings": WINDOW,
        "initializer_range": 0.06,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    heads = scale.width // 64
    shapes: dict[str, tuple[str, dict[str, Any]]] = {
        "llama": ("Llama", {"num_attention_heads": heads, "num_key_value_heads": max(1, heads // 4)}),
        "qwen3": ("Qwen3", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128}),
        "gemma2": (
            "Gemma2",
            {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 256, "sliding_window": 128},
        ),
        "gpt_neox": ("GPTNeoX", {"num_attention_heads": heads, "attention_bias": True}),
    }
    kind, special = shapes[name]
    return getattr(transformers, f"{kind}Config")(**sizes, **special)


def own_attention(name: str) -> str:
    """Return transformers' attention that is exact for an architecture: its sdpa knows no soft cap."""
    return "eager" if name == "gemma2" else "sdpa"


def llama_1b(scale: Scale) -> Any:
    """Return the shape of Llama 3.2 1B."""
    return _llama(scale, 2048, 8192, 16, 32, 8, tied=True)


def llama_8b(scale: Scale) -> Any:
    """Return the shape of Llama 3.1 8B."""
    return _llama(scale, 4096, 14_336, 32, 32, 8, tied=False)


def _llama(scale: Scale, hidden: int, inner: int, layers: int, heads: int, key_heads: int, *, tied: bool) -> Any:
    if scale.small:
        hidden, inner, layers, heads, key_heads = 64, 128, 2, 4, 2
    return transformers.LlamaConfig(
        vocab_size=WORDS if scale.small else 128_256,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=tied,
        initializer_range=0.04,  # twice the default: answers then do not repeat one token for ever
        bos_token_id=0,
        eos_token_id=1,
    )


def build(config: Any, device: str, dtype: torch.dtype, seed: int = 0) -> Any:
    """Return a model with random weights, made on the device."""
    torch.manual_seed(seed)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.generation_config.eos_token_id = None  # answers of the same length on both sides
    return model.to(device).train(False).requires_grad_(False)


@cache
def texts() -> Texts:
    """Return made-up text, the same everywhere."""
    return read(Path("no real text"))


@cache
def tokenizer() -> Any:
    """Return a tokenizer trained on the text."""
    return train_tokenizer(texts())


def encoder(config: Any) -> Encoder:
    """Return the encoder for a model."""
    return Encoder(tokenizer(), config)


def random_shard(seed: int, stems: int, stem: int, branches: int, branch: int) -> Likelihoods:
    """Return sequences that share long beginnings, branch, nest and repeat, of which the last tokens are scored.

    There are about stems * (stem + branches * branch) rows.
    """
    rng = np.random.default_rng(seed)

    def draw(n: int) -> Tokens:
        return rng.integers(2, FEW_WORDS, max(1, n)).astype(np.int32)

    opening = draw(stem // 4)
    sequences: list[Tokens] = []
    for _ in range(stems):
        trunk = np.concatenate([opening, draw(stem - len(opening))])
        sequences.append(trunk)
        for number in range(branches):
            arm = np.concatenate([trunk, draw(branch + number % 5)])
            sequences.append(arm)
            if number % 3 == 0:
                sequences.append(np.concatenate([arm, draw(4)]))
    targets = [draw(1 + number % 4) for number in range(len(sequences))]
    trie, rows = tries.build(sequences, [len(target) for target in targets])
    counts = [len(target) for target in targets]
    return Likelihoods(
        trie=trie,
        rows=np.concatenate(rows),
        targets=np.concatenate(targets),
        owners=np.repeat(np.arange(len(sequences), dtype=np.int32), counts),
        rolling=np.zeros(len(sequences), bool),
        truncated=np.zeros(len(sequences), np.int32),
    )


def shard_of_rows(seed: int, rows: int) -> Likelihoods:
    """Return a shard of about so many rows; every seed has another proportion of stems and branches."""
    stem = max(16, (rows // 20, rows // 8, rows // 4, 300)[seed % 4])
    branch = max(3, (8, 40, 20, 4)[seed % 4] * min(stem, 300) // 300)
    branches = 12
    stems = max(1, rows // (stem + branches * (branch + 3)))
    return random_shard(seed, stems, min(stem, WINDOW // 2), branches, branch)


def plain_loglikelihoods(model: Any, work: Likelihoods, batch: int, dtype: torch.dtype) -> Any:
    """Return log-likelihoods in nats, float64 [requests], by padded batches of whole sequences, as the harness does.

    Args:
        batch: Sequences per forward pass.
        dtype: Of the log-softmax.
    """
    owners, items = items_of(work)
    device = next(model.parameters()).device
    order = sorted(range(len(items)), key=lambda n: -len(items[n].tokens))
    values = np.zeros(len(work.rolling))
    with torch.inference_mode():
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            padded = np.zeros((len(chosen), len(items[chosen[0]].tokens)), np.int64)
            for row, number in enumerate(chosen):
                padded[row, : len(items[number].tokens)] = items[number].tokens
            logits = model(torch.from_numpy(padded).to(device), use_cache=False).logits
            for row, number in enumerate(chosen):
                item = items[number]
                scored = logits[row, len(item.tokens) - len(item.targets) : len(item.tokens)].to(dtype)
                targets = torch.from_numpy(item.targets.astype(np.int64)).to(device)
                picked = scored.gather(1, targets[:, None])[:, 0] - scored.logsumexp(1)
                values[owners[number]] += float(picked.double().sum())
    return values
