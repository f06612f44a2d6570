"""The executor on Ray workers, in an embedded or a running cluster. With `remote`, the only module that imports ray.

A worker is an actor that keeps one base in memory. Actors do not restart by themselves (`max_restarts=0`): an actor
that restarts on a lost node fails every call within seconds and uses up the attempts of many shards. The driver
replaces a dead worker, sends shards to the new one only after it answered a ping, and fails a shard on which three
workers died.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from evalsvc.errors import EvalsvcError
from evalsvc.records.arms import Arm
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.scoring.executors import AffinityQueue, ScorerFactory, ShardScorer, explain
from evalsvc.settings import core_count

MAX_DEATHS = 3

_log = logging.getLogger(__name__)


def import_ray() -> Any:
    """Import ray; sets the environment variables that it reads on its first import."""
    if "ray" in sys.modules:
        return sys.modules["ray"]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_worker_niceness", "0")  # the default of 15 starves workers on a busy machine
    os.environ.setdefault(
        "RAY_agent_register_timeout_ms", "300000"
    )  # where one is busy, 30 s end the node at its start
    if not os.environ.get("RAY_ADDRESS") and not _has_token():
        # An embedded cluster ends with this process, so its token is not written to the home folder.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    return ray


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def count_cluster_gpus() -> float:
    """Return the number of GPUs of the cluster at RAY_ADDRESS; 0 without a cluster."""
    if not os.environ.get("RAY_ADDRESS"):
        return 0.0
    with RayExecutor(_no_scorer):
        return float(import_ray().cluster_resources().get("GPU", 0))


def _no_scorer() -> ShardScorer:
    raise NotImplementedError("this executor only looks at the cluster")


class _RayOutput(io.TextIOBase):
    """Redirects Ray's output on stdout, such as worker deaths, to the log: stdout is for the command's answer."""

    def write(self, text: str) -> int:
        """Log the text at level debug."""
        if text.strip():
            _log.debug("%s", text.rstrip())
        return len(text)


class _Worker:
    """The actor: makes its scorer on first use and keeps it."""

    def __init__(self, factory: ScorerFactory) -> None:
        self._factory = factory
        self._scorer: ShardScorer | None = None

    def ping(self) -> int:
        """Return the worker's process id."""
        return os.getpid()

    def score(self, shard: Shard) -> ShardResult:
        """Score one shard."""
        self._scorer = self._scorer or self._factory()
        return self._scorer.score(shard)


@dataclass(slots=True)
class _WorkerHandle:
    """The driver's handle of a worker."""

    actor: Any
    shard: Shard | None = None
    holds: Arm | None = None


def _describe_failed_start() -> str:
    if address := os.environ.get("RAY_ADDRESS"):
        return f"Ray at RAY_ADDRESS {address!r} does not answer: check it with `ray status`, or unset RAY_ADDRESS"
    return "Ray does not start on this machine: submit again when it is less busy, or score with --workers 0"


