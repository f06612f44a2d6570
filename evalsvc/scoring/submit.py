"""Prepares and scores a submission: checkpoints on suites. Results already in the store are reused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

from evalsvc.checkpoints.costs import check_costs
from evalsvc.checkpoints.discover import Description, locate, open_checkpoints
from evalsvc.engine.sharding import Cutter
from evalsvc.errors import CheckpointError, SuiteError, UsageError
from evalsvc.harness.plan import Planned
from evalsvc.harness.suites import Suite, find_suite, load_suite
from evalsvc.records.arms import DECLARED, Arm, Checkpoint, Finding, Numerics, Serving, why_no_drift
from evalsvc.records.methods import PROMPTED
from evalsvc.records.plans import has_drift
from evalsvc.scoring.driver import Driver, Progress, RunJob
from evalsvc.scoring.executors import Executor, InProcessExecutor, make_scorer
from evalsvc.scoring.preflight import examine_checkpoints, examine_generation, examine_windows, refuse_errors
from evalsvc.scoring.probe import run_probe
from evalsvc.scoring.prompted import plan_prompted
from evalsvc.scoring.ray_executor import RayExecutor, count_cluster_gpus
from evalsvc.scoring.rendering import choose_template_source, describe_renderings, plan_suite
from evalsvc.scoring.submission import Submission
from evalsvc.settings import Compute, cache_dir
from evalsvc.store.arms import StoredArm, find_arm, find_base_folder
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A submission that is ready to be scored: the base's arm first, and every suite's requests.

    Attributes:
        replacements: Plan digest -> the plan that arms with other prompts get instead.
    """

    arms: tuple[Arm, ...]
    planned: tuple[Planned, ...]
    findings: tuple[Finding, ...]
    cutter: Cutter
    compute: Compute
    replacements: Mapping[str, Planned] = field(default_factory=dict)

    def executor(self) -> Executor:
        """Return the executor for it, a context manager."""
        return make_executor(self.compute, self.arms[0].numerics.device)


def submit(
    store: Store,
    submission: Submission,
    progress: Progress,
    note: Callable[[str], None],
    before: Callable[[Prepared], None] | None = None,
) -> list[RunJob]:
    """Score a submission, its base included, and return its runs.

    Args:
        progress: Called with the number of requests scored so far and the number to score.
        note: Called with one line about each step.
        before: Called with the prepared submission; may raise to refuse it.

    Raises:
        UsageError: The checkpoint, its base, a suite or the store cannot be used; nothing was stored.
        EvalsvcError: Scoring stopped; submitting again resumes.
    """
    prepared = prepare(store, submission, progress, note)
    if before:
        before(prepared)
    return score(store, prepared, progress, note)


def prepare(store: Store, submission: Submission, progress: Progress, note: Callable[[str], None]) -> Prepared:
    """Read and check a submission's checkpoints and plan its suites; computes and stores nothing.

    Raises:
        UsageError: The checkpoint, its base or a suite cannot be used, or a check refuses it.
    """
    _check_numbers(submission)
    named = _find_named_suites(submission.suites)
    if submission.base:
        locate(submission.base)
    note("reading checkpoints")
    base, adapted = _open_all(store, submission, progress, note)
    if not adapted and submission.base is None and not submission.is_prompted:
        note(f"no --base is given: {base.label} is scored as a base, which is compared with nothing")
    note("checking checkpoints")
    findings = examine_checkpoints(base, adapted, _accept_bases(store, submission, adapted))
    refuse_errors(findings)
    suites = named or _find_stored_suites(store, base)
    note(f"planning {len(suites)} suite{'s' if len(suites) > 1 else ''}")
    template_source = choose_template_source(submission, suites, base, adapted, findings)
    planned = [plan_suite(suite, template_source, submission.allow_task_code) for suite in suites]
    for text in describe_renderings(planned, base, template_source):
        note(text)
    if not any(suite.chat_template == "on" for suite in suites):
        findings = [finding for finding in findings if finding.check != "chat-template"]
    for suite_plan in planned:
        for text in suite_plan.notes:
            note(f"warning: suite {suite_plan.plan.suite}: {text}")
    plans = [suite_plan.plan for suite_plan in planned]
    findings += examine_generation([base, *adapted], plans)
    refuse_errors(findings)
    cutter = Cutter(cache_dir() / "tokens")
    findings += examine_windows([base, *adapted], plans, cutter)
    replacements: dict[str, Planned] = {}
    if submission.is_prompted:
        prompted, replacements = plan_prompted(submission, suites, planned, base, adapted, template_source)
        findings += examine_windows([prompted], [suite_plan.plan for suite_plan in replacements.values()], cutter)
        adapted = [prompted]
    findings += [
        Finding("warning", "drift", checkpoint.label, why_no_drift(checkpoint, base))
        for checkpoint in adapted
        if not all(
            cutter.has_same_tokens(suite_plan.plan, checkpoint, base)
            for suite_plan in planned
            if has_drift(suite_plan.plan)
        )
    ]
    for finding in findings:
        if finding.severity == "warning":
            note(f"warning: {finding.checkpoint}: {finding.text}")
    numerics = choose_numerics(submission.compute)
    arms = tuple(_list_arms(base, adapted, numerics, submission))
    return Prepared(
        arms=arms,
        planned=tuple(planned),
        findings=tuple(findings),
        cutter=cutter,
        compute=submission.compute,
        replacements=replacements,
    )


