"""Executors score shards for the driver: the interface, the queue that all executors share, the in-process executor.

An executor yields exactly one result for every shard, as they finish, whatever happens to its workers: a shard that
cannot be scored is returned as failures, never as an exception. The executor on Ray is in `ray_executor`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from evalsvc.errors import EvalsvcError
from evalsvc.records.arms import Arm
from evalsvc.records.shards import Shard, ShardResult


class ShardScorer(Protocol):
    """Scores shards; may raise."""

    def score(self, shard: Shard) -> ShardResult:
        """Return a response or a failure for every request of a shard."""
        ...


ScorerFactory = Callable[[], ShardScorer]
"""Makes a scorer in the process where it will run; must be picklable."""


def make_scorer(threads: int) -> ShardScorer:
    """Make the engine's scorer; imports torch in the calling process."""
    from evalsvc.engine.scorer import Scorer as EngineScorer

    return EngineScorer(threads)


class Executor(AbstractContextManager["Executor"], Protocol):
    """Scores shards; a context manager, which starts and stops its workers."""

    def run(self, shards: Iterable[Shard]) -> Iterator[ShardResult]:
        """Yield one result per shard, as they finish."""
        ...


class AffinityQueue:
    """Assigns shards to workers so that weights are rarely loaded.

    A worker gets, in this order of preference: a shard of the checkpoint that it has loaded; of another checkpoint on
    the same full weights; on full weights that no other worker has loaded; of the checkpoint with most shards left.
    Ties go to the checkpoint that was queued first.
    """

    def __init__(self, shards: Iterable[Shard] = ()) -> None:
        self._waiting: dict[str, deque[Shard]] = {}
        for shard in shards:
            self._line(shard).append(shard)

    def _line(self, shard: Shard) -> deque[Shard]:
        return self._waiting.setdefault(shard.arm.key, deque())

    def __len__(self) -> int:
        return sum(len(line) for line in self._waiting.values())

    def put_back(self, shard: Shard) -> None:
        """Queue a shard again, before the others of its checkpoint."""
        self._line(shard).appendleft(shard)

    def take(self, loaded_arm: Arm | None, other_weights: Collection[str] = ()) -> Shard | None:
        """Return the next shard for a worker, None if the queue is empty.

        Args:
            loaded_arm: The arm that the worker has in memory.
            other_weights: Full weights (`Arm.weights`) that other workers have in memory.
        """
        lines = [line for line in self._waiting.values() if line]
        if not lines:
            return None

        def preference(line: deque[Shard]) -> tuple[bool, bool, bool, int]:
            arm = line[0].arm
            same_arm = loaded_arm is not None and arm.key == loaded_arm.key
            same_weights = loaded_arm is not None and arm.weights == loaded_arm.weights
            is_free = arm.weights not in other_weights
            # Among weights that no other worker has, the first in the queue; among the rest, the longest line.
            return same_arm, same_weights, is_free, 0 if is_free or same_weights else len(line)

        shard = max(lines, key=preference).popleft()
        present = shard.arm.checkpoint.resident
        waiting = (line[0].arm.checkpoint.resident for line in lines if line)
        return replace(shard, next_weights=next((path for path in waiting if path != present), None))


class InProcessExecutor:
    """Scores in this process, one shard after another."""

    def __init__(self, factory: ScorerFactory) -> None:
        self._factory = factory
        self._scorer: ShardScorer | None = None

    def __enter__(self) -> InProcessExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scorer = None

    def run(self, shards: Iterable[Shard]) -> Iterator[ShardResult]:
        """Yield one result per shard."""
        queue = AffinityQueue(shards)
        loaded_arm: Arm | None = None
        while (shard := queue.take(loaded_arm)) is not None:
            loaded_arm = shard.arm
            try:
                self._scorer = self._scorer or self._factory()
                yield self._scorer.score(shard)
            except Exception as error:  # as on Ray: a result for every shard
                yield ShardResult.of_error(shard, explain(error))


def explain(error: BaseException) -> str:
    """Return an error of scoring as one line."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if isinstance(error, EvalsvcError) else f"{type(error).__name__}: {text}"
