"""What stands around the forward passes: planning a large suite, memory, lm-eval's index of tasks.

Each is measured in fresh processes, which this module is also the program of.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evalsvc.records.arms import Arm, Checkpoint
from evalsvc.records.plans import Plan, Rendering, Request
from evalsvc.records.shards import Shard
from tests.benchmarks import workloads
from tests.benchmarks.texts import Texts

SUBJECTS, SUBJECT, DOCUMENTS = 57, 263, 10_042
"""MMLU's subjects, HellaSwag's documents, and so many documents per subject that there are 100,000 requests."""

Rows = dict[str, dict[str, Any]]


def planning(texts: Texts, base: Checkpoint, folder: Path) -> Rows:
    """Plan MMLU and HellaSwag at their full sizes, first from text, then from what was kept on disk."""
    documents = [pairs for subject in range(SUBJECTS) for pairs in workloads.mmlu(texts, SUBJECT, subject)]
    for seed in range(-(-DOCUMENTS // (len(texts.passages) // 2 - 4))):
        count = min(DOCUMENTS - seed * (len(texts.passages) // 2 - 4), len(texts.passages) // 2 - 4)
        documents += workloads.hellaswag(texts, count, fixed=False, seed=seed)
    requests = workloads.choose("planning", documents, 1, 0).requests
    unique = tuple({request.digest: request for request in requests}.values())
    plan = Plan(
        digest="planning",
        suite="planning",
        role="general",
        description="",
        suite_digest="",
        suite_path="",
        rendering=Rendering(),
        tasks=(),
        requests=unique,
    )
    _keep(folder / "plan.pickle", (plan, base))
    return {
        which: _run("plan", str(folder / "plan.pickle"), str(folder / "cuts"))
        for which in ("first time", "second time")
    }


def _plan(file: str, cuts: str) -> dict[str, Any]:
    from evalsvc.engine.sharding import Cutter

    plan, base = _kept(Path(file))
    before = _peak_memory()
    started, cpu = time.perf_counter(), time.process_time()
    made = Cutter(Path(cuts)).cut_plan(plan, base)
    return {
        "requests": len(plan.requests),
        "wall s": time.perf_counter() - started,
        "CPU s": time.process_time() - cpu,
        "rows": made.rows,
        "slices": len(made.slices),
        "refused": len(made.refused),
        "memory MB": before,
        "peak MB": _peak_memory(),
    }


def memory(texts: Texts, base: Checkpoint, folder: Path) -> Rows:
    """Compare the peak of scoring some requests with the peak of ten times as many of the same kind."""
    from evalsvc.engine.encoding import load_encoder
    from evalsvc.engine.sharding import cut_requests
    from tests.benchmarks.measure import NUMERICS

    kinds: dict[str, tuple[int, Callable[[int], tuple[Request, ...]]]] = {
        "mmlu": (20, lambda n: workloads.choose("", workloads.mmlu(texts, n), 1, 0).requests),
        "hellaswag-random": (
            8,
            lambda n: workloads.choose("", workloads.hellaswag(texts, n, fixed=False), 1, 0).requests,
        ),
        "rolling": (4, lambda n: workloads.rolling(texts, n).requests),
        "gsm8k-random": (20, lambda n: workloads.generation("", texts, n, 0, fixed=False, limit=16).requests),
    }
    found: Rows = {}
    for name, (count, make) in kinds.items():
        peaks = []
        for times in (1, 10):
            requests = tuple({request.digest: request for request in make(count * times)}.values())
            made = cut_requests(requests, load_encoder(base))
            shards = folder / f"{name}-{times}"
            shards.mkdir()
            for number, part in enumerate(made.slices):
                shard = Shard(key=str(number), arm=Arm(base, NUMERICS), requests=made.digests(part), work=part.work)
                _keep(shards / f"{number:05}.pickle", shard)
            peaks.append({"documents": count * times, "rows": made.rows, **_run("score", str(shards))})
        small, large = peaks
        found[name] = {
            "documents": f"{small['documents']} / {large['documents']}",
            "rows": f"{small['rows']:,} / {large['rows']:,}",
            "loaded MB": small["loaded MB"],
            "peak MB": small["peak MB"],
            "peak MB of ten times": large["peak MB"],
            "growth": f"{large['peak MB'] / small['peak MB'] - 1:+.1%}",
        }
    return found


def _score(folder: str) -> dict[str, Any]:
    """Score shards one after another, as a worker gets them: the plan is in another process."""
    from evalsvc.engine.scorer import Scorer

    scorer = Scorer()
    files = sorted(Path(folder).iterdir())
    loaded = _load(scorer, _kept(files[0]))
    for file in files:
        scorer.score(_kept(file))
    return {"loaded MB": loaded, "peak MB": _peak_memory()}


def _load(scorer: Any, shard: Shard) -> float:
    """Load a shard's checkpoint by one small request; return the memory that this took, in MB."""
    from evalsvc.engine.encoding import load_encoder
    from evalsvc.engine.sharding import cut_requests

    request = Request.of("loglikelihood", ("one", " two"))
    small = cut_requests([request], load_encoder(shard.arm.checkpoint))
    scorer.score(Shard(key="small", arm=shard.arm, requests=(request.digest,), work=small.slices[0].work))
    return _peak_memory()


def index(texts: Texts, base: Checkpoint, folder: Path) -> Rows:
    """Time what a suite pays whose task is not in its own folders: lm-eval's index of all tasks."""
    suite = folder / "index.yaml"
    suite.write_text(
        "name: index\nrole: general\ndescription: none\ntasks: [no_such_task_anywhere]\n", encoding="utf-8"
    )
    return {which: _run("index", str(suite)) for which in ("first process", "second process")}


def _index(file: str) -> dict[str, Any]:
    from evalsvc.errors import SuiteError
    from evalsvc.harness.suites import load_suite
    from evalsvc.harness.tasks import load

    suite = load_suite(Path(file))
    found = {}
    for which in ("first load", "second load"):
        started, cpu = time.perf_counter(), time.process_time()
        with contextlib.suppress(SuiteError):
            load(suite)
        found[f"{which}, wall s"] = time.perf_counter() - started
        found[f"{which}, CPU s"] = time.process_time() - cpu
    return found


# ----------------------------------------------------------------------------------------------------------- processes


def _run(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.around", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_memory() -> float:
    """Return the most memory that this process has held, in MB; `getrusage` would count its parent's too."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def _keep(file: Path, value: Any) -> None:
    with file.open("wb") as stream:
        pickle.dump(value, stream, protocol=5)


def _kept(file: Path) -> Any:
    with file.open("rb") as stream:
        return pickle.load(stream)


if __name__ == "__main__":
    programs: dict[str, Callable[..., dict[str, Any]]] = {"plan": _plan, "score": _score, "index": _index}
    print(json.dumps(programs[sys.argv[1]](*sys.argv[2:])))
