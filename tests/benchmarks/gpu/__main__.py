"""The engine on one GPU, in six minutes; by hand.

    python -m tests.benchmarks.gpu --json gpu.json      # one CUDA GPU, no network
    python -m tests.benchmarks.gpu --small              # to the end on a CPU, to see that it runs
    python -m tests.benchmarks.gpu --only parity --only graphs

Every section runs in a worker process, which is ended when it takes too long and replaced when the GPU stops answering
it; the other sections are not lost. The file is written after every step, and the last line is the same JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

GRACE = 12
"""Seconds after a section's time at which its process is ended."""

NAMES = (
    *("environment", "parity", "graphs", "masks", "mmlu", "hellaswag", "generation", "8b", "determinism"),
    "quantised",
)


def main() -> None:
    """Run the sections that the command line names."""
    options = _options()
    if options.worker is not None:
        from tests.benchmarks.gpu import worker

        sys.exit(worker.run(options.only, options.worker, options.limit, small=options.small))
    started = time.monotonic()
    names = options.only or list(NAMES)
    with tempfile.TemporaryDirectory() as folder:
        results = _Results(Path(folder), names, options.json)
        while (rest := results.not_begun()) and (left := options.limit - (time.monotonic() - started)) > 0:
            command = [sys.executable, "-u", "-m", "tests.benchmarks.gpu", "--worker", folder, "--limit", str(left)]
            command += ["--small"] * options.small + [word for name in rest for word in ("--only", name)]
            _supervise(subprocess.Popen(command), results, left)
            if len(results.not_begun()) == len(rest):
                results.notes.append("a worker ended before its first section")
                break
        results.notes.append(f"{time.monotonic() - started:.0f} s in all")
        print(json.dumps(results.write(), separators=(",", ":")), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description="The engine on one GPU.")
    parser.add_argument("--small", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, after every step")
    parser.add_argument("--only", action="append", choices=NAMES, help="a section; may be repeated")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="for all sections (420)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.limit is None:
        options.limit = 3600.0 if options.small else 420.0
    return options


def _supervise(worker: subprocess.Popen[bytes], results: _Results, left: float) -> None:
    """Wait for a worker; end it when a section takes too long."""
    end = time.monotonic() + left + GRACE
    while worker.poll() is None:
        time.sleep(0.5)
        results.write()
        overdue = results.overdue()
        if overdue or time.monotonic() > end:
            results.notes.append(f"ended the worker in {overdue or 'its last section'}: it took too long")
            worker.kill()
            worker.wait()
    results.close()
    if worker.returncode not in (0, None):
        results.notes.append(f"a worker ended with status {worker.returncode}")


class _Results:
    """What the workers have left in a folder.

    Attributes:
        notes: What happened to the workers.
    """

    def __init__(self, folder: Path, names: list[str], file: Path | None) -> None:
        self.notes: list[str] = []
        self._folder, self._names, self._file = folder, names, file

    def not_begun(self) -> list[str]:
        """Return the sections that no worker has begun."""
        return [name for name in self._names if not self._has(name, "started")]

    def overdue(self) -> str | None:
        """Return the section that has taken too long, None if there is none."""
        for name in self._names:
            if not self._has(name, "started") or self._has(name, "ended") or self._has(name, "killed"):
                continue
            text = (self._folder / f"{name}.started").read_text(encoding="utf-8")
            if text and time.time() - json.loads(text)["at"] > json.loads(text)["seconds"] + GRACE:
                return name
        return None

    def close(self) -> None:
        """Note that no process works on the sections that have begun."""
        for name in self._names:
            if self._has(name, "started") and not self._has(name, "ended"):
                (self._folder / f"{name}.killed").touch()

    def _has(self, name: str, kind: str) -> bool:
        return (self._folder / f"{name}.{kind}").exists()

    def write(self) -> dict[str, Any]:
        """Return all results, and write them to the file."""
        sections = {name: self._section(name) for name in self._names}
        results = {"schema": 1, "notes": self.notes, "sections": sections}
        if self._file is not None:
            unfinished = self._file.with_suffix(".tmp")
            unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            unfinished.replace(self._file)
        return results

    def _section(self, name: str) -> dict[str, Any]:
        if not self._has(name, "started"):
            return {"state": "not run"}
        try:
            values: dict[str, Any] = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there yet, or just being written
            values = {}
        if not self._has(name, "ended"):
            values["state"] = "its process ended" if self._has(name, "killed") else "running"
            stack = self._folder / f"{name}.stack"
            if stack.exists() and (text := stack.read_text(encoding="utf-8")):
                values["stack"] = text.splitlines()[:60]
        return values


if __name__ == "__main__":
    main()
