"""Power analysis of a policy on the suites of a store or a submission, with the requests that scoring takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evalsvc.analysis.compare import compare_values
from evalsvc.analysis.units import TaskItems
from evalsvc.errors import EvidenceError, PolicyError, UsageError
from evalsvc.gating import sequential
from evalsvc.gating.candidates import Candidate, at_level
from evalsvc.gating.decisions import Question
from evalsvc.gating.ledger import find_candidate, read_records
from evalsvc.gating.policy import Policy, TaskSize, check_possible, check_prompts
from evalsvc.gating.power import RuleForecast, forecast, list_unforecast
from evalsvc.gating.rules import check_metric, find_blind_level, measure_losable
from evalsvc.harness.plan import Planned
from evalsvc.harness.suites import find_suite, load_suite
from evalsvc.records.choices import Half
from evalsvc.records.plans import PlannedTask, number_samples
from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Ints
from evalsvc.scoring.submit import Prepared
from evalsvc.store.arms import StoredArm, find_arm, find_base, find_family
from evalsvc.store.runs import PlannedRun, Runs
from evalsvc.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPlan:
    """Power analysis of a policy, with what scoring takes.

    Attributes:
        requests: Number of requests to score.
        seconds: What they will take, if known from earlier runs.
        candidate: Which candidate on the same evidence the checkpoint will be, and the level of its tests.
        alpha: Level of the policy.
        notes: Tasks that are no evidence, and rules without a power analysis, one line each.
    """

    rules: tuple[RuleForecast, ...]
    requests: int
    seconds: float | None
    candidate: Candidate
    alpha: float
    notes: tuple[str, ...] = ()


def plan_power(store: Store, question: Question, suites: Sequence[str]) -> PowerPlan:
    """Return the power analysis of a question, before scoring; its checkpoint need not be in the store.

    Args:
        suites: Files of suites that are not in the store.

    Raises:
        UsageError: A suite is not known, or the policy cannot be met.
        EvidenceError: A suite was imported without items, or the declared batch is used up.
    """
    policy = question.policy
    if question.incumbent:
        find_arm(store.arms() if store.path.is_file() else [], question.incumbent)
    known, adapted = _find_known_arms(store, question.checkpoint, question.base)
    sizes: dict[str, tuple[TaskSize, ...]] = {}
    plans: dict[str, str] = {}
    requests = 0
    stored_runs = Runs(store.path)
    numbers = [arm.number for arm in (known, adapted) if arm is not None]
    runs = [run for run in stored_runs.of_arms(numbers) if run.part_of is None] if numbers else []
    done = {(run.arm, run.digest) for run in runs if run.state == "done"}
    given = {find_suite(name).name for name in suites}
    of_base = {run.suite: run for run in runs if known is not None and run.arm == known.number}
    files = find_suite_files(store, [s for s in policy.suites if s in given or s not in of_base], suites)
    for suite in policy.suites:
        if suite not in files:
            newest = of_base[suite]
            plans[newest.digest] = suite
            items = stored_runs.task_items(newest.digest)
            sizes[suite] = tuple(
                TaskSize(task, count, weight, TaskItems(*items[task]) if count else None)
                for task, count, weight in stored_runs.task_sizes([newest.digest]).get(suite, ())
            )
            if not any(size.items for size in sizes[suite]):
                raise EvidenceError(
                    f"suite {suite!r}: only its levels are in the store, and a gate decides on items; import it with "
                    "--samples"
                )
            left = [arm for arm in (known, adapted) if arm is None or (arm.number, newest.digest) not in done]
            requests += len(left) * newest.requests
        else:
            planned = _load_planned_suite(files[suite])
            check_planned_metrics(policy, planned)
            plans[planned.plan.digest] = suite
            sizes[suite] = count_sizes([planned])[suite]
            requests += 2 * len(planned.plan.requests)
    candidate = find_candidate(
        store,
        policy,
        read_records(store, known.checkpoint.digest) if known else [],
        base=known.digest if known else "",
        adapted=adapted.digest if adapted else None,
        plans=plans,
        documents=list_documents(sizes),
        half=question.half,
        batch_size=question.batch_size,
    )
    if question.half:
        sizes = _take_half(sizes, question.half)
    discordance, base_scores = read_base(store, known) if known else ({}, [])
    check_stored_metrics(policy, [scores for scores in base_scores if scores.suite not in files])
    rate = stored_runs.median_rate() if store.path.is_file() else None
    prompts = _count_prompts(policy, stored_runs, list(of_base.values()), suites)
    return _forecast_all(policy, candidate, sizes, prompts, discordance, base_scores, requests, rate)


def _count_prompts(
    policy: Policy, stored_runs: Runs, of_base: Sequence[PlannedRun], suites: Sequence[str]
) -> dict[str, int]:
    """Return the number of prompts of each task with role diversity that the base has answered, or that is given."""
    if policy.diversity is None:
        return {}
    sampled = [run.digest for run in of_base if run.role == "diversity" and run.state == "done"]
    sizes = stored_runs.task_sizes(sampled) if sampled else {}
    prompts = {f"{suite}/{task}": count for suite, tasks in sizes.items() for task, count, _ in tasks}
    given = [_load_planned_suite(name) for name in suites if find_suite(name).role == "diversity"]
    return prompts | count_planned_prompts(given)


def count_planned_prompts(planned: Sequence[Planned]) -> dict[str, int]:
    """Return the number of prompts of each planned task with role diversity, as SUITE/TASK."""
    return {
        f"{suite_plan.plan.suite}/{task.name}": len(task.samples)
        for suite_plan in planned
        if suite_plan.plan.role == "diversity"
        for task in suite_plan.plan.tasks
    }


def _take_half(sizes: Mapping[str, tuple[TaskSize, ...]], half: Half) -> dict[str, tuple[TaskSize, ...]]:
    """Return the sizes of one half of the tasks' documents and clusters."""
    items = [task.of for tasks in sizes.values() for task in tasks if task.of is not None]
    masks = iter(sequential.take_half(items, half))

    def cut(task: TaskSize) -> TaskSize:
        if task.of is None:
            return task
        mask = next(masks)
        return replace(task, items=int(mask.sum()), of=task.of.part(mask))

    return {suite: tuple(cut(task) for task in tasks) for suite, tasks in sizes.items()}