def score(
    store: Store,
    prepared: Prepared,
    progress: Progress,
    note: Callable[[str], None],
    executor: Executor | None = None,
) -> list[RunJob]:
    """Score the requests of a prepared submission that have no stored responses, and return its runs.

    Args:
        executor: A running executor, to score several parts one after another.

    Raises:
        CheckpointError: A new arm equals its base to the last bit, or cannot be scored.
        EvalsvcError: Scoring stopped; scoring again resumes.
    """
    arms, findings = prepared.arms, list(prepared.findings)
    weights = [arm for arm in arms if not arm.checkpoint.is_prompted]
    unknown = store.find_unscored(weights) if store.path.is_file() else weights
    with ExitStack() as stack:
        running = cache(lambda: executor or stack.enter_context(prepared.executor()))
        if unknown:
            findings += _run_probe(running(), unknown, weights, prepared.cutter, note)
        driver = Driver(store, arms, prepared.planned, prepared.cutter, prepared.replacements)
        if unknown or driver.missing:
            _keep_findings(store, prepared, unknown, findings)
        driver.grade_ready()
        if driver.missing:
            note(f"scoring {driver.missing:,} requests for {len(arms)} arm{'s' if len(arms) > 1 else ''}")
            driver.run(running(), progress)
            for label, path in driver.paths.items():
                if path.startswith("plain"):
                    note(f"{label} was scored on the {path}")
        else:
            note("nothing to score: every answer is in the store")
    return driver.jobs


def _list_arms(
    base: Checkpoint, adapted: Sequence[Checkpoint], numerics: Numerics, submission: Submission
) -> list[Arm]:
    """Return the arms to evaluate, including every arm's reference: the quantised base for quantised arms."""
    quantised = Serving(quantisation=submission.quantisation)
    arms = [Arm(base, numerics), Arm(base, numerics, quantised)]
    for checkpoint in adapted:
        arms.append(Arm(checkpoint, numerics, quantised))
        if submission.merged and checkpoint.is_adapter:
            arms.append(Arm(checkpoint, numerics, replace(quantised, merged=True)))
    if submission.rerun:
        arms.append(Arm(base, replace(numerics, rerun=1), quantised))
    return list(dict.fromkeys(arms))


def _run_probe(
    executor: Executor, unknown: Sequence[Arm], arms: Sequence[Arm], cutter: Cutter, note: Callable[[str], None]
) -> list[Finding]:
    """Probe arms without responses, and the bases that they are compared with.

    Raises:
        CheckpointError: An arm equals its base to the last bit, or cannot be scored.
    """
    note("probing new arms")
    findings = run_probe(executor, [arm for arm in arms if arm in unknown or arm.checkpoint.parent is None], cutter)
    refuse_errors(findings)
    for finding in findings:
        note(f"{finding.severity}: {finding.checkpoint}: {finding.text}")
    return findings


def _keep_findings(store: Store, prepared: Prepared, unknown: Sequence[Arm], findings: Sequence[Finding]) -> None:
    """Keep the findings about new checkpoints, and those about this submission's suites for all of its checkpoints."""
    facts = CheckpointFacts(store.path)
    suites = [suite_plan.plan.suite for suite_plan in prepared.planned]
    new = {arm.checkpoint.digest for arm in unknown}
    for checkpoint in {arm.checkpoint.digest: arm.checkpoint for arm in prepared.arms}.values():
        labels = {checkpoint.label, *(arm.label for arm in prepared.arms if arm.checkpoint == checkpoint)}
        current = [finding for finding in findings if finding.checkpoint in labels]
        known = facts.findings(checkpoint)
        if checkpoint.digest not in new:  # it is not probed again
            earlier = [finding for finding in known if finding.suite is None]
            current = [*earlier, *(finding for finding in current if finding.suite is not None)]
        if current or any(finding.suite is None or finding.suite in suites for finding in known):
            facts.keep_findings(checkpoint, current, suites)


def _check_numbers(submission: Submission) -> None:
    """Check what a user declares in numbers.

    Raises:
        UsageError: A number is out of its range.
    """
    ranges = [("workers", submission.compute.workers, 0), ("shots", submission.shots, 1)]
    for source in submission.sources:
        ranges.append(("step", source.description.step, 0))
        ranges.append(("seed", source.description.seed, 0))
        cost = source.description.cost
        if cost.tokens_per_query is not None:
            raise UsageError("cost: tokens_per_query is measured, it cannot be declared; leave it out")
        check_costs({name: getattr(cost, name) for name in DECLARED if getattr(cost, name) is not None}, "cost")
    for name, value, least in ranges:
        if value is not None and value < least:
            raise UsageError(f"{name} {value}: must be at least {least}")


