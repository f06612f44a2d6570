"""Drives runs: missing requests to an executor, answers to the store, finished runs to grading.

The driver is the only writer. It commits at most every half second, so that a killed driver loses less than a second of
work; what is in the store is never asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product

from evalsvc.engine.sharding import Cutter
from evalsvc.errors import EvalsvcError
from evalsvc.harness.grade import grade
from evalsvc.harness.other_prompts import assign_to_plan
from evalsvc.harness.plan import Planned
from evalsvc.records.arms import Arm, find_reference
from evalsvc.records.digests import digest
from evalsvc.records.plans import Failure, has_drift
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.records.vocabulary import Floats, State
from evalsvc.scoring.executors import Executor
from evalsvc.store.runs import driver_name
from evalsvc.store.store import Store

COMMIT_SECONDS = 0.5

Progress = Callable[[int, int], None]
"""Called with requests answered and requests in all, of those that have to be scored."""


@dataclass(slots=True, kw_only=True)
class RunJob:
    """One run on its way.

    Attributes:
        waiting: Digests of the requests that are neither answered nor given up.
        reused: Requests whose response was in the store already.
        error: The first reason for giving a request up.
        asked: What is asked: the plan itself, or another one in its place of arms with other prompts.
        lender: The base's run on this plan, for an arm with its weights that is asked the same.
        reference: The base that this run's texts are compared with token by token; None for runs of other roles.
        drift: Divergence from it at every token, by request.
    """

    arm: Arm
    planned: Planned
    asked: Planned
    waiting: set[str]
    reused: int
    state: State = "queued"
    failed: int = 0
    error: str | None = None
    reference: Arm | None = None
    drift: dict[str, Floats] = field(default_factory=dict, repr=False)
    moved: bool = field(default=False, repr=False)
    lender: RunJob | None = field(default=None, repr=False)

    @property
    def total(self) -> int:
        """Number of requests of the run."""
        return len(self.asked.plan.requests)


class Driver:
    """Runs every arm on every plan.

    Attributes:
        paths: How each arm's answers are computed, by the arm's label.
    """

    def __init__(
        self,
        store: Store,
        arms: Sequence[Arm],
        planned: Sequence[Planned],
        cutter: Cutter,
        asked: Mapping[str, Planned] | None = None,
    ) -> None:
        """Register arms, plans and runs, and find out what is missing.

        Args:
            arms: Bases before what was made of them.
            asked: By a plan's digest, what arms with other prompts are asked instead.
        """
        otherwise = asked or {}
        self._store = store
        self._cutter = cutter
        self.paths: dict[str, str] = {}
        tokens = {
            (arm.key, item.plan.digest): cutter.cut(
                _choose_plan(arm, item, otherwise).plan, arm.checkpoint
            ).prompt_tokens
            for arm, item in product(arms, planned)
        }
        store.register(arms, [item.plan for item in planned], driver_name(), tokens)
        store.add_plans([item.plan for item in otherwise.values()])
        answered = store.answered_requests(arms)
        done = {(run.arm.digest, run.plan) for run in store.runs() if run.state == "done"}
        # Drift first: what it shares with other suites is asked once, together with its divergence; of the base too,
        # so that equal requests share their batch with the same others for all arms.
        in_order = sorted(planned, key=lambda item: not has_drift(item.plan))
        self.jobs: list[RunJob] = []
        for arm, item in product(arms, in_order):
            its = _choose_plan(arm, item, otherwise)
            wanted = {request.digest for request in its.plan.requests}
            finished = (arm.key, item.plan.digest) in done
            reference = _find_reference(arm, arms, item, cutter)
            lender = self._lender(arm, arms, item) if arm.checkpoint.is_prompted and its is item else None
            if lender is not None:
                waiting = set[str]()
            elif reference is not None and not finished:
                # Divergences are kept with the finished run: until then it begins anew, also where answers were given
                # elsewhere.
                waiting = set(wanted)
            else:
                waiting = wanted - answered[arm.key]
            state: State = "done" if finished and not waiting else "queued"
            reused = len(wanted) - len(waiting)
            self.jobs.append(
                RunJob(
                    arm=arm,
                    planned=item,
                    asked=its,
                    waiting=waiting,
                    reused=reused,
                    state=state,
                    reference=reference,
                    lender=lender,
                )
            )

    @property
    def missing(self) -> int:
        """Number of requests that have to be scored."""
        return len({(job.arm.key, key) for job in self.jobs for key in job.waiting})

    def grade_ready(self) -> None:
        """Grade runs that need no scoring."""
        for job in self.jobs:
            ready = job.lender is None or job.lender.state in ("done", "failed")
            if job.state == "queued" and not job.waiting and ready:
                self._finish(job)

    def _lender(self, arm: Arm, arms: Sequence[Arm], planned: Planned) -> RunJob:
        base = find_reference(arm, arms)
        return next(job for job in self.jobs if job.planned is planned and job.arm == base)

    def run(self, executor: Executor, progress: Progress) -> None:
        """Score what is missing, and grade every run as soon as it is complete.

        Raises:
            EvalsvcError: The executor cannot go on; what came back until then is kept.
        """
        total, done = self.missing, 0
        buffer: list[ShardResult] = []
        last = time.monotonic()
        progress(0, total)
        try:
            shards, refused = self._shards()
            for found in chain(refused, executor.run(shards)):
                result = self._find_missing(found)
                buffer.append(result)
                done += len(result.responses) + len(result.failures)
                complete = self._note(result)
                progress(done, total)
                if complete or time.monotonic() - last >= COMMIT_SECONDS:
                    self._commit(buffer)
                    last = time.monotonic()
                if complete:
                    self.grade_ready()
        except EvalsvcError as error:
            self._commit(buffer)
            for job in self.jobs:
                if job.waiting:
                    self._give_up(job, str(error))
            self.grade_ready()
            raise
        finally:
            self._commit(buffer)

    def _shards(self) -> tuple[list[Shard], list[ShardResult]]:
        """Return the shards that hold something missing, and what cannot be asked at all.

        A shard is scored as a whole even if only some of its answers are missing: what shares a batch never changes.
        """
        shards: list[Shard] = []
        refused: list[ShardResult] = []
        assigned: set[tuple[str, str]] = set()
        for job in self.jobs:
            if not job.waiting:
                continue
            cut = self._cutter.cut(job.asked.plan, job.arm.checkpoint)
            failures = [Failure(key, reason) for key, reason in cut.refused.items() if key in job.waiting]
            if failures:
                refused.append(
                    ShardResult(shard=Shard(key="refused", arm=job.arm, requests=()), failures=tuple(failures))
                )
            for part in cut.slices:
                requests = cut.digests(part)
                new = {(job.arm.key, key) for key in requests if key in job.waiting} - assigned
                assigned |= new
                if new:
                    key = digest("shard", *requests)
                    shards.append(
                        Shard(key=key, arm=job.arm, requests=requests, work=part.work, reference=job.reference)
                    )
        return shards, refused

    def _find_missing(self, result: ShardResult) -> ShardResult:
        """Return of a result what is still missing."""
        arm = result.shard.arm
        if result.path:
            self.paths[arm.label] = result.path
        waiting = [job.waiting for job in self.jobs if job.arm.key == arm.key]

        def is_missing(request: str) -> bool:
            return any(request in some for some in waiting)

        return replace(
            result,
            responses=tuple(response for response in result.responses if is_missing(response.request)),
            failures=tuple(failure for failure in result.failures if is_missing(failure.request)),
        )

    def _note(self, result: ShardResult) -> list[RunJob]:
        """Cross off what came back; return the runs that are complete now."""
        answered = {response.request for response in result.responses}
        failed = {failure.request: failure.error for failure in result.failures}
        complete = []
        for job in self.jobs:
            if job.arm.key != result.shard.arm.key or not job.waiting:
                continue
            lost = job.waiting & failed.keys()
            before = len(job.waiting)
            job.waiting -= answered | lost
            job.failed += len(lost)
            job.error = job.error or next((failed[key] for key in lost), None)
            job.moved = job.moved or len(job.waiting) < before
            if job.reference is not None:
                job.drift |= result.divergences
            if before and not job.waiting:
                complete.append(job)
        return complete

    def _commit(self, buffer: list[ShardResult]) -> None:
        moved = [job for job in self.jobs if job.moved]
        if buffer or moved:
            counts = {
                (job.arm.key, job.planned.plan.digest): (job.total - len(job.waiting) - job.failed, job.failed)
                for job in moved
            }
            self._store.commit(buffer, counts)
            buffer.clear()
            for job in moved:
                job.moved = False

    def _finish(self, job: RunJob) -> None:
        plan = job.planned.plan
        if job.lender is not None:
            if job.lender.state == "failed":
                self._give_up(job, f"its base's run failed: {job.lender.error}")
                return
            self._store.lend(job.lender.arm, job.arm, plan)
        if job.failed:
            self._give_up(job, f"{job.failed} of {job.total} requests could not be answered: {job.error}")
            return
        try:
            graded = grade(job.asked, self._store.responses(job.arm, job.asked.plan))
        except EvalsvcError as error:
            self._give_up(job, str(error))
            return
        if job.asked is not job.planned:
            graded = assign_to_plan(graded, job.asked.plan, plan)
        self._store.finish(job.arm, plan, graded)
        for task in plan.tasks if job.drift else ():
            kl = {s.digest: [v for key in s.requests for v in job.drift.get(key, ())] for s in task.samples}
            self._store.add_drift(job.arm, plan, task.name, {sample: v for sample, v in kl.items() if v})
        job.drift = {}
        job.state = "done"

    def _give_up(self, job: RunJob, error: str) -> None:
        job.state, job.error = "failed", error
        self._store.fail(job.arm, job.planned.plan, error)


def _choose_plan(arm: Arm, planned: Planned, otherwise: Mapping[str, Planned]) -> Planned:
    """Return what an arm is asked: another plan in place of a suite's, if it has other prompts."""
    return otherwise.get(planned.plan.digest, planned) if arm.checkpoint.is_prompted else planned


def _find_reference(arm: Arm, arms: Sequence[Arm], planned: Planned, cutter: Cutter) -> Arm | None:
    """Return the arm that an arm's drift is measured from: its base, served as it was, if their tokens are the same."""
    if arm.checkpoint.parent is None or arm.checkpoint.is_prompted or not has_drift(planned.plan):
        return None
    base = find_reference(arm, arms)
    same = base is not None and cutter.same_tokens(planned.plan, arm.checkpoint, base.checkpoint)
    return base if same else None
