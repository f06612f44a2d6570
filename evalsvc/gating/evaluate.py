"""Scores a checkpoint on the suites of a policy until it is decided.

With interim looks, items are scored in the order of the looks. Each look has its own plan, a part of the suite's whole
plan; stored responses are reused. Scoring stops after the look that decides. Looks that decided nothing are removed
from the store, so that only the plan of the decision remains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evalsvc.errors import CheckpointError, EvidenceError
from evalsvc.gating import sequential
from evalsvc.gating.candidates import at_level
from evalsvc.gating.decisions import Decision, Question, decide, judge_question
from evalsvc.gating.evidence import Items
from evalsvc.gating.ledger import find_candidate, read_records
from evalsvc.gating.policy import FRACTIONS, Policy, check_possible
from evalsvc.gating.power_plan import (
    check_planned_metrics,
    count_sizes,
    find_suite_files,
    list_documents,
    list_planned_items,
    list_sampled_suites,
)
from evalsvc.harness.plan import Planned, select_samples
from evalsvc.records.vocabulary import Floats
from evalsvc.scoring.driver import Progress, RunJob
from evalsvc.scoring.submission import Source, Submission
from evalsvc.scoring.submit import Prepared, prepare, score
from evalsvc.settings import Compute
from evalsvc.store.arms import find_arm, find_base
from evalsvc.store.runs import Runs, driver_name
from evalsvc.store.store import Store

Note = Callable[[str], None]


def build_submission(
    store: Store, question: Question, suites: tuple[str, ...], compute: Compute, allow_task_code: bool
) -> Submission:
    """Return the submission that scores the missing items."""
    source, base = question.checkpoint, question.base
    if store.path.is_file() and not Path(source).exists():
        # A stored arm is scored from the folder from which it was submitted.
        arms = store.arms()
        arm = find_arm(arms, source)
        source, base = arm.checkpoint.path, base or find_base(arms, arm).checkpoint.path
    return Submission(
        sources=(Source(source),), base=base, suites=suites, compute=compute, allow_task_code=allow_task_code
    )


def evaluate(store: Store, question: Question, submission: Submission, progress: Progress, note: Note) -> Decision:
    """Score a checkpoint on the policy's suites until it is decided, and store the decision.

    Raises:
        UsageError: The checkpoint, a suite or the policy cannot be used.
        EvidenceError: A run failed, or evidence is not comparable.
    """
    sampled = list_sampled_suites(store, question.policy, submission.suites)
    files = find_suite_files(store, [*question.policy.suites, *sampled], submission.suites)
    prepared = prepare(store, replace(submission, suites=tuple(files.values())), progress, note)
    if len(prepared.arms) != 2:
        raise CheckpointError(f"{len(prepared.arms) - 1} checkpoints are given, a gate decides on one; name one")
    base, adapted = prepared.arms
    for suite_plan in prepared.planned:
        check_planned_metrics(question.policy, suite_plan)
    sizes = count_sizes(prepared.planned)
    candidate = find_candidate(
        store,
        question.policy,
        read_records(store, base.checkpoint.digest),
        base=base.key,
        adapted=adapted.key,
        plans={suite_plan.plan.digest: suite_plan.plan.suite for suite_plan in prepared.planned},
        documents=list_documents(sizes),
        half=question.half,
        batch_size=question.batch_size,
    )
    check_possible(at_level(question.policy, candidate), sizes)
    if question.incumbent:
        _check_incumbent_runs(store, question.incumbent, prepared)
    resolved = replace(question, checkpoint=adapted.checkpoint.digest, base=base.checkpoint.digest)
    if question.policy.mode == "fixed" or _complete(store, prepared):
        _all_done(score(store, prepared, progress, note))
        return decide(store, resolved)
    return _by_looks(store, resolved, prepared, progress, note)


def _by_looks(store: Store, question: Question, prepared: Prepared, progress: Progress, note: Note) -> Decision:
    policy = question.policy
    whole = {suite_plan.plan.suite: suite_plan for suite_plan in prepared.planned}
    growing = {entry.suite for entry in policy.retention} | set(policy.learning.suites if policy.learning else ())
    tasks = [(suite, task) for suite, suite_plan in whole.items() for task in suite_plan.plan.tasks]
    if question.policy.mode == "finite_pool":
        drawn = [np.array([sequential.draw_place(sample.digest) for sample in task.samples]) for _, task in tasks]
    else:
        drawn = sequential.draw_unit_places([list_planned_items(suite, task) for suite, task in tasks])
    places = {(s, task.name): there for (s, task), there in zip(tasks, drawn, strict=True) if s in growing}
    items: Items = {key: len(there) for key, there in places.items()}
    with prepared.executor() as executor:
        for number, fraction in enumerate(FRACTIONS[policy.mode], start=1):
            if fraction == 1.0:
                break
            parts = [_part(suite_plan, places, items, fraction, policy) for suite_plan in whole.values()]
            _all_done(score(store, replace(prepared, planned=tuple(parts)), progress, note, executor))
            plans = [suite_plan.plan.digest for suite_plan in parts]
            outcome = judge_question(store, question, fraction=fraction, plans=plans, items=items)
            last = outcome.looks[-1]
            note(f"look {number}: {last.items:,} of {last.of:,} items, {outcome.verdict}")
            if outcome.verdict != "inconclusive":
                return decide(store, question, fraction=fraction, plans=plans, items=items)
            # The next look contains its items, and reuses the stored responses.
            Runs(store.path).remove_looks(plans, prepared.arms[0].key, prepared.arms[1].key, driver_name())
        _all_done(score(store, prepared, progress, note, executor))
    return decide(store, question)


def _part(
    suite_plan: Planned, places: Mapping[sequential.Key, Floats], items: Items, fraction: float, policy: Policy
) -> Planned:
    """Return the part of a suite that a look scores; the whole suite if it has no interim looks."""
    suite = suite_plan.plan.suite
    if (suite, suite_plan.plan.tasks[0].name) not in places:
        return suite_plan
    masks = sequential.take_first(places, items, fraction, policy.mode)
    chosen = {}
    for task in suite_plan.plan.tasks:
        there = places[suite, task.name]
        # At least the first items of every task, so that each has an estimate; later looks count them.
        few = sequential.find_first_units(there)
        chosen[task.name] = [bool(kept) for kept in masks[suite, task.name] | few]
    if all(all(mask) for mask in chosen.values()):
        return suite_plan
    return select_samples(suite_plan, chosen)


def _check_incumbent_runs(store: Store, name: str, prepared: Prepared) -> None:
    """Refuse an incumbent without scores before anything is scored.

    Raises:
        UsageError: The name matches no arm.
        EvidenceError: A run is missing or unfinished.
    """
    incumbent = find_arm(store.arms() if store.path.is_file() else [], name)
    done = {run.plan for run in store.runs() if run.state == "done" and run.arm.digest == incumbent.digest}
    for suite_plan in prepared.planned:
        if suite_plan.plan.role != "diversity" and suite_plan.plan.digest not in done:
            raise EvidenceError(
                f"--incumbent {name}: has no finished run of suite {suite_plan.plan.suite}; "
                f"run: evalsvc submit {name} --suite {suite_plan.plan.suite}"
            )


def _complete(store: Store, prepared: Prepared) -> bool:
    """Whether both arms have finished all whole runs, so that interim looks save nothing."""
    if not store.path.is_file():
        return False
    done = {(run.arm.digest, run.plan) for run in store.runs() if run.state == "done"}
    return all((arm.key, suite_plan.plan.digest) in done for arm in prepared.arms for suite_plan in prepared.planned)


def _all_done(jobs: Sequence[RunJob]) -> None:
    failed = [job for job in jobs if job.state != "done"]
    if failed:
        raise EvidenceError(
            f"{len(failed)} of {len(jobs)} runs failed (first: {failed[0].error}), so nothing was decided; "
            "run the gate again"
        )