def _open_all(
    store: Store, submission: Submission, progress: Progress, note: Callable[[str], None]
) -> tuple[Checkpoint, list[Checkpoint]]:
    """Return the base and all checkpoints, each once."""
    arms = store.arms() if store.path.is_file() else []
    adapted: dict[str, Checkpoint] = {}
    bases: dict[str, Checkpoint] = {}
    for source in submission.sources:
        if source.description.method in PROMPTED and not submission.is_prompted:
            raise UsageError(
                f"--method {source.description.method}: is not a training method; give --shots N or --prompts FILE"
            )
        description = Description() if submission.is_prompted else source.description
        path, base_path = _find_folders(arms, source.path, submission.base)
        base, checkpoints = open_checkpoints(path, base_path, description, progress=progress, note=note)
        _warn_of_ignored(arms, description, checkpoints or [base], note)
        bases[base.digest] = base
        adapted |= {checkpoint.digest: checkpoint for checkpoint in checkpoints}
    if len(bases) > 1:
        names = ", ".join(base.path for base in bases.values())
        raise CheckpointError(
            f"the checkpoints have {len(bases)} bases ({names}), must have one; submit them one by one"
        )
    return next(iter(bases.values())), list(adapted.values())


def _accept_bases(store: Store, submission: Submission, adapted: Sequence[Checkpoint]) -> set[str]:
    """Return the digests of checkpoints whose base is taken as given: those that the user says, or that are stored."""
    if submission.base_anyway:
        return {checkpoint.digest for checkpoint in adapted}
    return {arm.checkpoint.digest for arm in store.arms()} if store.path.is_file() else set()


def _find_folders(arms: Sequence[StoredArm], source: str, base: str | None) -> tuple[str, str | None]:
    """Return where a checkpoint and its base are: paths or Hub ids as given, those of a stored arm for its label.

    Raises:
        UsageError: Several arms have that label, or it is the base with other prompts.
    """
    if Path(source).expanduser().exists() or source not in {arm.checkpoint.label for arm in arms}:
        return source, base
    checkpoint = find_arm(arms, source).checkpoint
    if checkpoint.is_prompted:
        raise UsageError(f"{source}: is its base with other prompts; submit the base with --shots or --prompts")
    return checkpoint.path, base or find_base_folder(arms, checkpoint)


def _warn_of_ignored(
    arms: Sequence[StoredArm],
    description: Description,
    checkpoints: Sequence[Checkpoint],
    note: Callable[[str], None],
) -> None:
    """Say where a description of a checkpoint that is already stored under another one changes nothing."""
    stored = {arm.checkpoint.digest: arm.checkpoint for arm in arms if not arm.checkpoint.is_prompted}
    for checkpoint in checkpoints:
        known = stored.get(checkpoint.digest)
        if known is None:
            continue
        ignored = [
            f"--{name} {value}"
            for name in ("name", "method", "step")
            if (value := getattr(description, name)) is not None and value != getattr(known, name)
        ]
        if ignored:
            note(
                f"warning: this checkpoint is stored as {known.label} (method {known.method}), which stays: "
                f"{' and '.join(ignored)} changed nothing"
            )


def make_executor(compute: Compute, device: str) -> Executor:
    """Return the executor for these settings: Ray, or this process with zero workers."""
    if compute.workers == 0:
        return InProcessExecutor(partial(make_scorer, 1))
    if device == "cuda":
        return RayExecutor(partial(make_scorer, 1), workers=compute.workers, gpus=1)
    return RayExecutor(partial(make_scorer, 1), workers=compute.workers)


def choose_numerics(compute: Compute) -> Numerics:
    """Return how numbers will be computed: on the cluster's GPUs if it has any, else on this machine's best device."""
    from evalsvc.engine.devices import choose_device, choose_dtype  # torch takes seconds to import

    device = "cuda" if compute.device == "auto" and count_cluster_gpus() else choose_device(compute.device)
    return Numerics(
        device=device,
        dtype=choose_dtype(compute.dtype, device),
        torch=_minor("torch"),
        transformers=_minor("transformers"),
    )


def _minor(package: str) -> str:
    return ".".join(version(package).split("+")[0].split(".")[:2])


def _find_named_suites(names: Sequence[str]) -> list[Suite]:
    """Return the suites that a submission names.

    Raises:
        SuiteError: One is not found, or two have the same name.
    """
    suites = [find_suite(name) for name in names]
    known = [suite.name for suite in suites]
    for name in known:
        if known.count(name) > 1:
            raise SuiteError(f"suite {name!r} is given {known.count(name)} times; give each once")
    return suites


def _find_stored_suites(store: Store, base: Checkpoint) -> list[Suite]:
    """Return the suites that a base was scored on before.

    Raises:
        SuiteError: There are none.
    """
    suites = [load_suite(Path(path)) for path in store.suite_paths(base.digest)] if store.path.is_file() else []
    if not suites:
        raise SuiteError(
            "no suite is given, and the base has not been scored on any; add --suite (see `evalsvc suites list`)"
        )
    return suites
