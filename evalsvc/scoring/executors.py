"""Shards in, results out, in the order in which they finish: the interface between the driver and what computes.

An executor yields exactly one result for every shard, whatever happens to its workers: a shard that cannot be scored
comes back as failures, never as an exception. Here are the interface, the queue that all executors share, and the
executor that works in this process; `ray_executor` has the one on Ray.
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
        """Answer every request of a shard, or say why not."""
        ...


ScorerFactory = Callable[[], ShardScorer]
"""Makes a scorer where it will run; must be picklable."""


def make_scorer(threads: int) -> ShardScorer:
    """Make the real scorer; the import of torch happens where this is called."""
    from evalsvc.engine.scorer import Scorer as EngineScorer

    return EngineScorer(threads)


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs shards; used as a context manager, which starts and ends its workers."""

    def run(self, shards: Iterable[Shard]) -> Iterator[ShardResult]:
        """Yield one result per shard, as they finish."""
        ...


class AffinityQueue:
    """Hands out shards so that workers rarely load weights.

    A worker gets, in this order: a shard of the checkpoint that it holds; of another checkpoint on the same full
    weights; on full weights that no other worker holds; of the checkpoint with most shards left. Within each, the
    checkpoint that was queued first.
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

    def take(self, held: Arm | None, others: Collection[str] = ()) -> Shard | None:
        """Return the next shard for a worker, None if none waits.

        Args:
            held: The arm that the worker has in memory.
            others: Full weights (`Arm.weights`) that other workers have in memory.
        """
        lines = [line for line in self._waiting.values() if line]
        if not lines:
            return None

        def preference(line: deque[Shard]) -> tuple[bool, bool, bool, int]:
            arm = line[0].arm
            same = held is not None and arm.key == held.key
            near = held is not None and arm.weights == held.weights
            free = arm.weights not in others
            # Where weights are free to load, order of queueing decides; where they are not, the longest line.
            return same, near, free, 0 if free or near else len(line)

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
        held: Arm | None = None
        while (shard := queue.take(held)) is not None:
            held = shard.arm
            try:
                self._scorer = self._scorer or self._factory()
                yield self._scorer.score(shard)
            except Exception as error:  # the same promise as on Ray: a result for every shard
                yield ShardResult.of_error(shard, explain(error))


def explain(error: BaseException) -> str:
    """Return an error of scoring as one line."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if isinstance(error, EvalsvcError) else f"{type(error).__name__}: {text}"
