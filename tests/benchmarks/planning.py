"""CPU seconds of planning, by hand: `python -m tests.benchmarks.planning [TASK ...]`.

Plans a task of 25,000 documents with four choices (100,000 requests), plain and with five shots, whole and with a
limit; then lm-eval's tasks that are named, from the cache of `datasets`. Imports are not counted.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch  # noqa: F401  an import that planning may need

from evalsvc.harness.plan import plan
from evalsvc.harness.suites import Suite
from evalsvc.harness.tasks import load
from evalsvc.records.plans import Rendering
from tests.support.tasks import CHOICE, make_sentence, write_task


def measure(entry: dict[str, Any], **suite: Any) -> None:
    """Plan a suite of one task, and print what that took."""
    started = time.process_time()
    content = {"name": "s", "role": "general", "tasks": [entry], **suite}
    requests = plan(load(Suite.model_validate(content)), Rendering()).plan.requests
    print(f"{time.process_time() - started:6.2f} s  {len(requests):7,} requests  {entry}")


def main(names: list[str]) -> None:
    """Measure the large task, then the named ones."""
    rng = random.Random(0)
    rows = [
        {
            "query": make_sentence(rng, 20, 60),
            "choices": [make_sentence(rng, 2, 9) for _ in range(4)],
            "gold": rng.randrange(4),
        }
        for _ in range(25_000)
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_task(Path(folder), "large", rows, **{**CHOICE, "doc_to_choice": "{{choices}}"})
        measure({"task": "large"}, include=[folder])  # reads and caches the rows
        for more in ({}, {"limit": 500}, {"shots": 5}, {"shots": 5, "limit": 500}):
            measure({"task": "large", **more}, include=[folder])
    for name in names:
        for more in ({}, {}, {"limit": 100}, {"shots": 5}, {"shots": 5, "limit": 100}):
            measure({"task": name, **more})


if __name__ == "__main__":
    main(sys.argv[1:])
