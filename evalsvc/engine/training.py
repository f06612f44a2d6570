"""A small plain trainer for the models of `evalsvc demo`: tokenizer, base, full fine-tuning, LoRA.

Not a trainer for work: one process, CPU, fp32, packed windows, AdamW with a short warm-up and a cosine decay. What it
writes are ordinary Hugging Face folders, so that the demo goes the way of every other checkpoint. Text comes in as
documents; every document is put between BOS and EOS, and all of them in one row, which is cut into windows.

Run-to-run equal on one machine and thread count: all randomness comes from the seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evalsvc.engine.models import silence

BOS, EOS, PAD = "<s>", "</s>", "<pad>"

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a base model."""

    vocabulary: int = 768
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    feed_forward: int = 344
    positions: int = 256


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        save_at: Steps after which a checkpoint is kept; the last one is where training ends.
        batch: Windows per step.
        window: Tokens per window.
        warmup: Steps until the learning rate is reached.
        final: Share of the learning rate that is left at the end.
    """

    learning_rate: float
    save_at: tuple[int, ...]
    batch: int = 8
    window: int = 64
    warmup: int = 10
    final: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0
    threads: int = 1

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return self.save_at[-1]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run cost."""

    tokens: int
    seconds: float


def train_base(
    texts: Sequence[str], folder: Path, shape: Shape, recipe: Recipe, progress: Progress, vocabulary: Sequence[str] = ()
) -> Trained:
    """Train tokenizer and model from nothing, and save both in `folder`.

    Args:
        vocabulary: Further texts whose words the tokenizer should know.
    """
    silence()
    tokenizer = _train_tokenizer([*texts, *vocabulary], shape)
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.feed_forward,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.positions,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )

    def save(step: int) -> None:
        if step == recipe.steps:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    return _train(model, _row(tokenizer, texts), recipe, save, progress)


def adapt(
    base: Path,
    texts: Sequence[str],
    folder: Path,
    method: Literal["full", "lora"],
    recipe: Recipe,
    progress: Progress,
    *,
    rank: int = 8,
) -> Trained:
    """Train a base further on `texts`, and save `folder`/checkpoint-N at the steps that the recipe says.

    Args:
        method: "full" changes all weights and saves whole models, "lora" trains and saves an adapter.
        rank: Rank of the LoRA matrices of every linear layer.
    """
    silence()
    torch.manual_seed(recipe.seed)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype=torch.float32)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)

    def save(step: int) -> None:
        target = folder / f"checkpoint-{step}"
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)

    return _train(model, _row(tokenizer, texts), recipe, save, progress)


def _train_tokenizer(texts: Sequence[str], shape: Shape) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE that puts BOS before every text, as Llama's tokenizers do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=shape.positions,
        clean_up_tokenization_spaces=False,
    )


def _row(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Return all documents in one row of tokens, each as BOS, text, EOS."""
    eos = tokenizer.eos_token_id
    return torch.tensor([token for ids in tokenizer(list(texts))["input_ids"] for token in (*ids, eos)])


def _train(
    model: Any, row: torch.Tensor, recipe: Recipe, save: Callable[[int], None], progress: Progress
) -> Trained:
    torch.set_num_threads(recipe.threads)
    started = time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
    )
    model.train()
    progress(0, recipe.steps)
    for step in range(1, recipe.steps + 1):
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * _share(step, recipe)
        starts = torch.randint(0, len(row) - recipe.window, (recipe.batch, 1), generator=generator)
        windows = row[starts + torch.arange(recipe.window + 1)]
        logits = model(input_ids=windows[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step in recipe.save_at:
            save(step)
        progress(step, recipe.steps)
    return Trained(recipe.steps * recipe.batch * recipe.window, time.monotonic() - started)


def _share(step: int, recipe: Recipe) -> float:
    """Return the share of the learning rate at a step: up in a line, down along a cosine."""
    if step < recipe.warmup:
        return step / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.final + (1 - recipe.final) * 0.5 * (1 + math.cos(math.pi * done))
