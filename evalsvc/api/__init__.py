"""The Python API: one function per question, with the options of its command; the command line calls these functions.

Every function takes `db`: the path of a store's file, a store returned by `open`, or None for EVALSVC_DB, else
evalsvc.duckdb. It returns a `Report`, which has `to_dict()` (the object that the command prints with --json) and
`to_pandas()`, and is shown as a table in a notebook. Long functions take `progress`, called with the numbers of
requests done and to do, and `note`, called with one line per stage; without it notes go to the logger "evalsvc".
Heavy packages are imported by the functions that need them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeAlias, TypeVar, cast

from evalsvc.api.arguments import StoreHandle, find_store, ignore_progress, log_note, to_text, to_texts
from evalsvc.api.imports import import_items, import_lm_eval
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.choices import Half, Quantisation, Role, TemplateSource
from evalsvc.settings import Compute, Device, Dtype, check_choice

if TYPE_CHECKING:
    from evalsvc.api.arguments import AnyStore, PathLike
    from evalsvc.gating.decisions import Question
    from evalsvc.gating.policy import Policy
    from evalsvc.records.arms import Cost
    from evalsvc.reports.advice import AdviceReport
    from evalsvc.reports.comparison import ComparisonReport
    from evalsvc.reports.decisions import GateReport, VerifyReport
    from evalsvc.reports.frontier import FrontierReport
    from evalsvc.reports.power import PowerReport
    from evalsvc.reports.results import ResultsReport
    from evalsvc.reports.runs import RunsReport
    from evalsvc.reports.trajectories import TrajectoryReport
    from evalsvc.scoring.submit import Prepared
    from evalsvc.store.store import Store

    AnyPolicy: TypeAlias = "PathLike | Mapping[str, Any] | Policy"
    Progress: TypeAlias = Callable[[int, int], None]
    Note: TypeAlias = Callable[[str], None]

__all__ = [
    "OpenStore",
    "advise",
    "compare",
    "find_store",
    "frontier",
    "gate",
    "import_items",
    "import_lm_eval",
    "open",
    "plan_gate",
    "results",
    "submit",
    "trajectory",
    "verify",
]

P = ParamSpec("P")
R = TypeVar("R")

# -------------------------------------------------------------------------------------------------------------- score


def submit(
    checkpoint: PathLike,
    *,
    base: PathLike | None = None,
    base_anyway: bool = False,
    suites: Sequence[PathLike] = (),
    method: str | None = None,
    name: str | None = None,
    step: int | None = None,
    seed: int | None = None,
    cost: Cost | None = None,
    rendering: TemplateSource | None = None,
    rerun: bool = False,
    merged: bool = False,
    quantised: Quantisation | None = None,
    shots: int | None = None,
    prompts: Sequence[PathLike] = (),
    policy: AnyPolicy | None = None,
    on_plan: Callable[[PowerReport], None] | None = None,
    workers: int | None = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_task_code: bool = False,
    db: AnyStore = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> RunsReport:
    """Score a checkpoint and its base on suites; results already in the store are reused.

    Args:
        checkpoint: Folder, training output folder (a trajectory), Hub id[@revision], or the label of a stored arm.
        base: Folder or Hub id of its base, if the checkpoint does not name it.
        base_anyway: Attach an adapter to this base even if it names another one.
        suites: Names or files; if empty, the suites that the base was scored on before.
        method, seed, cost: How it was trained ("full", "lora", "cpt", ...); None for what its files record.
        rendering: Whose chat template renders the prompts, if base and checkpoint have different ones.
        rerun: Score the base twice, to measure run-to-run noise (A/A).
        merged: Also score merged adapters, as separate arms.
        quantised: Quantise all weights, base included.
        shots: In-context learning: score the base on domain suites with this number of few-shot examples.
        prompts: Suite files whose prompts replace those of the domain suites of the same name, for the base.
        policy: Stop before scoring if this policy cannot pass.
        on_plan: Called with the power analysis of `policy` before anything is scored.
        workers: Ray workers; 0 scores in this process, None takes one per GPU or core.

    Returns:
        The runs, including failed ones; see `raise_for_failures()`.

    Raises:
        UsageError: The checkpoint, its base, a suite, the policy or the store cannot be used; nothing was stored.
        EvalsvcError: Scoring stopped; the same call resumes.
    """
    from evalsvc.checkpoints.discover import Description
    from evalsvc.gating.policy import read_policy
    from evalsvc.records.arms import Cost
    from evalsvc.reports.runs import RunsReport
    from evalsvc.scoring.submission import Source, Submission
    from evalsvc.scoring.submit import submit as run_submission

    check_choice("rendering", rendering, TemplateSource)
    check_choice("quantised", quantised, Quantisation)
    description = Description(method=method, name=name, step=step, seed=seed, cost=cost or Cost())
    submission = Submission(
        sources=(Source(os.fspath(checkpoint), description),),
        base=to_text(base),
        base_anyway=base_anyway,
        suites=to_texts(suites),
        compute=Compute(workers, device, dtype),
        allow_task_code=allow_task_code,
        rendering=rendering,
        merged=merged,
        quantisation=quantised,
        rerun=rerun,
        shots=shots,
        prompts=to_texts(prompts),
    )
    store = find_store(db)
    before = None if policy is None else partial(_check_power, store, read_policy(policy), on_plan)
    jobs = run_submission(store, submission, progress or ignore_progress, note or log_note, before)
    return RunsReport.of_jobs(store.runs(), jobs)


def _check_power(
    store: Store, policy: Policy, on_plan: Callable[[PowerReport], None] | None, prepared: Prepared
) -> None:
    """Report the power analysis of a policy on a submission.

    Raises:
        PolicyError: The policy cannot be met.
    """
    from evalsvc.gating.power_plan import plan_prepared
    from evalsvc.reports.power import PowerReport

    report = PowerReport(plan_prepared(store, policy, prepared))
    if on_plan:
        on_plan(report)


# ------------------------------------------------------------------------------------------------------------- read


def results(arm: str | None = None, suite: str | None = None, *, db: AnyStore = None) -> ResultsReport:
    """Return the scores of suites and tasks, as lm-eval aggregates them.

    Args:
        arm: Only this arm: label, name, path or digest.
        suite: Only this suite.

    Raises:
        UsageError: The store cannot be used, no arm or several match the name, or no run has this suite.
    """
    from evalsvc.analysis.stored import read_results
    from evalsvc.reports.results import ResultsReport

    return ResultsReport(tuple(read_results(find_store(db), arm, suite)), by_suite=not (arm or suite))


def compare(
    arm: str,
    base: str | None = None,
    *,
    other_prompts: bool = False,
    suites: Sequence[str] | None = None,
    db: AnyStore = None,
) -> ComparisonReport:
    """Compare an arm with its base, or another arm, item by item.

    Args:
        arm: The adapted arm: label, name, path or digest.
        base: The arm to compare it with, if not its own base.
        other_prompts: Pair by document if the two arms had different prompts.
        suites: Only these; None for all that both arms have.

    Raises:
        UsageError: The store cannot be used, no arm or several match a name, or a suite has no scores.
        EvidenceError: The two have no scores in common, or they cannot be compared.
    """
    from evalsvc.analysis.stored import compare_arms
    from evalsvc.reports.comparison import ComparisonReport

    return ComparisonReport(compare_arms(find_store(db), arm, base, other_prompts, suites))


def frontier(
    base: str | None = None,
    *,
    axes: str | Sequence[str] = ("learning", "forgetting"),
    at_learning: float | None = None,
    at_forgetting: float | None = None,
    suites: Sequence[str] | None = None,
    db: AnyStore = None,
) -> FrontierReport:
    """Compute learning and forgetting of every arm of a base, and find the arms that no other arm dominates.

    Args:
        base: Label, name, path or digest; not needed if the store has only one base.
        axes: Axes of dominance: learning, forgetting, and any fields of `Cost`; a list, or text with commas.
        at_learning, at_forgetting: Levels at which methods are compared; None for the highest that all methods reach,
            which for learning is in 95 % of the resamples.
        suites: Only these; for a role without one of them, or if None, those that most arms share.

    Raises:
        UsageError: The store cannot be used, an axis is unknown, or the store has several bases and `base` is None.
        EvidenceError: The store has no adapted arm, or too few scores.
    """
    from evalsvc.analysis.frontier import FrontierOptions, compare_methods, find_frontier
    from evalsvc.analysis.stored import load_positions
    from evalsvc.reports.frontier import FrontierReport
    from evalsvc.store.arms import find_family

    store = find_store(db)
    names = axes.split(",") if isinstance(axes, str) else axes
    options = FrontierOptions(tuple(name.strip() for name in names), at_learning, at_forgetting)
    plane = load_positions(store, find_family(store.arms(), base), suites)
    return FrontierReport(find_frontier(plane, options), compare_methods(plane, options))


def trajectory(
    name: str | None = None,
    *,
    margin: float = 0.02,
    suites: Sequence[str] | None = None,
    db: AnyStore = None,
    note: Note | None = None,
) -> TrajectoryReport:
    """Return training runs by step: curves, the first step above the margin, the best step below it.

    Args:
        name: A training run; None for all.
        margin: The largest tolerated forgetting.
        suites: Only these; None for the tasks that most steps share.

    Raises:
        UsageError: The store cannot be used, or has no training run of this name.
        EvidenceError: The store has no training run, or none with scores.
    """
    from evalsvc.analysis.training_runs import follow_runs
    from evalsvc.reports.trajectories import TrajectoryReport

    runs = follow_runs(find_store(db), name, margin, note=note or log_note, suites=suites)
    if not runs:
        raise EvidenceError("the store has no training run; submit a folder with checkpoint-* or step_* inside")
    return TrajectoryReport(tuple(runs))


# ------------------------------------------------------------------------------------------------------------ decide


def gate(
    checkpoint: PathLike,
    policy: AnyPolicy,
    *,
    base: PathLike | None = None,
    base_anyway: bool = False,
    evaluate: bool = False,
    suites: Sequence[PathLike] = (),
    rendering: TemplateSource | None = None,
    batch_size: int | None = None,
    half: Half | None = None,
    incumbent: PathLike | None = None,
    recipe: bool = False,
    workers: int | None = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_task_code: bool = False,
    db: AnyStore = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> GateReport:
    """Decide whether a checkpoint may be promoted, and store the decision.

    Args:
        checkpoint: The adapted arm: label, name, path or digest; with `evaluate` also a new folder or Hub id.
        policy: A YAML file, its content as a dict, or a `Policy`.
        base: The arm to compare it with, if not its own base.
        evaluate: Score missing items first, until the policy is decided.
        base_anyway, suites, rendering: With `evaluate`, as of `submit`; suites that are in the store need not be given.
        batch_size: Candidates on the same items, declared before the first: each has alpha / batch_size. The default
            is alpha * 6 / (pi k)^2 for the k-th.
        half: Use one seeded half of every task's items: select on one, confirm on the other.
        incumbent: The arm that is served now, for a policy with a rule about it.
        recipe: `checkpoint` is a shell pattern over training runs ("lora-*"): the verdict is about their mean.

    Returns:
        The decision: `verdict` is "pass", "fail" or "inconclusive".

    Raises:
        UsageError: The store, an arm's name or the policy cannot be used.
        EvidenceError: Evidence is missing or not comparable; nothing was decided.
    """
    from evalsvc.gating.decisions import decide
    from evalsvc.reports.decisions import GateReport

    check_choice("rendering", rendering, TemplateSource)
    question = _build_question(checkpoint, policy, base, batch_size, half, incumbent, recipe=recipe)
    store = find_store(db)
    if recipe and evaluate:
        raise UsageError(
            "--evaluate: scores one checkpoint; submit the runs of the recipe first, or leave out --recipe"
        )
    if not evaluate:
        return GateReport(decide(store, question))
    from evalsvc.gating.evaluate import build_submission
    from evalsvc.gating.evaluate import evaluate as score_and_decide

    compute = Compute(workers, device, dtype)
    submission = replace(
        build_submission(store, question, to_texts(suites), compute, allow_task_code),
        base_anyway=base_anyway,
        rendering=rendering,
    )
    return GateReport(score_and_decide(store, question, submission, progress or ignore_progress, note or log_note))


def _build_question(
    checkpoint: PathLike,
    policy: AnyPolicy,
    base: PathLike | None,
    batch_size: int | None,
    half: Half | None,
    incumbent: PathLike | None,
    *,
    recipe: bool = False,
) -> Question:
    from evalsvc.gating.decisions import Question
    from evalsvc.gating.policy import read_policy

    check_choice("half", half, Half)
    return Question(
        checkpoint=os.fspath(checkpoint),
        policy=read_policy(policy),
        base=to_text(base),
        batch_size=batch_size,
        half=half,
        incumbent=to_text(incumbent),
        is_recipe=recipe,
    )


def plan_gate(
    checkpoint: PathLike,
    policy: AnyPolicy,
    *,
    base: PathLike | None = None,
    suites: Sequence[PathLike] = (),
    batch_size: int | None = None,
    half: Half | None = None,
    incumbent: PathLike | None = None,
    db: AnyStore = None,
) -> PowerReport:
    """Return the power analysis of a policy for a checkpoint, and the requests to score.

    Args:
        checkpoint: An arm in the store, or a checkpoint that is not submitted yet.
        policy: A YAML file, its content as a dict, or a `Policy`.
        suites: Files of suites that are not in the store.
        batch_size, half, incumbent: As in `gate`.

    Raises:
        UsageError: A suite is not known, or the policy cannot be met.
    """
    from evalsvc.gating.power_plan import plan_power
    from evalsvc.reports.power import PowerReport

    question = _build_question(checkpoint, policy, base, batch_size, half, incumbent)
    return PowerReport(plan_power(find_store(db), question, to_texts(suites)))


def verify(decision: PathLike | Mapping[str, Any], *, db: AnyStore = None) -> VerifyReport:
    """Recompute a decision from the stored scores.

    Args:
        decision: A decision record's file, or its content.

    Raises:
        UsageError: The store cannot be used.
        EvidenceError: The file is not a decision record.
    """
    from evalsvc.gating.verify import check_record, find_differences, has_older_statistics, read_record
    from evalsvc.reports.decisions import VerifyReport

    record = check_record(decision) if isinstance(decision, Mapping) else read_record(Path(decision))
    differences = tuple(find_differences(find_store(db), record))
    return VerifyReport(record=record, differences=differences, only_evidence=has_older_statistics(record))


def advise(
    base: str | None = None,
    *,
    learning: Sequence[str] | None = None,
    retention: Sequence[str] | None = None,
    min_gain: float = 0.0,
    margin: float = 0.02,
    db: AnyStore = None,
) -> AdviceReport:
    """Find the cheapest arm of a base that learns and does not forget; stores no decision.

    Args:
        learning: Suites whose mean gain must exceed `min_gain`; None for all of role domain.
        retention: Suites whose mean loss must be below `margin`; None for all of role general.

    Raises:
        UsageError: The store cannot be used, or no arm can meet the criteria.
        EvidenceError: The store has no adapted arm.
    """
    from evalsvc.gating.advisor import Terms
    from evalsvc.gating.advisor import advise as judge_arms
    from evalsvc.reports.advice import AdviceReport
    from evalsvc.store.arms import find_family

    store = find_store(db)
    family = find_family(store.arms(), base)
    runs = [run for run in store.runs() if run.arm.number == family.base.number and run.state == "done"]
    roles = {run.suite: run.role for run in runs if run.part_of is None}

    def choose(suites: Sequence[str] | None, role: Role) -> tuple[str, ...]:
        return tuple(suite for suite in roles if roles[suite] == role) if suites is None else to_texts(suites)

    terms = Terms(
        learning=choose(learning, "domain"), retention=choose(retention, "general"), min_gain=min_gain, margin=margin
    )
    return AdviceReport(judge_arms(store, family, terms))


# ------------------------------------------------------------------------------------------------------------- stores


class _Method(Generic[P, R]):
    """A function of this module as a method of an open store, which becomes its `db`."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, store: OpenStore | None, owner: type[OpenStore]) -> Callable[P, R]:
        if store is None:
            return self.function
        bound = partial(cast("Callable[..., R]", self.function), db=store)
        return cast("Callable[P, R]", update_wrapper(bound, self.function))


class OpenStore(StoreHandle):
    """A store, with the functions of `evalsvc` as methods."""

    def __repr__(self) -> str:
        return f"evalsvc.open({str(self.store.path)!r})"

    submit = _Method(submit)
    results = _Method(results)
    compare = _Method(compare)
    frontier = _Method(frontier)
    trajectory = _Method(trajectory)
    gate = _Method(gate)
    plan_gate = _Method(plan_gate)
    verify = _Method(verify)
    advise = _Method(advise)
    import_lm_eval = _Method(import_lm_eval)
    import_items = _Method(import_items)


def open(db: PathLike | None = None) -> OpenStore:
    """Open a store; its file is created by the first `submit` or import.

    Raises:
        StoreError: The file is not a store, is newer than this evalsvc, or cannot be upgraded.
    """
    return OpenStore(find_store(db))
