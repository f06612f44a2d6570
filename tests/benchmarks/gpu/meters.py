"""What is measured around a computation: time, memory, compiled graphs, and how busy the GPU was."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch._dynamo
import torch._dynamo.guards
from torch._C._autograd import DeviceType
from torch._dynamo.utils import counters
from torch._logging._internal import set_logs
from torch.nn.attention.flex_attention import flex_attention

from evalsvc.engine import attention, generation, likelihood

MESSAGES = 40
"""Messages of the compiler that are kept."""


PROCESS_LIMIT = torch._dynamo.config.recompile_limit
"""How often torch lets a function be compiled."""

MANY = 64


def synchronize() -> None:
    """Wait until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free_memory() -> None:
    """Give unused memory back to the device, and count its peak anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float | None:
    """Return the most memory that tensors took since `free_memory`, in 1e9 bytes; None without a GPU."""
    return round(torch.cuda.max_memory_allocated() / 1e9, 3) if torch.cuda.is_available() else None


def limit_graphs(limit: int) -> None:
    """Drop all compiled graphs, as in a fresh process, and let a function be compiled so often."""
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = limit
    cached = getattr(attention, "_flex", None)
    if cached is not None and hasattr(cached, "cache_clear"):
        cached.cache_clear()


def use_flex_attention() -> None:
    """Make the engine attend on a CPU as on a GPU, with graphs that are traced but not compiled; for a trial run."""

    @cache
    def traced(_device: str) -> Any:
        return torch.compile(flex_attention, dynamic=True, backend="eager")

    setattr(attention, "_flex", traced)  # noqa: B010
    for module in (likelihood, generation):
        setattr(  # noqa: B010
            module,
            "pack_attention",
            lambda _device, keep_all=False: attention.FlexPackAttention(keep_all=keep_all),
        )


class Clock:
    """Times what runs inside `with`, until the GPU is done.

    Attributes:
        wall, cpu: Seconds.
    """

    def __enter__(self) -> Clock:
        synchronize()
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        synchronize()
        self.wall = round(time.perf_counter() - self._wall, 5)
        self.cpu = round(time.process_time() - self._cpu, 5)


@dataclass(slots=True)
class Graphs:
    """What the compiler did.

    Attributes:
        compiled: Graphs that it compiled.
        messages: Its warnings and its reasons to compile anew, shortened.
        is_limit_hit: Whether it gave up compiling a function, which then runs uncompiled.
        is_uncompiled: Whether FlexAttention ran uncompiled, with a full score matrix.
    """

    compiled: int = 0
    messages: list[str] = field(default_factory=list)
    is_limit_hit: bool = False
    is_uncompiled: bool = False

    def take(self, text: str) -> None:
        """Note a message."""
        self.is_limit_hit |= "recompile_limit" in text
        if text.lstrip().startswith("Recompiling function"):  # the guard of the last graph that did not hold
            text = next((line.strip() for line in text.splitlines() if line.strip().startswith("- ")), text)
        self.is_uncompiled |= "without torch.compile" in text
        if len(self.messages) < MESSAGES and text[:300] not in self.messages:
            self.messages.append(text[:300])

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "graphs": self.compiled,
            "limit_hit": self.is_limit_hit,
            "full_score_matrix": self.is_uncompiled,
            "messages": self.messages,
        }


class _Listener(logging.Handler):
    def __init__(self, graphs: Graphs) -> None:
        super().__init__()
        self._graphs = graphs

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or record.name.endswith("__recompiles"):
            self._graphs.take(record.getMessage())


@cache
def _loggers() -> list[logging.Logger]:
    """Let the compiler say why it compiles anew; return the loggers that say what went wrong."""
    set_logs(recompiles=True)
    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch") and "__recompiles" in name]
    return [logging.getLogger(name) for name in ("torch._dynamo", "torch._inductor", *names)]


@contextmanager
def watch_graphs() -> Iterator[Graphs]:
    """Count the graphs that are compiled inside `with`, and collect what the compiler says."""
    graphs = Graphs()
    listener = _Listener(graphs)
    before = counters["stats"]["unique_graphs"]
    loggers = _loggers()
    for logger in loggers:
        logger.addHandler(listener)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            yield graphs
    finally:
        for logger in loggers:
            logger.removeHandler(listener)
        graphs.compiled = counters["stats"]["unique_graphs"] - before
        for warning in caught:
            graphs.take(str(warning.message))


@dataclass(slots=True)
class MaskCall:
    """One call of `create_block_mask`: rows x keys, seconds, memory that it took for a while, in 1e9 bytes."""

    rows: int
    keys: int
    seconds: float
    gb: float | None


@contextmanager
def watch_masks() -> Iterator[list[MaskCall]]:
    """Time every block mask that the engine makes inside `with`; an empty list if it makes none this way."""
    calls: list[MaskCall] = []
    original: Any = getattr(attention, "create_block_mask", None)

    def timed(*arguments: Any, **options: Any) -> Any:
        synchronize()
        before = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        with Clock() as clock:
            mask = original(*arguments, **options)
        gb = (torch.cuda.max_memory_allocated() - before) / 1e9 if torch.cuda.is_available() else None
        calls.append(MaskCall(int(arguments[3]), int(arguments[4]), clock.wall, gb))
        return mask

    if original is not None:
        attention.create_block_mask = timed  # type: ignore[attr-defined]
    try:
        yield calls
    finally:
        if original is not None:
            attention.create_block_mask = original  # type: ignore[attr-defined]


def busy_share(run: Callable[[], object]) -> dict[str, Any]:
    """Run something under the profiler; return the share of the wall time in which the GPU ran a kernel or a copy."""
    if not torch.cuda.is_available():
        run()
        return {"note": "no GPU"}
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler, Clock() as clock:
        run()
        synchronize()
    spans: list[tuple[float, float]] = []
    by_name: Counter[str] = Counter()
    for event in profiler.events() or []:
        if event.device_type == DeviceType.CUDA:
            spans.append((event.time_range.start, event.time_range.end))
            by_name[event.name[:80]] += int(event.time_range.end - event.time_range.start)
    busy, end = 0.0, 0.0
    for start, stop in sorted(spans):
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return {
        "share": round(busy / 1e6 / clock.wall, 4),
        "wall": clock.wall,
        "kernels": len(spans),
        "longest_ms": {name: round(micro / 1e3, 2) for name, micro in by_name.most_common(12)},
    }
