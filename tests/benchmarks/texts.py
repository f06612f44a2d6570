"""What the workloads are made of: questions, passages, prose and sums; a tokenizer and a model over them.

Real text is taken from the test data if it is there (`EVALSVC_TEST_DATA`, see `tests/conftest.py`): ARC, OpenBookQA,
PIQA, LAMBADA, GSM8K, WikiText-2. Otherwise words are drawn by Zipf's law and put together to the same shapes. Nothing
is downloaded: the tokenizer is trained here, the weights are random.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import accumulate
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

from evalsvc.checkpoints.discover import Description, open_base, open_checkpoints
from evalsvc.records.arms import Checkpoint

VOCABULARY = 8192
WINDOW = 2048
RANK = 16
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its choices."""

    query: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Raw material.

    Attributes:
        source: Where it is from, for people.
        science, short: Questions with four choices; `short` ones go without examples.
        passages: Some 75 words each.
        prose: Long texts.
        sums: (question, answer) pairs in words.
    """

    source: str
    science: list[Question]
    short: list[Question]
    passages: list[str]
    prose: list[str]
    sums: list[tuple[str, str]]

    def everything(self) -> list[str]:
        """Return all text, for the tokenizer to be trained on."""
        questions = [part for q in (*self.science, *self.short) for part in (q.query, *q.choices)]
        return [*questions, *self.passages, *self.prose, *(part for pair in self.sums for part in pair)]


def read(folder: Path) -> Texts:
    """Return real text from the test data's folder, or made-up text if it is not there."""
    found = folder / "benchmarks"
    return _real(found) if found.is_dir() else _made_up()


def _real(folder: Path) -> Texts:
    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    def questions(name: str) -> list[Question]:
        return [
            Question(row["query"].removeprefix("Question: ").strip(), tuple(row["choices"]))
            for row in rows(f"llmfoundry/{name}.jsonl")
        ]

    science = [question for question in questions("arc_challenge") if len(question.choices) == 4]
    short = [q for name in ("arc_easy", "openbook_qa", "piqa") for q in _some(questions(name), 500)]
    lambada = [f"{row['context']} {row['continuation']}" for row in rows("llmfoundry/lambada_openai.jsonl")]
    wiki = (folder / "text/wikitext2_test.txt").read_text(encoding="utf-8")
    prose = [wiki[start : start + 12_000] for start in range(0, len(wiki) - 12_000, 12_000)]
    sums = [(row["question"], row["answer"]) for row in rows("gsm8k/test.jsonl")]
    source = "real text (ARC, OpenBookQA, PIQA, LAMBADA, GSM8K, WikiText-2)"
    return Texts(
        source=source,
        science=_some(science),
        short=_some(short),
        passages=_some(lambada),
        prose=_some(prose),
        sums=_some(sums),
    )


def _some(items: list[Any], count: int | None = None) -> list[Any]:
    shuffled = list(items)
    random.Random(7).shuffle(shuffled)
    return shuffled[:count]


def _made_up() -> Texts:
    rng = random.Random(7)
    syllables = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "ing", "ou", "st")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(20_000)]
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))

    def say(low: int, high: int) -> str:
        return " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(low, high)))

    def ask(count: int, low: int, high: int) -> list[Question]:
        return [Question(f"{say(10, 40)}?", tuple(say(low, high) for _ in range(4))) for _ in range(count)]

    return Texts(
        source="made-up words",
        science=ask(1000, 2, 10),
        short=ask(1000, 2, 8),
        passages=[f"{say(70, 80)}." for _ in range(5000)],
        prose=[say(2000, 2200) for _ in range(100)],
        sums=[(f"{say(35, 60)}?", f"{say(50, 90)}.") for _ in range(600)],
    )


# -------------------------------------------------------------------------------------------------------------- models


def train_tokenizer(texts: Texts) -> Any:
    """Return a byte-level BPE tokenizer trained on the texts."""
    raw = Tokenizer(BPE())
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.decoder = ByteLevelDecoder()
    raw.train_from_iterator(
        texts.everything(),
        BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")


def save_base(texts: Texts, folder: Path) -> Checkpoint:
    """Save model S with random weights, and a tokenizer trained on the texts; return it opened."""
    train_tokenizer(texts).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=WINDOW,
        initializer_range=0.04,  # twice the default: answers then do not repeat one token for ever
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return open_base(str(folder))


def save_adapters(base: Checkpoint, folder: Path, count: int) -> list[Checkpoint]:
    """Save LoRA adapters of all linear layers with random, non-zero weights; return them opened."""
    found = []
    for seed in range(1, count + 1):
        torch.manual_seed(seed)
        model = LlamaForCausalLM.from_pretrained(base.path)
        adapted = get_peft_model(cast(Any, model), LoraConfig(r=RANK, target_modules=LINEAR))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(0.02 * torch.randn_like(parameter))
        adapted.save_pretrained(str(folder / f"lora{seed}"))
        found += open_checkpoints(str(folder / f"lora{seed}"), base.path, Description())[1]
    return found
