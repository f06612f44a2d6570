"""Text to tokens, by the rules of lm-eval's Hugging Face model (`HFLM`), in batches.

The rules that scores depend on:

1. Context and continuation are encoded *together* and split where the context's own encoding ends; spaces at the end of
   the context are moved to the continuation first. If one token spans the split, the continuation loses tokens or
   becomes empty (lm-eval stops with an AssertionError); only if it becomes empty is it encoded separately here.
2. An empty context is the tokenizer's BOS (else EOS) token.
3. A text that starts with the BOS text gets no second BOS.
4. Tokens that do not fit the window are cut from the left.
5. An encoder-decoder reads the context in the encoder and the continuation, encoded separately, in the decoder; it has
   no perplexity of a text.
6. A rolling text is cut into windows that predict every token once, the first after a BOS; the last window has as much
   preceding text as fits.

Most of the work is encoding the same long context again with each of its continuations. It is skipped where that
provably changes nothing: see `words_are_apart`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jinja2
import numpy as np
from jinja2 import meta
from transformers import AutoConfig, AutoTokenizer, BatchEncoding, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Checkpoint
from evalsvc.records.generation import Decoding, read_decoding
from evalsvc.records.plans import Request
from evalsvc.records.shards import Tokens

_DEFAULT_MAX_LENGTH = 2048
_UNLIMITED = int(1e30)
_BATCH = 1024
_TAIL = 32
"""Minimum number of characters of a context that are encoded again with each continuation."""


class RequestError(ValueError):
    """A request that this model cannot answer; the message gives the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Tokens to score.

    Attributes:
        tokens: Model input: context + continuation[:-1], cut to the window; for an encoder-decoder the context.
            int32 [length].
        targets: The continuation's tokens; target i is predicted at position len(tokens) - len(targets) + i, for an
            encoder-decoder at position i of the decoder. int32 [targets].
        truncated: Tokens cut from the left.
    """

    tokens: Tokens
    targets: Tokens
    truncated: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Tokens to continue, int32 [length], with room for the longest answer."""

    tokens: Tokens
    truncated: int = 0