class RayExecutor:
    """Scores on Ray actors."""

    def __init__(self, factory: ScorerFactory, *, workers: int | None = None, gpus: float = 0) -> None:
        """Describe the workers; nothing starts before the context is entered.

        Args:
            workers: Number of workers; None for one per GPU of the cluster if `gpus`, else one per core.
            gpus: GPUs per worker; may be a fraction.
        """
        self._factory = factory
        self._workers = workers
        self._gpus = gpus
        self._embedded = not os.environ.get("RAY_ADDRESS")
        self._handles: dict[Any, _WorkerHandle] = {}  # by the object reference of the running call
        self._idle: list[_WorkerHandle] = []  # between two runs
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._undo = ExitStack()
        self._failed_starts = 0  # workers in a row that died before they answered

    def __enter__(self) -> RayExecutor:
        ray = import_ray()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self._embedded:
            options |= {"address": "local", "include_dashboard": False, "num_cpus": core_count()}
        else:
            options |= {"address": os.environ["RAY_ADDRESS"]}
        with ExitStack() as undo:
            undo.enter_context(redirect_stdout(_RayOutput()))
            try:
                ray.init(**options)
            except Exception as error:  # ray raises ConnectionError, RuntimeError, ValueError, ... from here
                raise EvalsvcError(f"{_describe_failed_start()} ({explain(error)})") from error
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray = import_ray()
        for handle in (*self._handles.values(), *self._idle):
            ray.kill(handle.actor)
        self._handles.clear()
        self._idle.clear()
        ray.shutdown()
        self._undo.close()

    def run(self, shards: Iterable[Shard]) -> Iterator[ShardResult]:
        """Yield one result per shard, as they finish.

        Raises:
            EvalsvcError: Several workers in a row die before they are ready.
        """
        ray = import_ray()
        queue = AffinityQueue(shards)
        idle, self._idle = self._idle, []
        for handle in idle:
            self._assign(handle, queue)
        for _ in range(min(self._worker_count() - len(idle), len(queue))):
            self._start_worker()
        while self._handles:
            finished, _ = ray.wait(list(self._handles), num_returns=1, timeout=1.0)
            for reference in finished:
                yield from self._collect(self._handles.pop(reference), reference, queue)

    def _collect(self, handle: _WorkerHandle, reference: Any, queue: AffinityQueue) -> Iterator[ShardResult]:
        """Yield a worker's result, and assign its next shard; replaces a dead worker."""
        ray = import_ray()
        shard, handle.shard = handle.shard, None
        try:
            answer = ray.get(reference)
            self._failed_starts = 0
            if shard is not None:  # None for the ping
                yield answer
        except ray.exceptions.RayTaskError as error:  # the scorer raised: the worker lives, the shard is bad
            if shard is None:
                raise EvalsvcError(f"a worker cannot start: {explain(error.cause or error)}") from error
            yield ShardResult.of_error(shard, explain(error.cause or error))
        except ray.exceptions.RayError as error:
            ray.kill(handle.actor)
            yield from self._handle_death(shard, error, queue)
            if queue:
                self._start_worker()
            return
        self._assign(handle, queue)

    def _handle_death(self, shard: Shard | None, error: Exception, queue: AffinityQueue) -> Iterator[ShardResult]:
        """Queue a dead worker's shard again, or fail it after `MAX_DEATHS` attempts."""
        if shard is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_DEATHS:
                raise EvalsvcError(f"{MAX_DEATHS} workers died before they were ready: {explain(error)}") from error
            return
        self._deaths[shard.arm.key, shard.key] += 1
        attempt = self._deaths[shard.arm.key, shard.key]
        _log.warning("a worker died (attempt %d of %d): %s", attempt, MAX_DEATHS, explain(error))
        if attempt < MAX_DEATHS:
            queue.put_back(shard)
        else:
            yield ShardResult.of_error(shard, f"given up after {MAX_DEATHS} workers died on it: {explain(error)}")

    def _worker_count(self) -> int:
        resources = import_ray().cluster_resources()
        if resources.get("GPU", 0) < self._gpus:
            raise EvalsvcError(f"Ray has {resources.get('GPU', 0):g} GPUs, a worker needs {self._gpus:g}")
        if self._workers is not None:
            return max(1, self._workers)
        return max(1, int(resources["GPU"] / self._gpus if self._gpus else resources.get("CPU", 1)))

    def _start_worker(self) -> None:
        ray = import_ray()
        cores = 1 if self._gpus or not self._embedded else max(1, core_count() // self._worker_count())
        worker = ray.remote(num_cpus=cores, num_gpus=self._gpus, max_restarts=0, max_task_retries=0)(_Worker)
        actor = worker.remote(self._factory)
        self._handles[actor.ping.remote()] = _WorkerHandle(actor)

    def _assign(self, handle: _WorkerHandle, queue: AffinityQueue) -> None:
        others = {busy.holds.weights for busy in self._handles.values() if busy.holds}
        shard = queue.take(handle.holds, others)
        if shard is None:
            self._idle.append(handle)
            return
        handle.shard, handle.holds = shard, shard.arm
        self._handles[handle.actor.score.remote(shard)] = handle
