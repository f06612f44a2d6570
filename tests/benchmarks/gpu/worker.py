"""Runs sections one after another in one process; each leaves its result in a file. Started by `__main__`."""

from __future__ import annotations

import faulthandler
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsvc.engine.resident import silence
from tests.benchmarks.gpu import accuracy, speed
from tests.benchmarks.gpu.meters import PROCESS_LIMIT, free_memory, limit_graphs, peak_gb, use_flex_attention
from tests.benchmarks.gpu.record import OutOfTimeError, Record, check_gpu, error_of
from tests.benchmarks.gpu.shapes import FULL, SMALL, Scale

SLOWER = 8
"""How much more time a section has on a CPU."""

BROKEN = 3
"""Exit status after which another process goes on with the next section: the GPU does not answer this one any more."""


@dataclass(frozen=True, slots=True)
class Section:
    """A measurement and the seconds that it may take; a little later its process is ended."""

    measure: Callable[[Record, Scale], None]
    seconds: float


# The most wanted first: what does not fit the time is left out.
SECTIONS = {
    "environment": Section(speed.measure_environment, 40),
    "parity": Section(accuracy.measure_parity, 90),
    "graphs": Section(accuracy.measure_graphs, 90),
    "masks": Section(speed.measure_masks, 45),
    "mmlu": Section(speed.measure_mmlu, 70),
    "hellaswag": Section(speed.measure_hellaswag, 70),
    "generation": Section(speed.measure_generation, 60),
    "8b": Section(speed.measure_8b, 50),
    "determinism": Section(accuracy.measure_determinism, 40),
    "quantised": Section(accuracy.measure_quantised, 60),
}


def run(names: list[str], folder: Path, limit: float, *, small: bool) -> int:
    """Run sections, as far as the time allows; return the exit status.

    Args:
        limit: Seconds for all of them.
    """
    silence()
    warnings.simplefilter("ignore", FutureWarning)
    end = time.monotonic() + limit
    scale = SMALL if small else FULL
    if small:
        use_flex_attention()
    for name in names:
        section = SECTIONS[name]
        seconds = min(section.seconds * (SLOWER if small else 1), end - time.monotonic())
        if seconds <= 0:
            return 0
        (folder / f"{name}.started").write_text(json.dumps({"seconds": seconds, "at": time.time()}), encoding="utf-8")
        print(f"{name} ... (at most {seconds:.0f} s)", flush=True)
        started = time.monotonic()
        outcome: dict[str, Any] = {}
        record = Record(folder / f"{name}.json", seconds, _earlier(folder))
        is_broken = False
        with (folder / f"{name}.stack").open("w", encoding="utf-8") as stack:
            faulthandler.dump_traceback_later(seconds + 5, file=stack)  # before the parent ends a hanging process
            try:
                free_memory()
                limit_graphs(PROCESS_LIMIT)
                section.measure(record, scale)
                outcome["state"] = "done"
            except OutOfTimeError as error:
                outcome = {"state": "out of time", "error": str(error)}
            except Exception as error:
                outcome = {"state": "failed", **error_of(error)}
                print("\n".join(outcome["traceback"]), file=sys.stderr, flush=True)
            finally:
                faulthandler.cancel_dump_traceback_later()
            try:
                check_gpu()
                outcome["peak_gb"] = peak_gb()
            except Exception as error:
                outcome["gpu"] = f"{type(error).__name__}: {error}"[:500]
                is_broken = True
        outcome["section_seconds"] = round(time.monotonic() - started, 2)
        record.values |= outcome
        record.write()
        (folder / f"{name}.ended").touch()
        print(f"{name}: {outcome['state']}, {outcome['section_seconds']} s", flush=True)
        if is_broken:
            return BROKEN
    return 0


def _earlier(folder: Path) -> dict[str, Any]:
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")}
