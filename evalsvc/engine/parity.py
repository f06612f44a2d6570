"""Which path a model takes: the trie if it gives the plain path's numbers on a probe, else the plain path.

A model's code may do what the trie cannot follow: carry a state from token to token, add a bias by distance, look at
its attention mask. None of it can be told from a configuration, so the numbers decide.
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

_ROWS, _BLOCK = 32, 8
"""Sizes at which a short probe has trunks, blocks and ancestors from earlier packs."""


@dataclass(frozen=True, slots=True)
class Parity:
    """A probe's outcome.

    Attributes:
        trie: Whether the model's requests go through the trie.
        reason: What was found, for people.
        longest: Longest sequence that may; None for any.
        attention: The model's own attention implementation, for the plain path.
    """

    trie: bool
    reason: str
    longest: int | None
    attention: str


def examine(model: Any, own: str) -> Parity:
    """Score a few random sequences on both paths, and say which the model takes.

    Args:
        own: The model's own attention implementation; it is in use afterwards.
    """
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder:
        return Parity(False, "it is an encoder-decoder", None, own)
    if getattr(config, "attention_chunk_size", None):
        return Parity(False, "it attends in chunks", None, own)
    work = probe(int(config.vocab_size), _lengths(config))
    model.set_attn_implementation(own)
    expected, _ = unpacked.score(model, work)
    try:
        REGISTERED.windows.clear()
        model.set_attn_implementation(NAME)
        found = likelihood.score(model, work, _ROWS, block=_BLOCK).loglikelihood
    except Exception as error:  # whatever a model's code does not take
        return Parity(False, f"its code does not take packed rows ({first_line(error)})", None, own)
    finally:
        model.set_attn_implementation(own)
    tolerance = (1e-4, 1e-5) if next(model.parameters()).dtype == torch.float32 else (0.25, 0.02)
    difference = np.abs(found - expected)
    worst = float(difference.max())
    if not (difference <= tolerance[0] + tolerance[1] * np.abs(expected)).all():
        return Parity(False, f"its log-likelihoods on packed rows differ by {worst:.1g} nats", None, own)
    longest = _regime(config)
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and window not in REGISTERED.windows:
        longest = min(window, longest or window)
    return Parity(True, f"largest difference on a probe {worst:.1g} nats", longest, own)


def probe(vocabulary: int, lengths: tuple[int, ...]) -> Likelihoods:
    """Return random sequences that share, branch, nest and repeat."""
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


def _lengths(config: Any) -> tuple[int, ...]:
    """Return lengths that a probe can afford, one of them beyond a short sliding window."""
    window = getattr(config, "sliding_window", None) or 0
    longest = getattr(config, "max_position_embeddings", None) or 64
    wanted = (24, 40, window + 20) if 0 < window <= 256 else (24, 40)
    return tuple(max(2, min(length, longest - 20)) for length in wanted)


def _regime(config: Any) -> int | None:
    """Return the length up to which positions are rotated alike, whatever else is in a pack."""
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = scaling.values() if all(isinstance(value, dict) for value in scaling.values()) else [scaling]
    if not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds):
        return None
    original = [kind.get("original_max_position_embeddings") for kind in kinds]
    fallback = getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings
    return int(min((value for value in original if value), default=fallback))