def _forecast_all(
    policy: Policy,
    candidate: Candidate,
    sizes: Mapping[str, tuple[TaskSize, ...]],
    prompts: Mapping[str, int],
    discordance: Mapping[sequential.Key, float],
    base_scores: Sequence[TaskScores],
    requests: int,
    rate: float | None,
) -> PowerPlan:
    """Return the power analysis at a candidate's level.

    Args:
        prompts: Number of prompts of each task with role diversity, as SUITE/TASK.
        rate: Requests per second, if known.

    Raises:
        PolicyError: The policy cannot be met.
    """
    at_its_level = at_level(policy, candidate)
    check_possible(at_its_level, sizes)
    check_prompts(at_its_level, prompts)
    kept = {entry.suite for entry in policy.retention}
    allowed = policy.require.allow_blind_spots
    seen = [
        scores
        for scores in base_scores
        if scores.suite in kept and not {scores.suite, f"{scores.suite}/{scores.task}"} & set(allowed)
    ]
    levels = {(scores.suite, scores.task): find_blind_level(scores, is_learning=False) for scores in seen}
    losable = {
        (scores.suite, scores.task): 0.0 if levels[scores.suite, scores.task] else measure_losable(scores)
        for scores in seen
    }
    rules = tuple(forecast(at_its_level, sizes, discordance, losable))
    no_evidence = [
        f"{'/'.join(key)}: the base is {level}, so it is no evidence" for key, level in levels.items() if level
    ]
    blind = [
        f"{rule.rule}: cannot pass: most items are no evidence, or all that the base can lose is within the margin; "
        "use other tasks or a smaller margin, or name the tasks in require.allow_blind_spots of the policy"
        for rule in rules
        if rule.resolvable is None
    ]
    return PowerPlan(
        rules=rules,
        requests=requests,
        seconds=requests / rate if rate else None,
        candidate=candidate,
        alpha=policy.alpha,
        notes=(*no_evidence, *blind, *list_unforecast(at_its_level, prompts)),
    )


