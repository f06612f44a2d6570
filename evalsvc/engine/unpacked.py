"""The plain path: requests in padded batches, one full forward pass each. Works for every causal language model.

Rows are right-padded without a mask: causal attention never reads the padding. Where the parity check shows that a
model does, or that its rows are not independent, every row has a batch of its own. Equal inputs share a row. The
log-softmax is computed in float32 and only at scored positions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from evalsvc.engine import trie as tries
from evalsvc.engine.encoding import Scored, cut_at_stops, stop_texts
from evalsvc.records.generation import read_decoding
from evalsvc.records.shards import Likelihoods, Prompts, Tokens
from evalsvc.records.vocabulary import Floats

BATCH_TOKENS = 2048
"""Padded tokens per forward pass; halved when memory runs out."""

ALONE = 1
"""Padded tokens per forward pass with which every row has a batch of its own."""


def score(model: Any, work: Likelihoods, budget: int = BATCH_TOKENS) -> tuple[Floats, NDArray[np.bool_]]:
    """Return log-likelihoods in nats, float64 [requests], and whether every target is the argmax, bool [requests].

    Args:
        budget: Padded tokens per forward pass.
    """
    if model.config.is_encoder_decoder:
        owners, items = _two_sided_items(work)
        results = [_two_sided(model, sequence) for sequence in items]
    else:
        owners, items = items_of(work)
        results = loglikelihoods(model, items, budget)
    requests = len(work.rolling)
    greedy: NDArray[np.bool_] = np.ones(requests, bool)
    greedy[[owner for owner, (_, is_greedy) in zip(owners, results, strict=True) if not is_greedy]] = False
    return np.bincount(owners, [value for value, _ in results], requests).astype(np.float64), greedy


def items_of(work: Likelihoods) -> tuple[list[int], list[Scored]]:
    """Return the sequences that a trie was built from, with the request of each."""
    parents = tries.parents(work.trie)
    rows, owners = work.rows, work.owners
    begins = [0, *(np.flatnonzero((parents[rows[1:]] != rows[:-1]) | (owners[1:] != owners[:-1])) + 1).tolist()]
    items = []
    for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
        tokens = work.trie.tokens[tries.path(work.trie, int(rows[end - 1]))]
        items.append(Scored(tokens, work.targets[begin:end]))
    return owners[begins].tolist(), items


def _two_sided_items(work: Likelihoods) -> tuple[list[int], list[Scored]]:
    bounds = np.flatnonzero(np.diff(work.owners)) + 1
    rows, targets = np.split(work.rows, bounds), np.split(work.targets, bounds)
    items = [
        Scored(work.trie.tokens[tries.path(work.trie, int(row[0]))], target)
        for row, target in zip(rows, targets, strict=True)
    ]
    return work.owners[[0, *bounds]].tolist(), items


@torch.inference_mode()
def _two_sided(model: Any, sequence: Scored) -> tuple[float, bool]:
    source, target = (
        torch.from_numpy(t.astype(np.int64))[None].to(_device(model)) for t in (sequence.tokens, sequence.targets)
    )
    return _score(model(input_ids=source, labels=target).logits[0], sequence.targets)


@torch.inference_mode()
def loglikelihoods(model: Any, items: Sequence[Scored], budget: int = BATCH_TOKENS) -> list[tuple[float, bool]]:
    """Return (log-likelihood in nats, whether every target is the argmax) of each sequence."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for number, sequence in enumerate(items):
        rows.setdefault(tuple(sequence.tokens.tolist()), []).append(number)
    results: list[tuple[float, bool]] = [(0.0, False)] * len(items)
    queue = sorted(rows, key=lambda tokens: (-len(tokens), tokens))
    while queue:
        batch = queue[: max(1, budget // len(queue[0]))]
        try:
            logits = _forward(model, batch)
        except (RuntimeError, MemoryError) as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
            budget = len(queue[0]) * (len(batch) // 2)
            continue
        ahead = logits.shape[1] - len(batch[0])  # rows of virtual tokens that an adapter adds before the prompt
        for row, tokens in enumerate(batch):
            for number in rows[tokens]:
                results[number] = _score(logits[row, ahead : ahead + len(tokens)], items[number].targets)
        queue = queue[len(batch) :]
    return results


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception means that memory ran out, on any device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _forward(model: Any, batch: Sequence[tuple[int, ...]]) -> torch.Tensor:
    longest, padding = len(batch[0]), _padding(model)
    padded = [(*tokens, *(padding for _ in range(longest - len(tokens)))) for tokens in batch]
    return cast(torch.Tensor, model(torch.tensor(padded, device=_device(model))).logits)


def _padding(model: Any) -> int:
    """Return a token that may follow a sequence: none of those that an activated LoRA waits for."""
    config = getattr(model, "peft_config", {}).get("default")
    waited_for = getattr(config, "alora_invocation_tokens", None) or ()
    return next(token for token in range(len(waited_for) + 1) if token not in waited_for)


def _score(logits: torch.Tensor, targets: Tokens) -> tuple[float, bool]:
    scored = logits[-len(targets) :].float()
    expected = torch.from_numpy(targets.astype(np.int64)).to(scored.device)
    picked = scored.gather(1, expected[:, None])[:, 0] - scored.logsumexp(1)
    return float(picked.double().sum()), bool((scored.argmax(1) == expected).all())


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


# --------------------------------------------------------------------------------------------------------- generation


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Settings of an answer's generation.

    Attributes:
        stops: Texts that end it; they include the tokenizer's EOS text.
        max_new_tokens: Maximum number of tokens to generate.
        sampling: Settings for transformers' `generate`: do_sample, temperature, top_p, ...
        max_length: Maximum number of tokens of prompt and answer together, instead of `max_new_tokens`.
        think_end: Text, or id of the token, up to which the model thinks.
        is_fixed: Whether `max_new_tokens` is the checkpoint's own, which stays whatever the prompt.
    """

    stops: tuple[str, ...]
    max_new_tokens: int
    sampling: dict[str, Any]
    max_length: int | None = None
    think_end: str | int | None = None
    is_fixed: bool = False

    @classmethod
    def of(cls, settings: str, tokenizer: PreTrainedTokenizerBase, own_limit: int | None = None) -> GenerationSettings:
        """Read a task's generation settings, canonical JSON.

        Args:
            own_limit: `max_new_tokens` of the checkpoint's own configuration: transformers puts it before the
                `max_length` that lm-eval computes from the task's limits.
        """
        decoding = read_decoding(json.loads(settings))
        return cls(
            stop_texts(tokenizer, decoding.stops),
            decoding.max_gen_toks if own_limit is None else own_limit,
            decoding.strategy,
            decoding.max_length,
            decoding.think_end,
            is_fixed=own_limit is not None,
        )

    def for_prompt(self, tokens: int, *, two_sided: bool = False) -> GenerationSettings:
        """Return the settings for a prompt of some length.

        Args:
            two_sided: Whether an encoder reads the prompt: lm-eval adds its length to the limit of the answer, which
                begins with one token.
        """
        if self.is_fixed:
            return self
        both = tokens + self.max_new_tokens if self.max_length is None else self.max_length
        return replace(self, max_new_tokens=both - (1 if two_sided else tokens))


class Stops:
    """Checks whether an answer contains one of its stop texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        # A stop text may be generated as other tokens than its own encoding: decode a few more.
        longest = max((len(tokenizer.encode(stop, add_special_tokens=False)) for stop in stops), default=0)
        self._look_back = longest + 2

    def are_reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last of the generated tokens complete a stop text."""
        text = str(self._tokenizer.decode(list(tokens[-self._look_back :])))
        return any(stop in text for stop in self._stops)


class _Criteria(StoppingCriteria):  # type: ignore[misc]
    """Stop texts, in transformers' interface."""

    def __init__(self, stops: Stops, start: int) -> None:
        self._stops, self._start = stops, start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.tensor([self._stops.are_reached(input_ids[0, self._start :].tolist())], device=input_ids.device)


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    work: Prompts,
    all_options: Sequence[GenerationSettings],
    seeds: Sequence[int],
) -> list[list[int]]:
    """Return the generated tokens of each request.

    One prompt at a time: so an answer does not depend on other prompts in a batch.

    Args:
        all_options: Settings of each request, for its prompt.
    """
    padding = next(
        (t for t in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id) if t is not None), 0
    )
    answers = []
    for end, options, seed in zip(work.ends.tolist(), all_options, seeds, strict=True):
        prompt = work.trie.tokens[tries.path(work.trie, end)].astype(np.int64)
        tokens = torch.from_numpy(prompt)[None].to(_device(model))
        before = 1 if model.config.is_encoder_decoder else len(prompt)
        torch.manual_seed(seed)
        output = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=options.max_new_tokens,
            stopping_criteria=StoppingCriteriaList([_Criteria(Stops(tokenizer, options.stops), before)]),
            pad_token_id=padding,
            use_cache=True,
            return_dict_in_generate=False,
            **options.sampling,
        )
        answers.append(output[0, before:].tolist())
    return answers


def text_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], options: GenerationSettings) -> str:
    """Return generated tokens as text, without what the model thought, cut at the first stop text."""
    answer, think_end = list(tokens), options.think_end
    if isinstance(think_end, int) and think_end in answer:
        answer = answer[len(answer) - answer[::-1].index(think_end) :]
    text = str(tokenizer.decode(answer, skip_special_tokens=True))
    if think_end is not None:
        text = (text.split(think_end)[-1] if isinstance(think_end, str) else text).lstrip()  # as lm-eval does
    return cut_at_stops(text, options.stops)
