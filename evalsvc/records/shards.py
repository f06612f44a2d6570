"""Work for workers: tokens as prefix tries, split into shards, and the result of every shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalsvc.records.arms import Arm
from evalsvc.records.plans import Failure, Response
from evalsvc.records.vocabulary import Floats

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Trie:
    """Token sequences in which every shared prefix is stored once (see `engine.trie`).

    Attributes:
        tokens: int32 [rows], the token of every row, in depth-first order.
        starts: int32 [segments], first row of each segment that one sequence adds to those before it.
        depths: int32 [segments], position of that row in its sequence.
        parents: int32 [segments], the previous row in the sequence, -1 at its beginning.
    """

    tokens: Tokens
    starts: Tokens
    depths: Tokens
    parents: Tokens

    @property
    def rows(self) -> int:
        """Number of tokens that have to be computed."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Likelihoods:
    """Tokens to score, of several requests.

    Attributes:
        rows: int32 [n], row of the trie whose prediction is scored; for an encoder-decoder the context's last row.
        targets: int32 [n], the token that is scored.
        owners: int32 [n], index of its request.
        rolling: bool [requests], whether the request is a text, which has no `greedy`.
        truncated: int32 [requests], tokens truncated from the left.
    """

    trie: Trie
    rows: Tokens
    targets: Tokens
    owners: Tokens
    rolling: NDArray[np.bool_]
    truncated: Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """Prompts to continue, one per request.

    Attributes:
        ends: int32 [requests], row of the last token of each prompt.
        settings: Generation settings of each, as canonical JSON.
        truncated: int32 [requests], tokens truncated from the left.
    """

    trie: Trie
    ends: Tokens
    settings: tuple[str, ...]
    truncated: Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A slice of a run's requests for one worker: the unit of retry and of commit.

    Its composition depends on plan and tokenizer only, never on the number of workers or on where a run was
    interrupted, so that the same requests are always scored in the same batch.

    Attributes:
        requests: Digests of the requests.
        work: Their tokens.
        next_weights: Folder of the full weights that the worker will probably need next, if different.
        reference: Arm with the same tokenizer; the KL divergence from it is computed for every prediction.
    """

    key: str
    arm: Arm
    requests: tuple[str, ...]
    work: Likelihoods | Prompts | None = field(default=None, repr=False)
    next_weights: str | None = None
    reference: Arm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """The result of a shard: a response or a failure for each of its requests.

    Attributes:
        path: How the responses were computed, and why.
        divergences: By request, forward KL(reference || arm) at every scored token, in nats.
    """

    shard: Shard
    responses: tuple[Response, ...] = ()
    failures: tuple[Failure, ...] = ()
    worker: str = ""
    seconds: float = 0.0
    path: str = ""
    divergences: Mapping[str, Floats] = field(default_factory=dict, repr=False)

    @classmethod
    def of_error(cls, shard: Shard, error: str, worker: str = "") -> ShardResult:
        """Return the result of a shard all of whose requests failed."""
        return cls(shard=shard, failures=tuple(Failure(request, error) for request in shard.requests), worker=worker)
