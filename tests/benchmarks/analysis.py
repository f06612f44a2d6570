"""What comparing, placing and gating cost on large inputs, in CPU seconds of this process or of the command's."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from evalsvc.analysis.compare import compare_task
from evalsvc.analysis.frontier import build_axis, build_positions, find_frontier
from evalsvc.analysis.suite_gains import Candidate, measure_gains
from tests.support.evidence import fill_store, make_binary
from tests.support.fakes import make_checkpoint
from tests.support.scores import make_scores


def measure_comparison(samples: int) -> float:
    """Compare two arms on one task with answers, confidences and a second run of the base."""
    rng = np.random.default_rng(0)
    base, adapted = (rng.integers(0, 2, samples) for _ in range(2))
    extra = {"confidence": rng.random(samples), "invalid": base > 2, "chance": 0.25}
    blank = make_scores([0.0], samples=np.arange(samples), **extra)
    arms = [replace(blank, values=v.astype(float), answers=v) for v in (base, adapted)]
    return _cpu_seconds(lambda: compare_task(arms[0], arms[1], arms[0]))


def measure_frontier(count: int, items: int) -> float:
    """Place arms of one domain and one general task, with intervals and probabilities."""
    rng = np.random.default_rng(0)
    base = make_checkpoint(1)
    arms = []
    for i in range(count + 1):
        checkpoint = make_checkpoint(i + 1, parent=base) if i else base
        domain, general = (rng.random(items) < 0.2 + 0.5 * i / count, rng.random(items) < 0.9 - 0.4 * i / count)
        scores = [
            make_scores(values.tolist(), suite=role, role=role, task=role)
            for role, values in (("domain", domain.astype(float)), ("general", general.astype(float)))
        ]
        arms.append(Candidate(f"c{i}", checkpoint, scores))

    def place() -> None:
        gains = measure_gains(arms[0], arms[1:])
        find_frontier(build_positions(gains, build_axis(gains, "domain"), build_axis(gains, "general")))

    return _cpu_seconds(place)


def measure_gate(mode: str) -> float:
    """Gate an arm on 15 suites of 2,000 items, from the start of the command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        db, policy = Path(folder) / "store.duckdb", Path(folder) / "policy.yaml"
        fill_store(db, "clinic", {f"q{task}": make_binary(10, 40, 500, task) for task in range(4)}, role="domain")
        for number in range(14):
            fill_store(db, f"s{number}", {f"t{task}": make_binary(20, 18, 500, task) for task in range(4)})
        retention = [{"suite": f"s{number}", "margin": 0.05, "per_task_margin": 0.1} for number in range(14)]
        rules = {"version": 1, "mode": mode, "learning": {"suites": ["clinic"]}, "retention": retention}
        policy.write_text(yaml.safe_dump({**rules, "group_margin": 0.02}))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "evalsvc", "gate", "c2", "--policy", str(policy), "--db", str(db)]
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Print what was measured."""
    rows = {"comparison, 1,000,000 samples": measure_comparison(1_000_000)}
    rows["frontier, 50 arms x 20,000 items"] = measure_frontier(50, 10_000)
    rows["frontier, 1,000 arms x 1,000 items"] = measure_frontier(1000, 500)
    for mode in ("fixed", "group_sequential", "finite_pool"):
        rows[f"gate, 15 suites x 2,000 items, `{mode}`"] = measure_gate(mode)
    for name, seconds in rows.items():
        print(f"| {name} | {seconds:.2f} s |")


if __name__ == "__main__":
    main()