def list_documents(sizes: Mapping[str, tuple[TaskSize, ...]]) -> dict[str, list[Ints]]:
    """Return the numbers of the documents of each suite's tasks."""
    return {suite: [task.of.documents for task in tasks if task.of is not None] for suite, tasks in sizes.items()}


def plan_prepared(store: Store, policy: Policy, prepared: Prepared) -> PowerPlan:
    """Return the power analysis of a policy on a prepared submission.

    Raises:
        PolicyError: A suite of the policy is not submitted, or the policy cannot be met.
    """
    sizes = count_sizes(prepared.planned)
    for suite in policy.suites:
        if suite not in sizes:
            raise PolicyError(f"suite {suite!r}: is in the policy, and not submitted; add --suite {suite}")
    base, *adapted = prepared.arms
    candidate = find_candidate(
        store,
        policy,
        read_records(store, base.checkpoint.digest),
        base=base.key,
        adapted=adapted[0].key if len(adapted) == 1 else None,
        plans={s.plan.digest: s.plan.suite for s in prepared.planned if s.plan.suite in policy.suites},
        documents=list_documents(sizes),
    )
    for suite_plan in prepared.planned:
        check_planned_metrics(policy, suite_plan)
    discordance: Mapping[sequential.Key, float] = {}
    base_scores: Sequence[TaskScores] = ()
    requests, rate = len(prepared.arms) * sum(len(suite_plan.plan.requests) for suite_plan in prepared.planned), None
    if store.path.is_file():
        answered = store.answered_requests(prepared.arms)
        digests = {request.digest for suite_plan in prepared.planned for request in suite_plan.plan.requests}
        requests = sum(len(digests - answered[arm.key]) for arm in prepared.arms)
        known = next((arm for arm in store.arms() if arm.digest == base.key), None)
        discordance, base_scores = read_base(store, known) if known else ({}, [])
        rate = Runs(store.path).median_rate()
    prompts = count_planned_prompts(prepared.planned)
    return _forecast_all(policy, candidate, sizes, prompts, discordance, base_scores, requests, rate)


def check_stored_metrics(policy: Policy, base_scores: Sequence[TaskScores]) -> None:
    """Refuse a policy about stored scores whose metrics do not fit its rules.

    Raises:
        EvidenceError: A metric does not fit.
    """
    for scores in base_scores:
        is_mean, is_bits = scores.aggregation == "mean" and scores.is_bounded, scores.aggregation == "bits_per_byte"
        _check_metric(policy, scores.suite, scores.task, scores.metric, is_mean=is_mean, is_bits=is_bits)


def check_planned_metrics(policy: Policy, planned: Planned) -> None:
    """Refuse a policy about a planned suite whose metrics do not fit its rules.

    Raises:
        EvidenceError: A metric does not fit.
    """
    for task in planned.plan.tasks:
        metric, is_bits = task.metrics[0], task.metrics[0].aggregation == "bits_per_byte"
        is_mean = metric.aggregation == "mean"
        _check_metric(policy, planned.plan.suite, task.name, metric.name, is_mean=is_mean, is_bits=is_bits)


def _check_metric(policy: Policy, suite: str, task: str, metric: str, *, is_mean: bool, is_bits: bool) -> None:
    if suite in policy.suites_with_margin:
        check_metric(f"{suite}/{task}", metric, is_mean=is_mean, is_bits=is_bits, is_drift=False)
    if policy.drift and suite == policy.drift.suite:
        check_metric(f"{suite}/{task}", metric, is_mean=is_mean, is_bits=is_bits, is_drift=True)


