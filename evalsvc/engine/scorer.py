"""A shard in, its result out: run by every executor. Knows no task."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evalsvc.engine import generation, likelihood, unpacked
from evalsvc.engine import trie as tries
from evalsvc.engine.attention import NAME
from evalsvc.engine.likelihood import Head, Reference
from evalsvc.engine.parity import Parity
from evalsvc.engine.resident import Resident, read_ahead, silence
from evalsvc.records.arms import Arm
from evalsvc.records.plans import Response
from evalsvc.records.shards import Likelihoods, Prompts, Shard, ShardResult
from evalsvc.records.vocabulary import Floats

REFERENCE_BYTES = 2**28
"""Most bytes of references' hidden states that are kept for the next arm."""


class Scorer:
    """Scores shards, and keeps the last base in memory."""

    def __init__(self, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        silence()
        self._resident: Resident | None = None
        self._served: tuple[str, str] | None = None
        self._reads_ahead: str | None = None
        self._references: OrderedDict[tuple[str, str], Reference] = OrderedDict()
        self._head: tuple[str, Head] | None = None

    def score(self, shard: Shard) -> ShardResult:
        """Answer every request of a shard.

        Raises:
            CheckpointError: The shard's checkpoint cannot be loaded.
        """
        started = time.monotonic()
        work = shard.work
        assert work is not None
        if shard.arm.numerics.rerun:
            work = _reverse_items(work)
        if shard.next_weights and shard.next_weights != self._reads_ahead:
            read_ahead(shard.next_weights)
        self._reads_ahead = shard.next_weights
        divergences: dict[str, Floats] = {}
        if isinstance(work, Likelihoods):
            reference = self._reference(shard, shard.reference, work) if shard.reference is not None else None
            model = self._hold(shard.arm)
            parity = self._choose_path(model, _longest(work))
            responses, kl = _likelihoods(shard, model, work, parity, reference)
            if kl is not None:
                order = np.argsort(work.owners, kind="stable")
                pieces = np.split(kl[order], np.cumsum(np.bincount(work.owners, minlength=len(shard.requests)))[:-1])
                divergences = dict(zip(shard.requests, pieces, strict=True))
        else:
            responses, parity = self._answers(shard, work)
        return ShardResult(
            shard=replace(shard, work=None),  # the driver has the tokens already
            responses=tuple(responses),
            worker=str(os.getpid()),
            seconds=time.monotonic() - started,
            path=parity.path,
            divergences=divergences,
        )

    def _hold(self, arm: Arm) -> Any:
        """Return an arm's model."""
        served = arm.numerics.device, arm.numerics.dtype
        if self._resident is None or self._served != served:
            self._resident, self._served = Resident(*served), served
        return self._resident.hold(arm.checkpoint, arm.serving)

    def _choose_path(self, model: Any, longest: int) -> Parity:
        """Return the path of the held model, and give it the attention of that path.

        Args:
            longest: Tokens of the longest sequence, answers included.
        """
        assert self._resident is not None
        parity = self._resident.parity
        if parity.longest is not None and longest > parity.longest:
            parity = replace(parity, trie=False, reason=f"some sequences have more than {parity.longest} tokens")
        model.set_attn_implementation(NAME if parity.trie else parity.attention)
        return parity

    def _reference(self, shard: Shard, arm: Arm, work: Likelihoods) -> Reference | None:
        """Return the reference's predictions for a shard, computed once while they fit in memory.

        None on the plain path, which does not compute whole distributions.
        """
        place = arm.key, shard.key
        if place not in self._references:
            model = self._hold(arm)
            if not self._choose_path(model, _longest(work)).trie:
                return None
            reference = likelihood.score(model, work, _rows(model, arm), keep=True).reference
            assert reference is not None
            if self._head is None or self._head[0] != arm.key:  # one copy for all shards of a reference
                self._head = arm.key, reference.head.copy()
            self._references[place] = replace(reference, head=self._head[1])
            while len(self._references) > 1 and _bytes(self._references) > REFERENCE_BYTES:
                self._references.popitem(last=False)
        return self._references[place]

    def _answers(self, shard: Shard, work: Prompts) -> tuple[list[Response], Parity]:
        model, requests = self._hold(shard.arm), shard.requests
        assert self._resident is not None
        tokenizer, own_limit = self._resident.tokenizer, model.generation_config.max_new_tokens
        by_settings = {
            settings: unpacked.GenerationSettings.of(settings, tokenizer, own_limit) for settings in set(work.settings)
        }
        lengths = (tries.positions(work.trie)[work.ends] + 1).tolist()
        all_options = [
            by_settings[settings].for_prompt(length, two_sided=model.config.is_encoder_decoder)
            for settings, length in zip(work.settings, lengths, strict=True)
        ]
        longest = max(length + options.max_new_tokens for length, options in zip(lengths, all_options, strict=True))
        parity = self._choose_path(model, longest)
        seeds = [_derive_seed(request, shard.arm.numerics.rerun) for request in requests]
        if parity.trie and all(generation.can_generate(model, options) for options in by_settings.values()):
            rows = _rows(model, shard.arm)
            answers = generation.generate(model, tokenizer, work, all_options, seeds, rows)
        else:
            model.set_attn_implementation(parity.attention)
            answers = unpacked.generate(model, tokenizer, work, all_options, seeds)
        responses = [
            Response(
                request=request,
                text=unpacked.text_of(tokenizer, tokens, options),
                tokens=len(tokens),
                truncated=int(truncated),
            )
            for request, tokens, options, truncated in zip(requests, answers, all_options, work.truncated, strict=True)
        ]
        return responses, parity


def _likelihoods(
    shard: Shard, model: Any, work: Likelihoods, parity: Parity, reference: Reference | None
) -> tuple[list[Response], Floats | None]:
    requests, kl = shard.requests, None
    if parity.trie:
        outcome = likelihood.score(model, work, _rows(model, shard.arm), reference=reference)
        values, greedy, kl = outcome.loglikelihood, outcome.greedy, outcome.kl
    else:
        budget = unpacked.ALONE if parity.alone else _batch(unpacked.BATCH_TOKENS, shard.arm)
        values, greedy = unpacked.score(model, work, budget)
    tokens = np.bincount(work.owners, minlength=len(requests))
    columns = (values, greedy, work.rolling, tokens, work.truncated)
    return [
        Response(
            request=request,
            loglikelihood=value,
            greedy=None if rolling else hit,
            text=None,
            tokens=count,
            truncated=truncated,
        )
        for request, value, hit, rolling, count, truncated in zip(
            requests, *(column.tolist() for column in columns), strict=True
        )
    ], kl


def _longest(work: Likelihoods) -> int:
    """Return the tokens of the longest sequence."""
    return int(tries.positions(work.trie).max()) + 1


def _bytes(references: OrderedDict[tuple[str, str], Reference]) -> int:
    return sum(reference.hidden.nbytes for reference in references.values())


def _reverse_items(work: Likelihoods | Prompts) -> Likelihoods | Prompts:
    """Return a shard's work with its items in reverse order, for a rerun."""
    trie, at = tries.mirror_trie(work.trie)
    if isinstance(work, Likelihoods):
        return replace(work, trie=trie, rows=at[work.rows])
    return replace(work, trie=trie, ends=at[work.ends])


def _rows(model: Any, arm: Arm) -> int:
    """Return the rows per forward pass."""
    return _batch(likelihood.pack_rows(model), arm)


def _batch(usual: int, arm: Arm) -> int:
    """Return the size of a batch; it differs in a rerun, so that items are batched and rounded differently."""
    return usual if not arm.numerics.rerun else usual * 2 // (2 + arm.numerics.rerun)


def _derive_seed(request: str, rerun: int) -> int:
    """Return the random seed of a sampled answer; it depends on the request, not on its batch or worker."""
    return int(request[:15], 16) + rerun
