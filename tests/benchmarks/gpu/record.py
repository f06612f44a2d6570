"""A section's result, on disk after every step, so that a process that is killed keeps what it had."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.gpu.meters import synchronize

LINES = 30
"""Of a traceback, its last."""


class OutOfTimeError(Exception):
    """A section has used up its time; what it has is kept."""


class Record:
    """Values by name.

    Attributes:
        values: What was measured.
        earlier: Results of the sections before.
    """

    def __init__(self, file: Path, seconds: float, earlier: dict[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        self.earlier = earlier
        self._file = file
        self._deadline = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Seconds of the section's time that are left."""
        return self._deadline - time.monotonic()

    def note(self, **values: Any) -> None:
        """Add values, and write them.

        Raises:
            OutOfTimeError: The section's time is over.
        """
        self.values |= values
        self.write()
        for name, value in values.items():
            text = json.dumps(value, default=_plain)
            print(f"    {name}: {text if len(text) < 400 else text[:400] + ' ...'}", flush=True)
        if self.seconds_left < 0:
            raise OutOfTimeError("the section's time is over")

    def write(self) -> None:
        """Write the values."""
        self._file.write_text(json.dumps(self.values, default=_plain), encoding="utf-8")

    def attempt(self, name: str, measure: Callable[[], Any]) -> Any:
        """Note what a measurement returns, or its error; return it, None after an error.

        Raises:
            RuntimeError: The GPU answers no more.
        """
        value: Any = None
        try:
            value = measure()
        except OutOfTimeError:
            raise
        except Exception as error:
            text = error_of(error)
            check_gpu()
            self.note(**{name: text})
            return None
        self.note(**{name: value})
        return value


def error_of(error: BaseException) -> dict[str, Any]:
    """Return an error for JSON."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {"error": f"{type(error).__name__}: {error}"[:2000], "traceback": lines[-LINES:]}


def check_gpu() -> None:
    """Compute something small.

    Raises:
        RuntimeError: The GPU answers no more, as after an illegal memory access; only another process gets it back.
    """
    if torch.cuda.is_available():
        synchronize()
        if float((torch.ones(8, device="cuda") + 1).sum()) != 16:
            raise RuntimeError("the GPU adds wrongly")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
