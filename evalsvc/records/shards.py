"""What workers get and give back: tokens as prefix tries, cut into shards, and a result for every shard."""

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
    """Token sequences in which every shared beginning stands once (see `engine.trie`).

    Attributes:
        tokens: int32 [rows], the token of every row, in depth-first order.
        starts: int32 [segments], first row of each stretch that one sequence added to those before it.
        depths: int32 [segments], position of that row in its sequence.
        parents: int32 [segments], the row before it, -1 at the beginning of a sequence.
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
    """Tokens whose log-likelihood is asked for, of several requests.

    Attributes:
        rows: int32 [n], row of the trie whose prediction is looked at; for an encoder-decoder the context's last.
        targets: int32 [n], the token whose probability is asked for.
        owners: int32 [n], which request it counts for.
        rolling: bool [requests], texts, of which nobody asks whether they are greedy.
        truncated: int32 [requests], tokens cut from the left.
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
        truncated: int32 [requests], tokens cut from the left.
    """

    trie: Trie
    ends: Tokens
    settings: tuple[str, ...]
    truncated: Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A slice of a run's requests for one worker: the unit of retry and of commit.

    Its composition depends on plan and tokenizer alone, never on the number of workers or on where a run was
    interrupted, so that the same requests share a batch whenever they are scored.

    Attributes:
        requests: Digests.
        work: Their tokens.
        next_weights: Folder of the full weights that the worker will probably need next, if they are others.
        reference: Arm with the same tokenizer from which the divergence of every prediction is asked for.
    """

    key: str
    arm: Arm
    requests: tuple[str, ...]
    work: Likelihoods | Prompts | None = field(default=None, repr=False)
    next_weights: str | None = None
    reference: Arm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What came back for a shard: an answer or a failure for each of its requests.

    Attributes:
        path: How they were computed, and why so.
        divergences: Of each request, forward KL(reference || arm) at every scored token, in nats.
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
        """Make the result of a shard of which nothing could be answered."""
        return cls(shard=shard, failures=tuple(Failure(request, error) for request in shard.requests), worker=worker)
