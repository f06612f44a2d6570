"""A small trainer for the models of `evalsvc demo`: tokenizer, base, full fine-tuning, LoRA.

Not for real training: one process, CPU, fp32, packed windows, AdamW with a short warm-up and a cosine decay. It writes
ordinary Hugging Face folders, so that the demo's checkpoints are handled like all others. Texts are enclosed in BOS and
EOS and concatenated to one row of tokens; a window is a piece of this row with a random start.

All randomness comes from the recipe's seed: on one machine, with the same number of threads, equal recipes give equal
weights.
"""

from __future__ import annotations

import math
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evalsvc.checkpoints.costs import write_card
from evalsvc.engine.resident import silence
from evalsvc.records.arms import Cost

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
IGNORED = -100
"""Target of a token that has no loss."""

Progress = Callable[[int, int], None]
"""Called with steps done and steps in total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Size of a base model, a Llama with tied embeddings."""

    vocabulary: int = 1024
    hidden: int = 96
    layers: int = 2
    heads: int = 4
    feed_forward: int = 256
    positions: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        save_at: Steps after which a checkpoint is saved, increasing; training ends with the last.
        batch: Windows per step.
        window: Tokens per window.
        warmup: Steps of linear warm-up.
        final: Learning rate at the end, as a share of `learning_rate`.
    """

    learning_rate: float
    save_at: tuple[int, ...]
    batch: int = 4
    window: int = 64
    warmup: int = 50
    final: float = 0.05
    weight_decay: float = 0.01
    seed: int = 0
    threads: int = 1

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return self.save_at[-1]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Size of a training run: tokens seen, and seconds of wall time."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Row:
    """All texts as one row: `targets` are `tokens`, or `IGNORED` where there is no loss. Both int64 [n]."""

    tokens: torch.Tensor
    targets: torch.Tensor


def train_base(
    texts: Sequence[str],
    folder: Path,
    recipe: Recipe,
    progress: Progress,
    *,
    shape: Shape | None = None,
    words: Sequence[str] = (),
) -> TrainingResult:
    """Train a tokenizer and a model from scratch, and save both in `folder` after the last step.

    Args:
        words: Further texts to train the tokenizer on.
    """
    silence()
    shape = shape or Shape()
    tokenizer = _train_tokenizer([*texts, *words], shape)
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
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
    model = LlamaForCausalLM(config)
    trained = _train(model, _row(tokenizer, texts), recipe, progress, lambda step: None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return trained


def adapt(
    base: Path,
    texts: Sequence[str],
    folder: Path,
    recipe: Recipe,
    progress: Progress,
    *,
    rank: int | None = None,
    learn_after: str | None = None,
) -> TrainingResult:
    """Adapt a base, and save `folder`/checkpoint-N with its cost card after every step N of `save_at`.

    Args:
        rank: Rank of LoRA matrices on every linear layer, saved as an adapter; None trains and saves all weights.
        learn_after: Compute the loss only after this mark in each text, as in supervised fine-tuning; None: everywhere.
    """
    silence()
    torch.manual_seed(recipe.seed)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    if rank is not None:
        model = _with_lora(model, rank)

    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    frozen = sum(count for count, trains in sizes if not trains)
    trained = sum(count for count, trains in sizes if trains)
    share = trained / (frozen or trained)  # LoRA's own parameters are not part of the base
    started = time.process_time()

    def save(step: int) -> None:
        target = folder / f"checkpoint-{step}"
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
        cost = Cost(
            gpu_hours=0.0,
            cpu_hours=(time.process_time() - started) / 3600,
            train_tokens=step * recipe.batch * recipe.window,
            train_samples=step * recipe.batch,
            peak_memory_gb=_peak_memory() / 1e9,
            annotation_cost=0.0,  # the texts are generated
            trainable_share=share,
        )
        write_card(target, cost, recipe.seed)

    return _train(model, _row(tokenizer, texts, learn_after), recipe, progress, save)


def _with_lora(model: Any, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model  # takes a second to import, and most runs do not need it

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft uses an attribute that transformers has renamed
        return get_peft_model(model, config)


def _peak_memory() -> int:
    """Return the peak resident set size of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ------------------------------------------------------------------------------------------------------------- tokens


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


def _row(tokenizer: Any, texts: Sequence[str], learn_after: str | None = None) -> _Row:
    """Concatenate encoded texts; BOS and everything up to the mark have no loss."""
    heads = [text[: text.index(learn_after) + len(learn_after)] if learn_after else "" for text in texts]
    tokens: list[int] = []
    targets: list[int] = []
    encoded = zip(tokenizer(list(texts))["input_ids"], tokenizer(heads)["input_ids"], strict=True)
    for ids, head in encoded:
        tokens += [*ids, tokenizer.eos_token_id]
        targets += [*[IGNORED] * len(head), *ids[len(head) :], tokenizer.eos_token_id]
    return _Row(torch.tensor(tokens), torch.tensor(targets))


# ----------------------------------------------------------------------------------------------------------- training


def _train(model: Any, row: _Row, recipe: Recipe, progress: Progress, save: Callable[[int], None]) -> TrainingResult:
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
        starts = torch.randint(len(row.tokens) - recipe.window, (recipe.batch, 1), generator=generator)
        places = starts + torch.arange(recipe.window)
        logits = model(input_ids=row.tokens[places], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), row.targets[places + 1].flatten(), ignore_index=IGNORED
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step in recipe.save_at:
            save(step)
        progress(step, recipe.steps)
    return TrainingResult(recipe.steps * recipe.batch * recipe.window, time.monotonic() - started)


def _share(step: int, recipe: Recipe) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then cosine decay."""
    if step < recipe.warmup:
        return step / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.final + (1 - recipe.final) * 0.5 * (1 + math.cos(math.pi * done))
