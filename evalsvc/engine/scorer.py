"""A shard in, its result out: what executors run, wherever they run it. Knows no task."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evalsvc.engine import generation, likelihood, plain
from evalsvc.engine import trie as tries
from evalsvc.engine.attention import NAME
from evalsvc.engine.models import Resident, read_ahead, silence
from evalsvc.engine.parity import Parity
from evalsvc.records import Likelihoods, Prompts, Response, Shard, ShardResult


class Scorer:
    """Scores shards, keeping the last base in memory."""

    def __init__(self, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        silence()
        self._resident: Resident | None = None
        self._served: tuple[str, str] | None = None
        self._reads_ahead: str | None = None

    def score(self, shard: Shard) -> ShardResult:
        """Answer every request of a shard.

        Raises:
            CheckpointError: The shard's checkpoint cannot be loaded.
        """
        started = time.monotonic()
        numerics = shard.arm.numerics
        if self._resident is None or self._served != (numerics.device, numerics.dtype):
            self._resident = Resident(numerics.device, numerics.dtype)
            self._served = (numerics.device, numerics.dtype)
        model, work = self._resident.hold(shard.arm.checkpoint), shard.work
        if shard.next_weights and shard.next_weights != self._reads_ahead:
            read_ahead(shard.next_weights)
        self._reads_ahead = shard.next_weights
        assert work is not None
        parity = _path(self._resident.parity, work)
        model.set_attn_implementation(NAME if parity.trie else parity.attention)
        if isinstance(work, Likelihoods):
            responses = self._likelihoods(shard.requests, model, work, parity)
        else:
            responses = self._answers(shard.requests, model, work, parity)
        return ShardResult(
            replace(shard, work=None),  # the tokens need not travel back
            tuple(responses),
            worker=str(os.getpid()),
            seconds=time.monotonic() - started,
            path=f"{'trie' if parity.trie else 'plain'}: {parity.reason}",
        )

    def _likelihoods(self, requests: tuple[str, ...], model: Any, work: Likelihoods, parity: Parity) -> list[Response]:
        if parity.trie:
            outcome = likelihood.score(model, work, likelihood.pack_rows(model))
            values, greedy = outcome.loglikelihood, outcome.greedy
        else:
            values, greedy = plain.score(model, work)
        tokens = np.bincount(work.owners, minlength=len(requests))
        return [
            Response(request, value, None if rolling else hit, None, count, truncated)
            for request, value, hit, rolling, count, truncated in zip(
                requests,
                values.tolist(),
                greedy.tolist(),
                work.rolling.tolist(),
                tokens.tolist(),
                work.truncated.tolist(),
                strict=True,
            )
        ]

    def _answers(self, requests: tuple[str, ...], model: Any, work: Prompts, parity: Parity) -> list[Response]:
        assert self._resident is not None
        tokenizer = self._resident.tokenizer
        wishes = [plain.Wish.of(settings, tokenizer) for settings in work.settings]
        seeds = [_seed(request) for request in requests]
        if parity.trie and all(generation.follows(model, wish) for wish in wishes):
            rows = likelihood.pack_rows(model)
            answers = generation.generate(model, tokenizer, work, wishes, seeds, rows)
        else:
            model.set_attn_implementation(parity.attention)
            answers = plain.generate(model, tokenizer, work, wishes, seeds)
        return [
            Response(request, text=plain.text_of(tokenizer, tokens, wish), tokens=len(tokens), truncated=int(truncated))
            for request, tokens, wish, truncated in zip(requests, answers, wishes, work.truncated, strict=True)
        ]


def _path(parity: Parity, work: Likelihoods | Prompts) -> Parity:
    """Return the path of a shard: sequences that are too long for the trie take the plain one."""
    if parity.longest is not None and int(tries.positions(work.trie).max()) >= parity.longest:
        return Parity(False, f"some sequences have more than {parity.longest} tokens", None, parity.attention)
    return parity


def _seed(request: str) -> int:
    """The random seed of a sampled answer: the request's own, whatever batch or worker it lands in."""
    return int(request[:15], 16)