class Encoder:
    """Encodes the requests of one tokenizer and context window.

    Attributes:
        max_length: Window in tokens.
        rows: Tokens that the model has embeddings for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
        self.tokenizer = tokenizer
        self.max_length = context_window(config, tokenizer)
        self.rows = int(getattr(config.get_text_config(), "vocab_size", None) or len(tokenizer))
        self.two_sided = bool(config.is_encoder_decoder)
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if bos is None and eos is None:
            raise RequestError(
                "the tokenizer has neither a BOS nor an EOS token, so an empty context cannot be encoded"
            )
        self.prefix: int = bos if bos is not None else eos
        self._prefix_text = str(tokenizer.decode(self.prefix))
        self._words_are_apart = words_are_apart(tokenizer)

    @property
    def limits(self) -> str:
        """What the requests' tokens depend on beside the tokenizer: the window, and the embeddings if some lack."""
        lacks = max(self.tokenizer.get_vocab().values(), default=-1) >= self.rows
        return f"{self.max_length} {self.rows}" if lacks else str(self.max_length)

    def check_tokens(self, sequences: Iterable[Tokens]) -> None:
        """Check that the model has an embedding for each token.

        Raises:
            RequestError: It lacks one.
        """
        for tokens in sequences:
            if len(tokens) and int(tokens.max()) >= self.rows:
                token = self.tokenizer.convert_ids_to_tokens(int(tokens.max()))
                raise RequestError(f"it contains the token {token!r}, for which the model has no embedding")

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return token ids, int32, with the special tokens that the tokenizer adds by default."""
        tokens: dict[str, Tokens] = {}
        unique = list(dict.fromkeys(texts))
        for special in (True, False):
            group = [text for text in unique if self._takes_special(text) is special]
            for batch in _batches(group):
                tokens.update(zip(batch, _ids(self._tokenize(batch, special)), strict=True))
        return [tokens[text] for text in texts]

    def _takes_special(self, text: str) -> bool:
        return not text.startswith(self._prefix_text)

    def _tokenize(self, texts: list[str], special: bool) -> BatchEncoding:
        # For some tokenizers the default differs from True.
        options = {} if special else {"add_special_tokens": False}
        encoded: BatchEncoding = self.tokenizer(
            texts, return_attention_mask=False, return_token_type_ids=False, **options
        )
        return encoded

    def loglikelihood(self, requests: Sequence[Request]) -> list[Scored | RequestError]:
        """Encode (context, continuation) requests."""
        pairs = [_move_spaces(*request.arguments) for request in requests]
        if self.two_sided:
            return self._two_sided(pairs)
        alone = iter(self._alone([continuation for context, continuation in pairs if not context]))
        joined = iter(self._encode_joined([pair for pair in pairs if pair[0]]))
        encoded: list[Scored | RequestError] = []
        for context, continuation in pairs:
            if context:
                before, after = next(joined)
                if not len(after):
                    (after,) = self._alone([continuation])
            else:
                before, after = np.array([self.prefix], np.int32), next(alone)
                if len(after) and after[0] == self.prefix:
                    after = after[1:]
            encoded.append(self._window(before, after, continuation))
        return encoded

    def _alone(self, texts: list[str]) -> list[Tokens]:
        return [ids for batch in _batches(texts) for ids in _ids(self._tokenize(batch, special=False))]

    def _encode_joined(self, pairs: list[tuple[str, str]]) -> list[tuple[Tokens, Tokens]]:
        """Return the tokens of each context, and those that its continuation adds."""
        before: dict[str, Tokens] = {}
        cuts: dict[str, _Cut] = {}
        contexts = list(dict.fromkeys(context for context, _ in pairs))
        for special in (True, False):
            group = [context for context in contexts if self._takes_special(context) is special]
            for batch in _batches(group):
                encoded = self._tokenize(batch, special)
                before.update(zip(batch, _ids(encoded), strict=True))
                if self._words_are_apart:
                    cuts |= {text: cut for n, text in enumerate(batch) if (cut := _find_cut(encoded, n, text))}
        # A cut is valid only if the text after it has the same tokens as in the whole context.
        kept = list(cuts)
        for context, tail in zip(
            kept, self._alone([context[cuts[context].character :] for context in kept]), strict=True
        ):
            if not np.array_equal(before[context][cuts[context].token :], tail):
                del cuts[context]
        whole = self.encode([context + continuation for context, continuation in pairs if context not in cuts])
        tails = self._alone([c[cuts[c].character :] + continuation for c, continuation in pairs if c in cuts])
        next_whole, next_tail = iter(whole), iter(tails)
        parts = []
        for context, _ in pairs:
            length = len(before[context])
            if cut := cuts.get(context):
                parts.append((before[context], next(next_tail)[length - cut.token :]))
            else:
                parts.append((before[context], next(next_whole)[length:]))
        return parts

    def _two_sided(self, pairs: list[tuple[str, str]]) -> list[Scored | RequestError]:
        sources = self.encode([context for context, _ in pairs])
        encoded: list[Scored | RequestError] = []
        for (context, text), source, target in zip(pairs, sources, self._alone([c for _, c in pairs]), strict=True):
            tokens = source if context else np.array([self.prefix], np.int32)
            kept = tokens[-self.max_length :]
            if 0 < len(target) <= self.max_length:
                encoded.append(Scored(kept, target, len(tokens) - len(kept)))
            else:
                encoded.append(_bad_length(len(target), self.max_length, text))
        return encoded

    def _window(self, context: Tokens, continuation: Tokens, text: str) -> Scored | RequestError:
        if not 0 < len(continuation) <= self.max_length:
            return _bad_length(len(continuation), self.max_length, text)
        both = np.concatenate([context, continuation])
        kept = both[-(self.max_length + 1) :][:-1]
        return Scored(kept, continuation, len(both) - 1 - len(kept))

    def rolling(self, requests: Sequence[Request]) -> list[list[Scored] | RequestError]:
        """Return the windows of each text; each predicts tokens that no other window predicts."""
        size = self.max_length
        encoded: list[list[Scored] | RequestError] = []
        if self.two_sided:
            return [RequestError("an encoder-decoder has no likelihood of a text without a prompt")] * len(requests)
        for tokens in self.encode([request.arguments[0] for request in requests]):
            # The prefix precedes the text's first token; a window of n targets has size - n more tokens before them.
            row = np.concatenate([np.array([self.prefix], np.int32), tokens])
            windows = []
            for start in range(0, len(tokens), size):
                targets = tokens[start : start + size]
                end = start + len(targets)
                windows.append(Scored(row[max(0, end - size) : end], targets))
            encoded.append(windows or RequestError("the text has no tokens"))
        return encoded

    def prompts(self, requests: Sequence[Request]) -> list[Prompt | RequestError]:
        """Encode (context, generation settings) requests."""
        bos = self.tokenizer.bos_token
        texts = [request.arguments[0] for request in requests]
        marked = [bool(bos) and text.startswith(str(bos)) for text in texts]
        plain = self._plain([text for text, mark in zip(texts, marked, strict=True) if not mark])
        alone = iter(self._alone([text for text, mark in zip(texts, marked, strict=True) if mark]))
        encoded: list[Prompt | RequestError] = []
        for request, mark in zip(requests, marked, strict=True):
            tokens = next(alone) if mark else next(plain)
            encoded.append(self._prompt(tokens, read_decoding(json.loads(request.arguments[1]))))
        return encoded

    def _plain(self, texts: list[str]) -> Iterator[Tokens]:
        return (ids for batch in _batches(texts) for ids in _ids(self._tokenize(batch, special=True)))

    def _prompt(self, tokens: Tokens, decoding: Decoding) -> Prompt | RequestError:
        room = self.max_length - (0 if self.two_sided else decoding.max_gen_toks)
        if room <= 0:
            return RequestError(
                f"max_gen_toks is {decoding.max_gen_toks}, which leaves no prompt in a window of {self.max_length}"
            )
        if not len(tokens):
            return RequestError("the prompt has no tokens")
        kept = tokens[-room:]
        length = 1 if self.two_sided else len(kept)  # an encoder-decoder's answer begins with one token
        if decoding.max_length is not None and length >= decoding.max_length:
            return RequestError(f"max_length is {decoding.max_length}, which leaves no answer to {length} tokens")
        return Prompt(kept, len(tokens) - len(kept))


def _bad_length(length: int, window: int, text: str) -> RequestError:
    if not length:
        return RequestError(f"the continuation {text!r} has no tokens")
    return RequestError(f"the continuation has {length} tokens, more than the model's window of {window}")


class _Cut(NamedTuple):
    """A position between two words of a context: the index of the next character and of the next token."""

    character: int
    token: int


_BETWEEN_WORDS = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_SAMPLE = "alpha beta gamma delta"


def words_are_apart(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer encodes the texts before and after a space between two letters independently.

    True only if its pre-tokenizer splits there, and special tokens are added only at the beginning.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    splitter = backend.pre_tokenizer if backend is not None else None
    if splitter is None:
        return False
    begins = {start for _, (start, _) in splitter.pre_tokenize_str(_SAMPLE)}
    spaces = {match.start() for match in re.finditer(" ", _SAMPLE)}
    whole, bare = tokenizer(_SAMPLE)["input_ids"], tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
    return spaces <= begins and whole[len(whole) - len(bare) :] == bare


def _find_cut(encoded: BatchEncoding, number: int, text: str) -> _Cut | None:
    """Return the last cut that leaves at least `_TAIL` characters after it and falls on the start of a token."""
    end = len(text) - _TAIL
    places = [match.start() for match in _BETWEEN_WORDS.finditer(text, max(0, end - 4 * _TAIL), max(0, end))]
    if not places:
        return None
    character = places[-1]
    token: int | None = encoded.char_to_token(number, character)
    span = encoded.token_to_chars(number, token) if token is not None else None
    return _Cut(character, token) if token is not None and span and span.start == character else None


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _BATCH):
        yield list(texts[start : start + _BATCH])


def _ids(encoded: BatchEncoding) -> list[Tokens]:
    return [np.array(ids, np.int32) for ids in encoded["input_ids"]]


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return (kept, context[len(kept) :] + continuation) if kept else ("", context + continuation)


def stop_texts(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> tuple[str, ...]:
    """Return a task's stop texts and the tokenizer's EOS text, each once, in lm-eval's order."""
    eos = tokenizer.eos_token_id
    text = str(tokenizer.decode(eos)) if eos is not None else ""
    return tuple(dict.fromkeys((*stops, *([text] if text else []))))


