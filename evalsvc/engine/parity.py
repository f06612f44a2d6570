"""The parity check decides a model's path: the trie if it reproduces the plain path's numbers, else the plain path.

A model's code may do things that the trie does not support: carry a state from token to token, add a bias by distance,
read its attention mask. A configuration does not show this, so the numbers are compared with those of sequences that
are scored one at a time. The same is done with padded batches: what a model does over a batch is in nobody's score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evalsvc.engine import likelihood, unpacked
from evalsvc.engine import trie as tries
from evalsvc.engine.attention import NAME, REGISTERED
from evalsvc.engine.encoding import first_line
from evalsvc.records.shards import Likelihoods, Tokens
from evalsvc.records.vocabulary import Floats

_ROWS, _BLOCK = 32, 8
"""Sizes at which a short check has trunks, blocks and ancestors from earlier packs."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of the parity check.

    Attributes:
        trie: Whether the model's requests take the trie.
        reason: The reason, shown to users.
        longest: Longest sequence in tokens that may take the trie; None for any.
        attention: The model's own attention implementation, for the plain path.
        alone: Whether the plain path scores one sequence at a time, because its score depends on those beside it.
    """

    trie: bool
    reason: str
    longest: int | None
    attention: str
    alone: bool = False

    @property
    def path(self) -> str:
        """The path and the reason, shown to users."""
        if self.trie:
            return f"trie: {self.reason}"
        alone = "; one sequence at a time, as its scores depend on the batch" if self.alone else ""
        return f"plain: {self.reason}{alone}"


def examine(model: Any, own: str) -> Parity:
    """Score a few random sequences on both paths, and return which path the model takes.

    Args:
        own: The model's own attention implementation; it is set again afterwards.
    """
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder:
        return Parity(False, "it is an encoder-decoder", None, own)
    regime = _regime(config)
    work = make_parity_work(int(config.vocab_size), _lengths(config, regime))
    model.set_attn_implementation(own)
    expected, _ = unpacked.score(model, work, unpacked.ALONE)
    # Beyond the regime a batch has the frequencies of its longest sequence, which those of the check do not reach.
    alone = regime is not None or not _is_equal(model, unpacked.score(model, work)[0], expected)
    if getattr(config, "attention_chunk_size", None):
        return Parity(False, "it attends in chunks", None, own, alone)
    try:
        REGISTERED.windows.clear()
        model.set_attn_implementation(NAME)
        packed = likelihood.score(model, work, _ROWS, block=_BLOCK).loglikelihood
    except Exception as error:  # a model's code may raise anything on packed rows
        return Parity(False, f"its code does not support packed rows ({first_line(error)})", None, own, alone)
    finally:
        model.set_attn_implementation(own)
    worst = float(np.abs(packed - expected).max())
    if not _is_equal(model, packed, expected):
        return Parity(False, f"its log-likelihoods on packed rows differ by {worst:.1g} nats", None, own, alone)
    longest = regime
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and window not in REGISTERED.windows:
        longest = min(window, longest or window)
    return Parity(True, f"largest difference in the parity check {worst:.1g} nats", longest, own, alone)


def _is_equal(model: Any, values: Floats, expected: Floats) -> bool:
    """Whether log-likelihoods are the same but for rounding in the model's number format."""
    absolute, relative = (1e-4, 1e-5) if next(model.parameters()).dtype == torch.float32 else (0.25, 0.02)
    return bool((np.abs(values - expected) <= absolute + relative * np.abs(expected)).all())


def make_parity_work(vocabulary: int, lengths: tuple[int, ...]) -> Likelihoods:
    """Return random sequences with shared prefixes, branches, nesting and repetitions."""
    rng = np.random.default_rng(1234)

    def some(n: int) -> Tokens:
        return rng.integers(0, vocabulary, n).astype(np.int32)

    sequences: list[Tokens] = []
    for length in lengths:
        stem = some(length)
        branch = np.concatenate([stem[: length // 2], some(12)])
        sequences += [stem, branch, np.concatenate([branch, some(3)]), np.concatenate([branch, some(5)]), stem]
    sequences.append(some(1))
    targets = [some(min(3, len(sequence))) for sequence in sequences]
    trie, rows = tries.build(sequences, [len(target) for target in targets])
    n = len(sequences)
    owners = np.repeat(np.arange(n, dtype=np.int32), [len(target) for target in targets])
    return Likelihoods(
        trie=trie,
        rows=np.concatenate(rows),
        targets=np.concatenate(targets),
        owners=owners,
        rolling=np.zeros(n, bool),
        truncated=np.zeros(n, np.int32),
    )


def _lengths(config: Any, regime: int | None) -> tuple[int, ...]:
    """Return the lengths of the check's sequences, all within the regime, one of them beyond a short sliding window."""
    window = getattr(config, "sliding_window", None) or 0
    longest = min(length for length in (getattr(config, "max_position_embeddings", None) or 64, regime) if length)
    lengths = (24, 40, window + 20) if 0 < window <= 256 else (24, 40)
    return tuple(max(2, min(length, longest - 20)) for length in lengths)


def _regime(config: Any) -> int | None:
    """Return the length up to which rotary embeddings do not depend on the length; None for any."""
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = scaling.values() if all(isinstance(value, dict) for value in scaling.values()) else [scaling]
    if not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds):
        return None
    original = [kind.get("original_max_position_embeddings") for kind in kinds]
    fallback = getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings
    return int(min((value for value in original if value), default=fallback))
