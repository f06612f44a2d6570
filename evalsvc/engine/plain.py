"""The plain path: requests in padded batches, one full forward each. Works for every causal language model.

Rows are right-padded without a mask, which causal attention never looks at; equal inputs share a row; the log-softmax
is taken in float32 and at scored positions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from evalsvc.engine.encoding import Prompt, Scored, cut_at_stops

BATCH_TOKENS = 2048
"""Padded tokens per forward; halved when memory runs out."""


@torch.inference_mode()
def loglikelihoods(model: torch.nn.Module, items: Sequence[Scored]) -> list[tuple[float, bool]]:
    """Return (log-likelihood in nats, whether every target is the argmax) of each item."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for number, item in enumerate(items):
        rows.setdefault(item.tokens, []).append(number)
    found: list[tuple[float, bool]] = [(0.0, False)] * len(items)
    queue = sorted(rows, key=lambda tokens: (-len(tokens), tokens))
    budget = BATCH_TOKENS
    while queue:
        batch = queue[: max(1, budget // len(queue[0]))]
        try:
            logits = _forward(model, batch)
        except (torch.OutOfMemoryError, MemoryError):
            if len(batch) == 1:
                raise
            budget = len(queue[0]) * (len(batch) // 2)
            continue
        for row, tokens in enumerate(batch):
            for number in rows[tokens]:
                found[number] = _score(logits[row, : len(tokens)], items[number].targets)
        queue = queue[len(batch) :]
    return found


def _forward(model: torch.nn.Module, batch: Sequence[tuple[int, ...]]) -> torch.Tensor:
    longest = len(batch[0])
    padded = [(*tokens, *(0 for _ in range(longest - len(tokens)))) for tokens in batch]
    return cast(torch.Tensor, model(torch.tensor(padded, device=_device(model))).logits)


def _score(logits: torch.Tensor, targets: tuple[int, ...]) -> tuple[float, bool]:
    scored = logits[-len(targets) :].float()
    wanted = torch.tensor(targets, device=scored.device)
    picked = scored.gather(1, wanted[:, None])[:, 0] - scored.logsumexp(1)
    return float(picked.double().sum()), bool((scored.argmax(1) == wanted).all())


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


# --------------------------------------------------------------------------------------------------------- generation


class _Stops(StoppingCriteria):
    """Ends a generation once its text holds a stop sequence."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], prompt_length: int) -> None:
        self.tokenizer, self.stops, self.start = tokenizer, stops, prompt_length
        # A stop may arrive in other tokens than its own encoding: look back a little further.
        longest = max((len(tokenizer.encode(stop, add_special_tokens=False)) for stop in stops), default=0)
        self.look_back = longest + 2

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        generated = input_ids[0, self.start :]
        text = self.tokenizer.decode(generated[-self.look_back :])
        return torch.tensor([any(stop in text for stop in self.stops)], device=input_ids.device)


@torch.inference_mode()
def generate(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[tuple[Prompt, int]]
) -> Iterator[tuple[str, int]]:
    """Yield (text cut at the first stop, tokens generated) for each (prompt, seed).

    One prompt at a time: a text then never depends on what else is in its batch.
    """
    padding = next(
        (t for t in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id) if t is not None), 0
    )
    for prompt, seed in prompts:
        tokens = torch.tensor([prompt.tokens], device=_device(model))
        torch.manual_seed(seed)
        output = cast(Any, model).generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=prompt.max_new_tokens,
            stopping_criteria=StoppingCriteriaList([_Stops(tokenizer, prompt.stops, len(prompt.tokens))]),
            pad_token_id=padding,
            use_cache=True,
            **prompt.sampling,
        )
        new = cast(torch.Tensor, output)[0, len(prompt.tokens) :].tolist()
        yield cut_at_stops(str(tokenizer.decode(new, skip_special_tokens=True)), prompt.stops), len(new)