def cut_at_stops(text: str, stops: Sequence[str]) -> str:
    """Return `text` up to the first stop sequence; an empty one cuts nothing off."""
    for stop in filter(None, stops):
        text = text.split(stop, 1)[0]
    return text


def context_window(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return a model's context window in tokens, from its configuration, else its tokenizer."""
    text_config = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(text_config, name, None)
        if value is not None:
            return int(value)
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit is not None and limit < _UNLIMITED else _DEFAULT_MAX_LENGTH


def load_encoder(checkpoint: Checkpoint) -> Encoder:
    """Return the encoder of a checkpoint.

    Raises:
        CheckpointError: Its tokenizer or configuration cannot be loaded.
    """
    tokenizer = load_tokenizer(checkpoint)
    try:
        config = AutoConfig.from_pretrained(checkpoint.resident, local_files_only=True, trust_remote_code=False)
        return Encoder(tokenizer, config)
    except Exception as error:  # transformers raises anything from OSError to KeyError on a damaged folder
        raise CheckpointError(f"checkpoint {checkpoint.path}: {first_line(error)}") from error


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Return a checkpoint's tokenizer; for one without, its base's.

    Raises:
        CheckpointError: No tokenizer can be loaded from either folder.
    """
    problem: Exception | None = None
    for path in dict.fromkeys((checkpoint.tokenizer_path or checkpoint.path, checkpoint.resident)):
        try:
            config = AutoConfig.from_pretrained(checkpoint.resident, local_files_only=True, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(
                path, config=config, local_files_only=True, trust_remote_code=False
            )
            return cast(PreTrainedTokenizerBase, tokenizer)
        except Exception as error:  # see load_encoder
            problem = error
    raise CheckpointError(f"checkpoint {checkpoint.path}: its tokenizer cannot be loaded: {first_line(problem)}")


def first_line(error: Any) -> str:
    """Return an exception's type and the first line of its message, and the second if the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = lines[: 2 if lines and lines[0].endswith(":") else 1]
    return ": ".join([type(error).__name__, " ".join(shown)]) if shown else type(error).__name__


def find_switches(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the variables of a tokenizer's chat template that only `template_args` can set."""
    template = tokenizer.get_chat_template()
    environment = _compile_jinja_template(template).environment
    set_by_others = {"messages", "tools", "documents", "add_generation_prompt", *tokenizer.special_tokens_map}
    return sorted(
        meta.find_undeclared_variables(environment.parse(template)) - set_by_others - set(environment.globals)
    )


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    template_args: Mapping[str, Any],
    history: list[dict[str, str]],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """Apply the tokenizer's chat template; if it refuses the system role, without system messages, as lm-eval does.

    Args:
        template_args: Values of the template's own variables.
    """

    def render(messages: list[dict[str, str]]) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **template_args,
            )
        )

    try:
        return render(history)
    except jinja2.exceptions.TemplateError:
        return render([message for message in history if message["role"] != "system"])
