"""The engine's benchmark: how many times faster than lm-eval's own Hugging Face model, at the same scores.

    python -m tests.benchmarks.engine                       # everything; half an hour on two idle cores
    python -m tests.benchmarks.engine --only mmlu-19 --rounds 3
    python -m tests.benchmarks.engine --json found.json --plot found.html

See README.md beside it for what is measured, and for what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import transformers.utils.logging as transformers_logging

from tests.benchmarks import around, show
from tests.benchmarks.measure import Measured, measure
from tests.benchmarks.texts import read, save_adapters, save_base
from tests.benchmarks.workloads import all_workloads

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
AROUND = ("planning", "memory", "index")


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    warnings.simplefilter("ignore", FutureWarning)  # of libraries among themselves
    transformers_logging.disable_progress_bar()
    texts = read(options.data)
    workloads = [w for w in all_workloads(texts) if not options.only or w.name in options.only]
    measured: list[Measured] = []
    beside: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["EVALSVC_CACHE"] = str(folder / "cache")  # so that a first time is one
        base = save_base(texts, folder / "base")
        for workload in workloads:
            arms = [base, *save_adapters(base, folder, workload.adapters)]
            measured.append(measure(workload, arms, options.rounds, _say, options.search))
            _write(options.json, measured, beside, texts.source)
        for what in AROUND:
            if not options.only or what in options.only:
                _say(f"{what} ...")
                beside[what] = getattr(around, what)(texts, base, folder)
                _write(options.json, measured, beside, texts.source)
    show.tables(measured, beside, texts.source)
    if options.plot and measured:
        options.plot.write_text(show.figure(measured).to_html(include_plotlyjs=True), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="a workload, planning, memory or index")
    parser.add_argument("--rounds", type=int, default=5, help="timings of both sides, in turns")
    parser.add_argument("--search", action="store_true", help="find HFLM's best batch size first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, after every workload")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the ratios as a self-contained HTML page")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EVALSVC_TEST_DATA") or DATA))
    options = parser.parse_args()
    known = [*(w.name for w in all_workloads(read(options.data))), *AROUND]
    for name in options.only or []:
        if name not in known:
            parser.error(f"--only {name}: must be one of {', '.join(known)}")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: must be at least 1")
    return options


def _write(file: Path | None, measured: list[Measured], beside: dict[str, Any], source: str) -> None:
    if file is not None:
        found = {
            "schema": 1,
            "machine": show.machine(),
            "texts": source,
            "workloads": [show.as_dict(m) for m in measured],
            **beside,
        }
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
