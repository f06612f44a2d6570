"""Log-likelihoods on a trie: packed forward passes over unique tokens, the output head at scored rows only."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalsvc.engine import trie as tries
from evalsvc.engine.attention import pack_attention
from evalsvc.engine.devices import spare_memory
from evalsvc.engine.packs import BLOCK_ROWS, Pack, packs
from evalsvc.engine.unpacked import is_out_of_memory
from evalsvc.records.shards import Likelihoods
from evalsvc.records.vocabulary import Floats, Ints

CPU_PACK_ROWS = 1536
"""Rows per forward pass on a CPU; from 512 to 2048 the speed is the same."""

GPU_PACK_ROWS = 16_384

LOGITS = 2**22
"""Logits that are in memory at the same time."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A model's final hidden states and output head, from which its predictions can be recomputed without the model.

    Attributes:
        rows: int64 [u], rows of the trie, increasing.
        hidden: [u, hidden size], in the model's dtype.
        head: The model's own; keep its `copy` where another arm's weights may be put into the model.
    """

    rows: Ints
    hidden: Tensor
    head: Head


@dataclass(frozen=True, slots=True, eq=False)
class ScoredShard:
    """A model's scores of the requests of a shard.

    Attributes:
        loglikelihood: Nats, float64 [requests].
        greedy: Whether every target is the most likely token, bool [requests].
        kl: Forward KL divergence of the model's prediction from the reference's at every scored token, in nats,
            float64 [n]; None without a reference.
        reference: The model as a reference for others; None unless `keep` was set.
    """

    loglikelihood: Floats
    greedy: NDArray[np.bool_]
    kl: Floats | None
    reference: Reference | None


class Head:
    """Converts hidden states to logits, as the model itself does."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self._project = model.get_output_embeddings()
        self._cap = getattr(config, "final_logit_softcapping", None)
        self._scale = (getattr(model, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
        self.vocabulary = int(self._project.weight.shape[0])
        self.chunk = max(32, min(4096, LOGITS // self.vocabulary))

    def copy(self) -> Head:
        """Return a head of its own tensors, which stays as it is whatever becomes of the model."""
        twin = copy.copy(self)
        twin._project = copy.deepcopy(self._project)
        return twin

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return float32 logits [rows, vocabulary] of [rows, hidden size]."""
        logits: Tensor = self._project(hidden)
        if self._scale != 1.0:
            logits = logits * self._scale
        if self._cap:
            logits = torch.tanh(logits / self._cap) * self._cap
        return logits.float()


def pack_rows(model: Any) -> int:
    """Return how many rows a forward pass may have, given the free memory."""
    config = model.config.get_text_config()
    weight = next(model.parameters())
    width = max(config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    # About sixteen activations of the widest layer, and the keys and values of every layer.
    per_row = weight.element_size() * (16 * width + 2 * config.num_hidden_layers * config.hidden_size)
    most = GPU_PACK_ROWS if weight.device.type == "cuda" else CPU_PACK_ROWS
    fitting = max(1, spare_memory(weight.device) // per_row)
    return most if fitting >= most else max(BLOCK_ROWS, 1 << (fitting.bit_length() - 1))


@torch.inference_mode()
def score(
    model: Any,
    work: Likelihoods,
    rows: int,
    *,
    block: int = BLOCK_ROWS,
    reference: Reference | None = None,
    keep: bool = False,
) -> ScoredShard:
    """Score a shard's requests.

    Args:
        rows: Rows per forward pass; halved when memory runs out, keeping the scores computed before.
        block: Rows of the largest subtree that is computed with a mask.
        reference: Compute KL divergences from this model's predictions, if it has the same vocabulary.
        keep: Return this model's states as a reference for others.

    Raises:
        torch.OutOfMemoryError: A forward pass over a single block does not fit.
    """
    state = _State(model, work, reference, keep)
    trie = work.trie
    number = np.arange(trie.rows)
    while True:
        try:
            for pack in packs(trie, rows, block):
                state.take(pack, number)
            return state.sum_requests()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or rows <= BLOCK_ROWS:
                raise
        rows //= 2
        state.forget()
        trie, number = tries.prune_trie(work.trie, work.rows[~state.scored_mask])


class _State:
    """The scores so far. Scored tokens are in order of their rows."""

    def __init__(self, model: Any, work: Likelihoods, reference: Reference | None, keep: bool) -> None:
        self._decoder, self._head = model.get_decoder(), Head(model)
        self._device = next(model.parameters()).device
        comparable = reference is not None and reference.head.vocabulary == self._head.vocabulary
        self._work, self._reference = work, reference if comparable else None
        self._order = np.argsort(work.rows, kind="stable")
        self._rows = work.rows[self._order].astype(np.int64)
        self._targets = torch.from_numpy(work.targets[self._order].astype(np.int64)).to(self._device)
        n = len(work.rows)
        self._value, self._hit, self._kl = np.zeros(n), np.zeros(n, bool), np.zeros(n)
        self._scored = np.zeros(n, bool)
        self._states: list[tuple[Ints, Tensor]] | None = [] if keep else None
        self._attention = pack_attention(self._device)

    @property
    def scored_mask(self) -> NDArray[np.bool_]:
        """Which tokens have been scored, bool [n], in the work's order."""
        scored = np.empty_like(self._scored)
        scored[self._order] = self._scored
        return scored

    def forget(self) -> None:
        """Drop kept states, before another list of packs."""
        self._attention = pack_attention(self._device)

    def take(self, pack: Pack, number: Ints) -> None:
        """Run a pack and score its targets.

        Args:
            number: For every row of the pack's trie, its row in the work's trie.
        """
        hidden = self._attention.run(self._decoder, pack, self._device)
        self._attention.drop(pack)
        pack_rows = number[pack.first : pack.first + len(pack.tokens)]
        low, high = np.searchsorted(self._rows, [pack_rows[0], pack_rows[-1] + 1]).tolist()
        rows, inverse = np.unique(self._rows[low:high], return_inverse=True)
        if not len(rows) or self._scored[low:high].all():
            return
        states = hidden[torch.from_numpy(np.searchsorted(pack_rows, rows)).to(self._device)]
        where = torch.from_numpy(inverse).to(self._device)
        for first in range(0, len(rows), self._head.chunk):
            last = min(first + self._head.chunk, len(rows))
            logits = self._head(states[first:last])
            a, b = (low + np.searchsorted(inverse, [first, last])).tolist()
            at, targets = where[a - low : b - low] - first, self._targets[a:b]
            normalizer = logits.logsumexp(1)
            self._value[a:b] = (logits[at, targets] - normalizer[at]).double().cpu().numpy()
            self._hit[a:b] = (logits.argmax(1)[at] == targets).cpu().numpy()
            if self._reference is not None:
                kl = _divergence(self._reference, rows[first:last], logits - normalizer.unsqueeze(1))
                self._kl[a:b] = kl[at].double().cpu().numpy()
        if self._states is not None:
            self._states.append((rows, states))
        self._scored[low:high] = True

    def sum_requests(self) -> ScoredShard:
        """Return the sums of every request."""
        owners, requests = self._work.owners[self._order], len(self._work.rolling)
        greedy = np.ones(requests, bool)
        greedy[owners[~self._hit]] = False
        # In the work's order, not that of rows: the sum of a request does not depend on other requests in its shard.
        value, kl = np.empty_like(self._value), np.empty_like(self._kl)
        value[self._order], kl[self._order] = self._value, self._kl
        total = np.bincount(self._work.owners, value, requests).astype(np.float64)
        reference = None
        if self._states is not None:
            rows, states = zip(*self._states, strict=True)
            reference = Reference(np.concatenate(rows), torch.cat(states), self._head)
        return ScoredShard(total, greedy, kl if self._reference is not None else None, reference)


def _divergence(reference: Reference, rows: Ints, predicted: Tensor) -> Tensor:
    """Return KL(reference || predicted) in nats of each row, from log-probabilities [rows, vocabulary]."""
    at = torch.from_numpy(np.searchsorted(reference.rows, rows)).to(reference.hidden.device)
    expected = reference.head(reference.hidden[at]).log_softmax(1)
    return (expected.exp() * (expected - predicted)).sum(1)