def count_sizes(planned: Sequence[Planned]) -> dict[str, tuple[TaskSize, ...]]:
    """Return the sizes of planned suites' tasks."""
    return {
        suite_plan.plan.suite: tuple(
            TaskSize(task.name, len(task.samples), task.weight, list_planned_items(suite_plan.plan.suite, task))
            for task in suite_plan.plan.tasks
        )
        for suite_plan in planned
    }


def list_planned_items(suite: str, task: PlannedTask) -> TaskItems:
    """Return the documents and declared clusters of a planned task."""
    return TaskItems(*number_samples(suite, task.name, task.samples))


def read_base(store: Store, base: StoredArm) -> tuple[dict[sequential.Key, float], list[TaskScores]]:
    """Return the discordance by suite and task, the median over the adapted arms of a base, and the base's scores."""
    arms = [a for a in store.arms() if a.checkpoint.parent == base.checkpoint.digest and a.numerics == base.numerics]
    scores = store.task_scores(base.number, [arm.number for arm in arms])
    shares: dict[sequential.Key, list[float]] = {}
    base_scores = {(s.suite, s.task): s for s in scores[base.number]}
    for arm in arms:
        for adapted_scores in scores[arm.number]:
            compared = compare_values(base_scores[adapted_scores.suite, adapted_scores.task], adapted_scores)
            if compared.lost is not None and compared.gained is not None:
                share = (compared.lost + compared.gained) / compared.n
                shares.setdefault((adapted_scores.suite, adapted_scores.task), []).append(share)
    return {key: float(np.median(of_task)) for key, of_task in shares.items()}, list(base_scores.values())


def _find_known_arms(store: Store, checkpoint: str, base: str | None) -> tuple[StoredArm | None, StoredArm | None]:
    """Return the arms of base and checkpoint; None for one that is not in the store."""
    if not store.path.is_file():
        return None, None
    arms = store.arms()

    def find_or_none(find: Callable[[], StoredArm]) -> StoredArm | None:
        try:
            return find()
        except (UsageError, EvidenceError):
            return None

    adapted = find_or_none(lambda: find_arm(arms, checkpoint))
    if base:
        return find_or_none(lambda: find_arm(arms, base)), adapted
    if adapted:
        return find_or_none(lambda: find_base(arms, adapted)), adapted
    return find_or_none(lambda: find_family(store.arms()).base), None


def _load_planned_suite(file: str) -> Planned:
    from evalsvc.harness import plan as planning
    from evalsvc.harness import tasks as loading
    from evalsvc.records.plans import Rendering

    suite = find_suite(file)
    return planning.plan(loading.load(suite), Rendering(None, suite.system_prompt))


def list_sampled_suites(store: Store, policy: Policy, given: Sequence[str]) -> list[str]:
    """Return the names of the suites of sampled answers that a diversity rule is about: as given, else the store's."""
    if policy.diversity is None:
        return []
    named = [suite.name for suite in map(find_suite, given) if suite.role == "diversity"]
    stored = store.runs() if store.path.is_file() else []
    return named or list(dict.fromkeys(run.suite for run in stored if run.role == "diversity"))


def find_suite_files(store: Store, suites: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Return the file or name of each of some suites: as given, else from the store, else a shipped suite.

    Raises:
        UsageError: A suite is not found.
    """
    named = {find_suite(name).name: name for name in given}
    known_runs = Runs(store.path) if store.path.is_file() else None
    files = {}
    for suite in suites:
        stored = known_runs.suite_path(suite) if known_runs else None
        if suite not in named and stored and Path(stored).is_file() and load_suite(Path(stored)).name == suite:
            files[suite] = stored
        else:
            files[suite] = named.get(suite, suite)
            find_suite(files[suite])
    return files
