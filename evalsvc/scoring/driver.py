"""Drives runs: sends missing requests to an executor, stores the responses, and grades finished runs.

The driver is the only writer. It commits at most every half second, so that a killed driver loses less than a second of
work. Requests whose responses are stored are never scored again.
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
"""Called with the number of requests scored so far and the number to score."""


@dataclass(slots=True, kw_only=True)
class RunJob:
    """One run in progress.

    Attributes:
        scored_plan: The plan whose requests are sent: `planned`, or its replacement for an arm with other prompts.
        waiting: Digests of the requests that have neither a response nor a failure.
        reused: Number of requests whose response was already in the store.
        error: Why the first failed request failed.
        reference: The base for token drift; None where drift is not measured.
        drift: KL divergence from the reference at every token, by request.
        has_progress: Whether requests were answered or failed since the last commit.
        source_job: The base's run on this plan, whose responses are copied where an arm has its weights and prompts.
    """

    arm: Arm
    planned: Planned
    scored_plan: Planned
    waiting: set[str]
    reused: int
    state: State = "queued"
    failed: int = 0
    error: str | None = None
    reference: Arm | None = None
    drift: dict[str, Floats] = field(default_factory=dict, repr=False)
    has_progress: bool = field(default=False, repr=False)
    source_job: RunJob | None = field(default=None, repr=False)

    @property
    def total(self) -> int:
        """Number of requests of the run."""
        return len(self.scored_plan.plan.requests)


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
        replacements: Mapping[str, Planned] | None = None,
    ) -> None:
        """Register arms, plans and runs, and find the requests to score.

        Args:
            arms: Bases before the arms adapted from them.
            replacements: Plan digest -> the plan that arms with other prompts get instead.
        """
        replacements = replacements or {}
        self._store = store
        self._cutter = cutter
        self.paths: dict[str, str] = {}
        tokens = {
            (arm.key, suite.plan.digest): cutter.cut_plan(
                _choose_plan(arm, suite, replacements).plan, arm.checkpoint
            ).prompt_tokens
            for arm, suite in product(arms, planned)
        }
        store.register(arms, [suite.plan for suite in planned], driver_name(), tokens)
        if replacements:
            store.add_plans([suite.plan for suite in replacements.values()])
        answered = store.answered_requests(arms)
        done = {(run.arm.digest, run.plan) for run in store.runs() if run.state == "done"}
        # Suites with drift first: requests that they share with other suites are scored once, with their divergence.
        # The base has the same order, so that a request is in the same batch for all arms.
        in_order = sorted(planned, key=lambda suite: not has_drift(suite.plan))
        self.jobs: list[RunJob] = []
        for arm, suite in product(arms, in_order):
            scored = _choose_plan(arm, suite, replacements)
            requests = {request.digest for request in scored.plan.requests}
            finished = (arm.key, suite.plan.digest) in done
            reference = _find_reference(arm, arms, suite, cutter)
            source = self._find_source(arm, arms, suite) if arm.checkpoint.is_prompted and scored is suite else None
            if source is not None:
                waiting = set[str]()
            elif reference is not None and not finished:
                # Divergences are stored when the run finishes, so an unfinished run scores all its requests again, also
                # those that have responses from other suites.
                waiting = set(requests)
            else:
                waiting = requests - answered[arm.key]
            state: State = "done" if finished and not waiting else "queued"
            reused = len(requests) - len(waiting)
            self.jobs.append(
                RunJob(
                    arm=arm,
                    planned=suite,
                    scored_plan=scored,
                    waiting=waiting,
                    reused=reused,
                    state=state,
                    reference=reference,
                    source_job=source,
                )
            )

    @property
    def missing(self) -> int:
        """Number of requests that have to be scored."""
        return len({(job.arm.key, key) for job in self.jobs for key in job.waiting})

    def grade_ready(self) -> None:
        """Grade runs that need no scoring."""
        for job in self.jobs:
            ready = job.source_job is None or job.source_job.state in ("done", "failed")
            if job.state == "queued" and not job.waiting and ready:
                self._finish(job)

    def _find_source(self, arm: Arm, arms: Sequence[Arm], planned: Planned) -> RunJob:
        base = find_reference(arm, arms)
        return next(job for job in self.jobs if job.planned is planned and job.arm == base)

    def run(self, executor: Executor, progress: Progress) -> None:
        """Score the missing requests, and grade every run as soon as it is complete.

        Raises:
            EvalsvcError: The executor stopped; the results so far are stored.
        """
        total, done = self.missing, 0
        buffer: list[ShardResult] = []
        last = time.monotonic()
        progress(0, total)
        try:
            shards, refused = self._shards()
            for shard_result in chain(refused, executor.run(shards)):
                result = self._find_missing(shard_result)
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
        """Return the shards with missing requests, and the failures of requests that cannot be sent.

        A shard is scored as a whole even if only some of its responses are missing, so that batches never change.
        """
        shards: list[Shard] = []
        refused: list[ShardResult] = []
        assigned: set[tuple[str, str]] = set()
        for job in self.jobs:
            if not job.waiting:
                continue
            cut = self._cutter.cut_plan(job.scored_plan.plan, job.arm.checkpoint)
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
        """Return a result without the requests that no run is waiting for."""
        arm = result.shard.arm
        if result.path and not self.paths.get(arm.label, "").startswith("plain"):  # worth a line if any shard took it
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
        """Update all runs with a result; return the runs that are complete now."""
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
            job.has_progress = job.has_progress or len(job.waiting) < before
            if job.reference is not None:
                job.drift |= result.divergences
            if before and not job.waiting:
                complete.append(job)
        return complete

    def _commit(self, buffer: list[ShardResult]) -> None:
        advanced = [job for job in self.jobs if job.has_progress]
        if buffer or advanced:
            counts = {
                (job.arm.key, job.planned.plan.digest): (job.total - len(job.waiting) - job.failed, job.failed)
                for job in advanced
            }
            self._store.commit(buffer, counts)
            buffer.clear()
            for job in advanced:
                job.has_progress = False

    def _finish(self, job: RunJob) -> None:
        plan = job.planned.plan
        if job.source_job is not None:
            if job.source_job.state == "failed":
                self._give_up(job, f"its base's run failed: {job.source_job.error}")
                return
            self._store.copy_responses(job.source_job.arm, job.arm, plan)
        if job.failed:
            self._give_up(job, f"{job.failed} of {job.total} requests could not be answered: {job.error}")
            return
        try:
            graded = grade(job.scored_plan, self._store.responses(job.arm, job.scored_plan.plan), plan)
        except EvalsvcError as error:
            self._give_up(job, str(error))
            return
        if job.scored_plan is not job.planned:
            graded = assign_to_plan(graded, job.scored_plan.plan, plan)
        self._store.finish(job.arm, plan, graded)
        for task in plan.tasks if job.drift else ():
            kl = {s.digest: [v for key in s.requests for v in job.drift.get(key, ())] for s in task.samples}
            self._store.add_drift(job.arm, plan, task.name, {sample: v for sample, v in kl.items() if v})
        job.drift = {}
        job.state = "done"

    def _give_up(self, job: RunJob, error: str) -> None:
        job.state, job.error = "failed", error
        self._store.fail(job.arm, job.planned.plan, error)


def _choose_plan(arm: Arm, planned: Planned, replacements: Mapping[str, Planned]) -> Planned:
    """Return the plan whose requests an arm gets: the suite's, or its replacement if the arm has other prompts."""
    return replacements.get(planned.plan.digest, planned) if arm.checkpoint.is_prompted else planned


def _find_reference(arm: Arm, arms: Sequence[Arm], planned: Planned, cutter: Cutter) -> Arm | None:
    """Return the arm that an arm's drift is measured from: its base, if both have the same tokens."""
    if arm.checkpoint.parent is None or arm.checkpoint.is_prompted or not has_drift(planned.plan):
        return None
    base = find_reference(arm, arms)
    same = base is not None and cutter.has_same_tokens(planned.plan, arm.checkpoint, base.checkpoint)
    return base if same else None
