"""Settings of generation, read as lm-eval's HFLM reads them. Everything is obeyed, or refused by name.

A task has `generation_kwargs`, a checkpoint a generation_config.json that stands in where the task says nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_MAX_GEN_TOKS = 256
"""lm-eval's limit for tasks that have none."""

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the limit of an answer, in lm-eval's order of precedence."""

STRATEGY = frozenset(
    {
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        *("num_beams", "early_stopping", "length_penalty", "guidance_scale", "min_length", "min_new_tokens"),
        *("repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
        *("bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id"),
        *("forced_eos_token_id", "exponential_decay_length_penalty", "renormalize_logits", "remove_invalid_values"),
        *("bos_token_id", "eos_token_id", "decoder_start_token_id"),
    }
)
"""Settings of transformers' `generate` that are obeyed."""

_NEUTRAL = frozenset(
    {
        *("num_beams", "num_beam_groups", "num_return_sequences", "guidance_scale", "length_penalty"),
        *("repetition_penalty", "encoder_repetition_penalty"),
    }
)
"""Settings that do nothing at 1; all others do nothing at 0, false or null."""

_OF_SAMPLING = frozenset({"top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})

_SET_BY_TASK = frozenset({"do_sample", "temperature", "bos_token_id", "eos_token_id", "decoder_start_token_id"})
"""Settings of a checkpoint that lm-eval sets itself, or that say only where a text begins and ends."""

_NOT_OBEYED = frozenset(
    {
        *("stop_strings", "max_time", "num_return_sequences", "token_healing", "penalty_alpha", "dola_layers"),
        *("constraints", "force_words_ids", "num_beam_groups"),
    }
)
"""Settings of a checkpoint with which lm-eval's HFLM fails, or whose answers depend on the machine."""

_REASONS = {
    "num_return_sequences": "set the task's repeats",
    "stop_strings": "use until",
    "stop": "use until",
    "max_time": "an answer would depend on the machine",
    "use_cache": "lm-eval sets it itself",
    "pad_token_id": "lm-eval sets it itself",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How an answer is generated.

    Attributes:
        stops: Texts that end it; an empty one, which every text contains, ends it after its first token.
        max_gen_toks: Tokens that it may have; the prompt leaves as much room in the context window.
        max_length: Tokens that prompt and answer may have together; replaces the limit of the answer alone.
        strategy: Settings of transformers' `generate`: do_sample, temperature, top_p, ...
        think_end: Text, or id of the token, up to which the model thinks; the answer begins after the last one.
    """

    stops: tuple[str, ...]
    max_gen_toks: int
    max_length: int | None
    strategy: dict[str, Any]
    think_end: str | int | None = None


def read_decoding(settings: Mapping[str, Any]) -> Decoding:
    """Return how `generation_kwargs` decode.

    Names and precedence are lm-eval's. Sampling at temperature 0 is greedy, which HFLM means but transformers refuses;
    sampling without a temperature is sampling at 1.
    """
    rest = dict(settings)
    until = rest.pop("until", None) or []
    limits = [rest.pop(name, None) for name in LIMITS]
    max_length = rest.pop("max_length", None)
    temperature = rest.pop("temperature", None)
    sampled = rest.pop("do_sample", None)
    think_end = rest.pop("think_end", None)
    if sampled is None:
        sampled = bool(temperature)
    strategy = {**rest, "do_sample": bool(sampled) and (temperature is None or float(temperature) > 0)}
    if strategy["do_sample"]:
        strategy["temperature"] = 1.0 if temperature is None else float(temperature)
    return Decoding(
        stops=tuple([until] if isinstance(until, str) else until),
        max_gen_toks=next((int(limit) for limit in limits if limit is not None), DEFAULT_MAX_GEN_TOKS),
        max_length=None if max_length is None else int(max_length),
        strategy=strategy,
        think_end=think_end,
    )


def make_explicit(settings: Mapping[str, Any], think_end: str | int | None = None) -> dict[str, Any]:
    """Return `generation_kwargs` as they are stored: answers that 0.1.0 generated otherwise have other settings."""
    decoding = read_decoding(settings)
    explicit = dict(settings)
    if settings.get("do_sample") and not decoding.strategy["do_sample"]:
        explicit["do_sample"] = False
    if decoding.max_length is not None:
        explicit["max_gen_toks"] = decoding.max_gen_toks
    if think_end is not None:
        explicit["think_end"] = think_end
    return explicit


def find_problem(settings: Mapping[str, Any]) -> str | None:
    """Return why `generation_kwargs` cannot be obeyed: the name, its value and the rule; None if they can."""
    known = STRATEGY | {"until", "max_length", *LIMITS}
    for name, value in settings.items():
        if name == "num_return_sequences" and value == 1:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            reason = _REASONS.get(name) or (f"did you mean {near[0]}?" if near else "remove it")
            return f"generation_kwargs: {name}: {value!r} is not supported; {reason}"
        if name in {*LIMITS, "max_length"} and value is not None and not _is_count(value):
            return f"generation_kwargs: {name}: must be a number of tokens, at least 1, got {value!r}"
    until = settings.get("until")
    stops = [until] if isinstance(until, str) else [] if until is None else until
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        return f"generation_kwargs: until: must be a text or a list of texts, got {until!r}"
    sampled, temperature = settings.get("do_sample"), settings.get("temperature")
    if sampled is not None and not isinstance(sampled, bool):
        return f"generation_kwargs: do_sample: must be true or false, got {sampled!r}"
    if temperature is not None and not (isinstance(temperature, int | float) and 0 <= temperature < float("inf")):
        return f"generation_kwargs: temperature: must be a number, at least 0, got {temperature!r}"
    return None


def list_own_settings(settings: Mapping[str, Any], *, sampled: bool) -> dict[str, Any]:
    """Return what a checkpoint's generation configuration changes of its answers, by name.

    HFLM passes the task's settings to transformers' `generate`, which takes the others from the checkpoint, and puts
    its `max_new_tokens` before the limit that HFLM passes as `max_length`.

    Args:
        settings: Content of generation_config.json.
        sampled: Whether a task samples.
    """
    names = (STRATEGY | _NOT_OBEYED | {"max_new_tokens"}) - _SET_BY_TASK - (set() if sampled else _OF_SAMPLING)
    return {
        name: value
        for name, value in settings.items()
        if name in names and value and not (value == 1 and name in _NEUTRAL)
    }


def find_own_problem(settings: Mapping[str, Any]) -> str | None:
    """Return why a checkpoint's generation configuration cannot be obeyed, as a sentence without a subject."""
    for name, value in list_own_settings(settings, sampled=False).items():
        if name in _NOT_OBEYED:
            return f"its generation configuration sets {name} to {value!r}, which cannot be obeyed; remove it there"
    return None


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and str(value).isdecimal() and int(value) >= 1
