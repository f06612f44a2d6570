"""A scorer without a model, for tests of what surrounds it, and small plans to feed it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from evalsvc.records.arms import Arm, Checkpoint, Numerics
from evalsvc.records.digests import digest
from evalsvc.records.plans import Metric, Plan, PlannedTask, Rendering, Request, Response, Sample
from evalsvc.records.scores import Graded, Result, Score
from evalsvc.records.shards import Shard, ShardResult

NUMERICS = Numerics(device="cpu", dtype="float32", torch="2", transformers="5")
ACC = Metric("acc", "none", "mean", True)


class FakeScorer:
    """Answers from the digests of checkpoint and request; what a shard's key says happens to it first.

    "die" kills the worker every time, "die once <file>" until the file exists, "raise" raises, "slow" takes a while.
    """

    def score(self, shard: Shard) -> ShardResult:
        what, _, mark = shard.key.partition(" once ")
        if what == "raise":
            raise ValueError("this shard is bad")
        if what == "slow":
            time.sleep(0.3)
        if what == "die" and not (mark and Path(mark).exists()):
            if mark:
                Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        answers = tuple(
            Response(request=r, loglikelihood=fake_loglikelihood(shard.arm.checkpoint, r), greedy=False)
            for r in shard.requests
        )
        return ShardResult(shard=shard, responses=answers, worker=str(os.getpid()))


def fake_loglikelihood(checkpoint: Checkpoint, request: str) -> float:
    """The fake log-likelihood of a request under a checkpoint."""
    return -int(checkpoint.digest[-3:] + request[:3], 16) / 1e6


def make_checkpoint(number: int, *, parent: Checkpoint | None = None, resident: str | None = None) -> Checkpoint:
    """Make a checkpoint that exists in name only."""
    return Checkpoint(
        digest=f"sha256:{number:064x}",
        name=f"c{number}",
        path=f"/models/{number}",
        method="lora" if parent else "base",
        tokenizer="t",
        parent=parent.digest if parent else None,
        base_path=resident or (parent.path if parent else None),
    )


def make_arm(number: int, **options: object) -> Arm:
    return Arm(make_checkpoint(number, **options), NUMERICS)  # type: ignore[arg-type]


def make_plan(name: str = "s", n: int = 6, role: str = "general", text: str = "question") -> Plan:
    """Make a plan of one binary task with two requests per sample."""
    requests, samples = [], []
    for i in range(n):
        pair = [Request.of("loglikelihood", (f"{text} {i}", f" {choice}")) for choice in "ab"]
        requests += pair
        samples.append(
            Sample(
                digest=digest(text, str(i)),
                doc_id=i,
                doc=f'{{"i": {i}}}',
                target="0",
                requests=tuple(r.digest for r in pair),
            )
        )
    task = PlannedTask(
        name=f"{name}_task",
        group=None,
        version="1",
        output_type="multiple_choice",
        shots=0,
        metrics=(ACC,),
        weight=1.0,
        chance=None,
        samples=tuple(samples),
    )
    return Plan(
        digest=f"plan-{name}-{n}-{text}",
        suite=name,
        role=role,  # type: ignore[arg-type]
        description="",
        suite_digest="d",
        suite_path="/suites/s.yaml",
        rendering=Rendering(),
        tasks=(task,),
        requests=tuple(requests),
    )


def make_bare_plan(requests: list[Request]) -> Plan:
    """Make a plan of given requests, without tasks."""
    return Plan(
        digest=digest("plan", *(r.digest for r in requests)),
        suite="s",
        role="general",
        description="",
        suite_digest="d",
        suite_path="/suites/s.yaml",
        rendering=Rendering(),
        tasks=(),
        requests=tuple(requests),
    )


def grade_plan(plan: Plan, values: list[float]) -> Graded:
    """Return these scores of a plan's one task as grading would."""
    task = plan.tasks[0]
    scores = tuple(
        Score(sample=s.digest, metric="acc", filter="none", value=v) for s, v in zip(task.samples, values, strict=True)
    )
    mean = sum(values) / len(values)
    return Graded(
        (
            Result(
                task=task.name,
                metric="acc",
                filter="none",
                n=len(values),
                value=mean,
                stderr=0.1,
                higher_is_better=True,
                primary=True,
            ),
        ),
        {task.name: scores},
    )
