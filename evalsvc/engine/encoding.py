"""Text to tokens, by the rules of lm-eval's Hugging Face model (`HFLM`), in batches.

The rules that scores depend on:

1. Context and continuation are encoded *together* and cut where the context's own encoding ends; spaces at the end of
   the context move to the continuation first. Where one token spans the cut, the continuation would lose tokens or
   become empty (lm-eval stops with an AssertionError); only if it becomes empty is it encoded by itself here.
2. An empty context is the tokenizer's BOS (else EOS) token.
3. A text that starts with the BOS text gets no second BOS.
4. What does not fit the window is cut from the left.
5. A rolling text is cut into windows that predict every token once, the first after a BOS; the last window takes as
   much of the text before it as fits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from evalsvc.records import Request

_DEFAULT_MAX_LENGTH = 2048
_DEFAULT_MAX_GEN_TOKS = 256
_UNLIMITED = int(1e30)


class RequestError(ValueError):
    """A request that this model cannot answer; says why."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Tokens to score.

    Attributes:
        tokens: Model input followed by nothing that is not predicted: context + continuation[:-1], window applied.
        targets: The continuation's tokens; target i is predicted at position len(tokens) - len(targets) + i.
        truncated: Tokens cut from the left.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens to continue.

    Attributes:
        stops: Texts that end the generation; the tokenizer's EOS text is among them.
        max_new_tokens: Most tokens to generate.
        sampling: Settings for transformers' `generate`: do_sample, temperature, top_p, ...
    """

    tokens: tuple[int, ...]
    stops: tuple[str, ...]
    max_new_tokens: int
    sampling: dict[str, Any]
    truncated: int = 0


class Encoder:
    """Encodes the requests of one tokenizer and context window."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
        self.tokenizer = tokenizer
        self.max_length = context_window(config, tokenizer)
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if bos is None and eos is None:
            raise RequestError(
                "the tokenizer has neither a BOS nor an EOS token, so an empty context cannot be encoded"
            )
        self.prefix: int = bos if bos is not None else eos
        self._prefix_text = str(tokenizer.decode(self.prefix))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids, with the special tokens that the tokenizer adds by itself."""
        plain = [text for text in texts if not text.startswith(self._prefix_text)]
        marked = [text for text in texts if text.startswith(self._prefix_text)]
        found: dict[str, list[int]] = {}
        for group, options in ((plain, {}), (marked, {"add_special_tokens": False})):
            unique = list(dict.fromkeys(group))
            if unique:
                found.update(zip(unique, self.tokenizer(unique, **options)["input_ids"], strict=True))
        return [found[text] for text in texts]

    def loglikelihood(self, requests: Sequence[Request]) -> list[Scored | RequestError]:
        """Encode (context, continuation) requests."""
        pairs = [_move_spaces(*request.arguments) for request in requests]
        whole = iter(self.encode([context + continuation for context, continuation in pairs if context]))
        contexts = iter(self.encode([context for context, _ in pairs if context]))
        alone = iter(self._alone([continuation for context, continuation in pairs if not context]))
        found: list[Scored | RequestError] = []
        for context, continuation in pairs:
            if context:
                before = next(contexts)
                after = next(whole)[len(before) :] or self._alone([continuation])[0]
            else:
                before, after = [self.prefix], next(alone)
                if after[:1] == before:
                    after = after[1:]
            found.append(self._window(before, after, continuation))
        return found

    def _alone(self, texts: list[str]) -> list[list[int]]:
        return list(self.tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else []

    def _window(self, context: list[int], continuation: list[int], text: str) -> Scored | RequestError:
        if not continuation:
            return RequestError(f"the continuation {text!r} has no tokens")
        if len(continuation) > self.max_length:
            return RequestError(
                f"the continuation has {len(continuation)} tokens, more than the model's window of {self.max_length}"
            )
        both = context + continuation
        kept = both[-(self.max_length + 1) :][:-1]
        return Scored(tuple(kept), tuple(continuation), len(both) - 1 - len(kept))

    def rolling(self, request: Request) -> list[Scored]:
        """Return the windows of a text, each predicting tokens that no other window predicts."""
        tokens = self.encode(request.arguments)[0]
        size = self.max_length
        first = tokens[:size]
        windows = [Scored((self.prefix, *first[:-1]), tuple(first))] if tokens else []
        for start in range(size, len(tokens), size):
            targets = tokens[start : start + size]
            context = tokens[start + len(targets) - size - 1 : start]
            windows.append(Scored((*context, *targets[:-1]), tuple(targets)))
        return windows

    def prompt(self, request: Request) -> Prompt | RequestError:
        """Encode a (context, generation settings) request."""
        text, settings = request.arguments[0], json.loads(request.arguments[1])
        stops, max_new_tokens, sampling = generation_settings(settings)
        room = self.max_length - max_new_tokens
        if room <= 0:
            return RequestError(
                f"{max_new_tokens} tokens are to be generated, which leaves no prompt in a window of {self.max_length}"
            )
        bos = self.tokenizer.bos_token
        options = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        tokens: list[int] = self.tokenizer(text, **options)["input_ids"]
        eos = str(self.tokenizer.decode(self.tokenizer.eos_token_id)) if self.tokenizer.eos_token_id is not None else ""
        kept = tokens[-room:]
        if not kept:
            return RequestError("the prompt has no tokens")
        all_stops = tuple(stop for stop in dict.fromkeys((*stops, eos)) if stop)
        return Prompt(tuple(kept), all_stops, max_new_tokens, sampling, len(tokens) - len(kept))


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return (kept, context[len(kept) :] + continuation) if kept else ("", context + continuation)


def generation_settings(settings: dict[str, Any]) -> tuple[tuple[str, ...], int, dict[str, Any]]:
    """Split a task's generation settings into stop texts, token limit, and what sampling needs.

    Names and precedence are lm-eval's; sampling without a temperature means temperature 1.
    """
    rest = dict(settings)
    until = rest.pop("until", None) or []
    limits = [rest.pop(k, None) for k in ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")]
    limit = next((int(value) for value in limits if value is not None), _DEFAULT_MAX_GEN_TOKS)
    temperature = float(rest.pop("temperature", None) or 0.0)
    chosen = rest.pop("do_sample", None)
    sampled = bool(chosen) if chosen is not None else temperature > 0
    sampling = {**rest, "do_sample": sampled}
    if sampled:
        sampling["temperature"] = temperature or 1.0
    return tuple([until] if isinstance(until, str) else until), limit, sampling


def cut_at_stops(text: str, stops: Sequence[str]) -> str:
    """Return `text` up to the first stop sequence."""
    for stop in stops:
        text = text.split(stop, 1)[0]
    return text


def context_window(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the most tokens that a model reads at once, from its configuration, else its tokenizer."""
    text_config = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(text_config, name, None)
        if value is not None:
            return int(value)
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit is not None and limit < _UNLIMITED else _DEFAULT_MAX_LENGTH


def render_chat(
    tokenizer: PreTrainedTokenizerBase, history: list[dict[str, str]], *, add_generation_prompt: bool = True
) -> str:
    """Apply the tokenizer's chat template; a template that refuses the system role is given the rest, as in lm-eval."""

    def render(messages: list[dict[str, str]]) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    try:
        return render(history)
    except jinja2.exceptions.TemplateError:
        return render([message for message in history if message["role"] != "system"])
