"""Submit: checkpoints and suites in, finished runs in the store out. What is in the store already is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal, cast

from evalsvc.checkpoints import Description, open_checkpoints
from evalsvc.checkpoints.costs import first_known
from evalsvc.cluster import RayExecutor, cluster_gpus
from evalsvc.collapse import has_drift, why_no_drift
from evalsvc.dossiers import Dossiers
from evalsvc.driver import Driver, Job, Progress
from evalsvc.engine.shards import Cutter
from evalsvc.errors import CheckpointError, SuiteError, UsageError
from evalsvc.executors import Executor, InProcessExecutor, make_scorer
from evalsvc.harness import plan as planning
from evalsvc.harness import prompting
from evalsvc.harness import tasks as loading
from evalsvc.harness.plan import Planned, Render
from evalsvc.integrity import examine, examine_windows, refuse
from evalsvc.probe import probe
from evalsvc.records import PROMPTED, Arm, Checkpoint, Cost, Finding, Numerics, Quantisation, Rendering, Serving, digest
from evalsvc.settings import Compute, cache_dir
from evalsvc.store import Store
from evalsvc.suites import Suite, find_suite, load_suite


@dataclass(frozen=True, slots=True)
class Source:
    """A folder or hub id of a checkpoint or of a training run's output, and what the user says of it."""

    path: str
    said: Description = Description()


@dataclass(frozen=True, slots=True)
class Submission:
    """What a user submits.

    Attributes:
        sources: Checkpoints with one base in common.
        base: Folder or hub id of what they were adapted from, if they do not say so themselves.
        suites: Names or files; empty takes those that the base was scored on before.
        rendering: Whose chat template renders the prompts of all arms, or none; has to be chosen where the base's and
            an adapted checkpoint's differ.
        merged: Serve adapters merged as well, as arms of their own.
        quantisation: Serve everything on quantised weights, the base too, which is then the reference.
        rerun: Score the base once more, in other batches and with other seeds.
        shots: Ask the base's domain suites with so many worked examples, as an arm of its own (ICL).
        prompts: Files of suites that ask the documents of domain suites of the same name with other prompts, as an arm
            of its own (RAG, or ICL with chosen examples).
    """

    sources: tuple[Source, ...]
    base: str | None = None
    suites: tuple[str, ...] = ()
    compute: Compute = Compute()
    allow_task_code: bool = False
    rendering: Literal["base", "adapted", "plain"] | None = None
    merged: bool = False
    quantisation: Quantisation | None = None
    rerun: bool = False
    shots: int | None = None
    prompts: tuple[str, ...] = ()

    @property
    def is_prompted(self) -> bool:
        """Whether the base is to be asked with other prompts instead of being trained."""
        return self.shots is not None or bool(self.prompts)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A submission that is ready to be scored: the base's arm first, and every suite's requests.

    Attributes:
        asked: By a plan's digest, what an arm with other prompts is asked instead.
    """

    arms: tuple[Arm, ...]
    planned: tuple[Planned, ...]
    findings: tuple[Finding, ...]
    cutter: Cutter
    compute: Compute
    asked: Mapping[str, Planned] = field(default_factory=dict)

    def executor(self) -> Executor:
        """Return what scores it; it runs while it is entered as a context."""
        return make_executor(self.compute, self.arms[0].numerics.device)


def submit(
    store: Store,
    submission: Submission,
    progress: Progress,
    note: Callable[[str], None],
    before: Callable[[Prepared], None] | None = None,
) -> list[Job]:
    """Score a submission, its base included, and return its runs.

    Args:
        progress: Told how far scoring has come.
        note: Told in words what happens next.
        before: Shown what will be scored; may refuse it.

    Raises:
        UsageError: The checkpoint, its base, a suite or the store cannot be used; nothing was stored then.
        EvalsvcError: Scoring cannot go on; submitting again resumes.
    """
    prepared = prepare(store, submission, progress, note)
    if before:
        before(prepared)
    return score(store, prepared, progress, note)


def prepare(store: Store, submission: Submission, progress: Progress, note: Callable[[str], None]) -> Prepared:
    """Read and check a submission's checkpoints and plan its suites; computes and stores nothing.

    Raises:
        UsageError: The checkpoint, its base or a suite cannot be used, or a check speaks against it.
    """
    note("reading checkpoints")
    base, adapted = _checkpoints(submission, progress, note)
    note("checking checkpoints")
    findings = examine(base, adapted)
    refuse(findings)
    suites = _suites(store, submission, base)
    note(f"planning {len(suites)} suite{'s' if len(suites) > 1 else ''}")
    speaker = _speaker(submission, suites, base, adapted, findings)
    planned = [_plan(suite, speaker, submission.allow_task_code) for suite in suites]
    cutter = Cutter(cache_dir() / "tokens")
    findings += examine_windows([base, *adapted], [item.plan for item in planned], cutter)
    asked: dict[str, Planned] = {}
    if submission.is_prompted:
        prompted, asked = _prompted(submission, suites, planned, base, adapted, speaker)
        findings += examine_windows([prompted], [item.plan for item in asked.values()], cutter)
        adapted = [prompted]
    findings += [
        Finding("warning", "drift", checkpoint.label, why_no_drift(checkpoint, base))
        for checkpoint in adapted
        if not all(cutter.same_tokens(item.plan, checkpoint, base) for item in planned if has_drift(item.plan))
    ]
    for finding in findings:
        if finding.severity == "warning":
            note(f"warning: {finding.checkpoint}: {finding.text}")
    numerics = chosen_numerics(submission.compute)
    arms = tuple(_arms(base, adapted, numerics, submission))
    return Prepared(arms, tuple(planned), tuple(findings), cutter, submission.compute, asked)


def score(
    store: Store,
    prepared: Prepared,
    progress: Progress,
    note: Callable[[str], None],
    executor: Executor | None = None,
) -> list[Job]:
    """Score what the store does not have of a prepared submission, and return its runs.

    Args:
        executor: One that is running already, where several parts are scored one after another.

    Raises:
        CheckpointError: A new arm has no effect, or cannot be scored.
        EvalsvcError: Scoring cannot go on; doing it again resumes.
    """
    arms, findings = prepared.arms, list(prepared.findings)
    weights = [arm for arm in arms if not arm.checkpoint.is_prompted]
    unknown = store.silent(weights) if store.path.is_file() else weights
    with ExitStack() as stack:
        running = cache(lambda: executor or stack.enter_context(prepared.executor()))
        if unknown:
            findings += _probed(running(), unknown, weights, prepared.cutter, note)
        driver = Driver(store, arms, prepared.planned, prepared.cutter, prepared.asked)
        _keep(store, unknown, findings)
        driver.grade_ready()
        if driver.missing:
            note(f"scoring {driver.missing:,} requests for {len(arms)} arm{'s' if len(arms) > 1 else ''}")
            driver.run(running(), progress)
            for label, path in driver.paths.items():
                if path.startswith("plain"):
                    note(f"{label} was scored on the {path}")
    return driver.jobs


def _arms(base: Checkpoint, adapted: Sequence[Checkpoint], numerics: Numerics, submission: Submission) -> list[Arm]:
    """Return what is to be evaluated, every arm's reference among it: the quantised base for what is quantised."""
    quantised = Serving(quantisation=submission.quantisation)
    arms = [Arm(base, numerics), Arm(base, numerics, quantised)]
    for checkpoint in adapted:
        arms.append(Arm(checkpoint, numerics, quantised))
        if submission.merged and checkpoint.is_adapter:
            arms.append(Arm(checkpoint, numerics, replace(quantised, merged=True)))
    if submission.rerun:
        arms.append(Arm(base, replace(numerics, rerun=1), quantised))
    return list(dict.fromkeys(arms))


def _probed(
    executor: Executor, unknown: Sequence[Arm], arms: Sequence[Arm], cutter: Cutter, note: Callable[[str], None]
) -> list[Finding]:
    """Probe arms that have answered nothing yet, beside the bases that they are held against.

    Raises:
        CheckpointError: One of them has no effect, or cannot be scored.
    """
    note("probing what is new")
    findings = probe(executor, [arm for arm in arms if arm in unknown or arm.checkpoint.parent is None], cutter)
    refuse(findings)
    for finding in findings:
        note(f"{finding.severity}: {finding.checkpoint}: {finding.text}")
    return findings


def _keep(store: Store, arms: Sequence[Arm], findings: Sequence[Finding]) -> None:
    """Keep what was found in the checkpoints of new arms."""
    dossiers = Dossiers(store.path)
    for checkpoint in {arm.checkpoint.digest: arm.checkpoint for arm in arms}.values():
        labels = {checkpoint.label, *(arm.label for arm in arms if arm.checkpoint == checkpoint)}
        dossiers.keep_findings(checkpoint, [finding for finding in findings if finding.checkpoint in labels])


def _checkpoints(
    submission: Submission, progress: Progress, note: Callable[[str], None]
) -> tuple[Checkpoint, list[Checkpoint]]:
    """Return the base and all checkpoints, each once."""
    adapted: dict[str, Checkpoint] = {}
    bases: dict[str, Checkpoint] = {}
    for source in submission.sources:
        if source.said.method in PROMPTED and not submission.is_prompted:
            raise UsageError(f"--method {source.said.method}: nothing was trained; say --shots N or --prompts FILE")
        said = Description() if submission.is_prompted else source.said
        base, found = open_checkpoints(source.path, submission.base, said, progress=progress, note=note)
        bases[base.digest] = base
        adapted |= {checkpoint.digest: checkpoint for checkpoint in found}
    if len(bases) > 1:
        names = ", ".join(base.path for base in bases.values())
        raise CheckpointError(f"the checkpoints were adapted from {len(bases)} bases ({names}); submit them one by one")
    return next(iter(bases.values())), list(adapted.values())


def make_executor(compute: Compute, device: str) -> Executor:
    """Return the executor for these settings: Ray, unless zero workers are wanted."""
    if compute.workers == 0:
        return InProcessExecutor(partial(make_scorer, 1))
    if device == "cuda":
        return RayExecutor(partial(make_scorer, 1), workers=compute.workers, gpus=1)
    return RayExecutor(partial(make_scorer, 1), workers=compute.workers)


def chosen_numerics(compute: Compute) -> Numerics:
    """Return how numbers will be computed: on the cluster's GPUs if it has any, else on this machine's best device."""
    from evalsvc.engine.devices import chosen_device, chosen_dtype  # torch takes seconds to import

    device = "cuda" if compute.device == "auto" and cluster_gpus() else chosen_device(compute.device)
    return Numerics(
        device=device,
        dtype=chosen_dtype(compute.dtype, device),
        torch=_minor("torch"),
        transformers=_minor("transformers"),
    )


def _minor(package: str) -> str:
    return ".".join(version(package).split("+")[0].split(".")[:2])


def _suites(store: Store, submission: Submission, base: Checkpoint) -> list[Suite]:
    if submission.suites:
        suites = [find_suite(name) for name in submission.suites]
    else:
        paths = store.suite_paths(base.digest) if store.path.is_file() else []
        suites = [load_suite(Path(path)) for path in paths]
    if not suites:
        raise SuiteError(
            "no suite is given, and the base was never scored on one; add --suite (see `evalsvc suites list`)"
        )
    names = [suite.name for suite in suites]
    for name in names:
        if names.count(name) > 1:
            raise SuiteError(f"suite {name!r} is given {names.count(name)} times; give each once")
    return suites


# ------------------------------------------------------------------------------------------------------------ prompts


def _prompted(
    submission: Submission,
    suites: Sequence[Suite],
    planned: Sequence[Planned],
    base: Checkpoint,
    adapted: Sequence[Checkpoint],
    speaker: Checkpoint | None,
) -> tuple[Checkpoint, dict[str, Planned]]:
    """Return the base with other prompts as a checkpoint of its own, and what it is asked by the plan it stands for.

    Raises:
        UsageError: It is not the base that is submitted, or there is no domain suite to ask otherwise.
    """
    flag = "--prompts" if submission.prompts else f"--shots {submission.shots}"
    if submission.prompts and submission.shots is not None:
        raise UsageError(f"--shots {submission.shots}: cannot go with --prompts; give one of the two")
    if adapted:
        raise UsageError(f"{flag}: {adapted[0].label} is adapted; what is prompted instead of trained is its base")
    said = submission.sources[0].said
    method = said.method or ("rag" if submission.prompts else "icl")
    if method not in PROMPTED:
        raise UsageError(f"{flag}: --method {method} must be {' or '.join(PROMPTED)}, or left out")
    domain = {suite.name: (suite, plan) for suite, plan in zip(suites, planned, strict=True) if suite.role == "domain"}
    if submission.prompts:
        others = [find_suite(name) for name in submission.prompts]
    else:
        others = [prompting.with_shots(suite, cast(int, submission.shots)) for suite, _ in domain.values()]
    if not domain:
        raise UsageError(f"{flag}: none of the suites has role domain, and only these are asked otherwise; add --suite")
    asked, content = {}, []
    for other in others:
        if other.name not in domain:
            raise SuiteError(
                f"{flag}: {other.path}: its name {other.name!r} must be that of the domain suite whose documents it "
                f"asks: {', '.join(domain)}"
            )
        suite, plan = domain[other.name]
        whole = other.model_copy(update={"role": suite.role, "chat_template": suite.chat_template})
        found = _plan(whole, speaker, submission.allow_task_code)
        asked[plan.plan.digest] = prompting.same_documents(plan, found)
        content.append(found.loaded.digest)
    of = [base.digest, method, *(sorted(content) if submission.prompts else [str(submission.shots)])]
    name = said.name or f"{base.name}-{method if submission.prompts else f'{submission.shots}shot'}"
    nothing = Cost(gpu_hours=0.0, train_tokens=0, train_samples=0, trainable_share=0.0)
    made = replace(
        base,
        digest=f"sha256:{digest('prompted', *of)}{digest(*of)}",
        name=name,
        method=method,
        parent=base.digest,
        cost=first_known(said.cost, nothing),
    )
    return made, asked


# ---------------------------------------------------------------------------------------------------------- rendering


def _speaker(
    submission: Submission,
    suites: Sequence[Suite],
    base: Checkpoint,
    adapted: Sequence[Checkpoint],
    findings: Sequence[Finding],
) -> Checkpoint | None:
    """Return the checkpoint whose chat template renders the prompts of all arms; None for plain prompts.

    Raises:
        CheckpointError: The templates differ, and nobody chose; or several of the adapted ones could be meant.
    """
    differ = [finding for finding in findings if finding.check == "chat-template"]
    asked = any(suite.chat_template != "off" for suite in suites)
    if submission.rendering is None and differ and asked:
        raise CheckpointError(f"checkpoint {differ[0].checkpoint}: {differ[0].text}")
    if submission.rendering == "adapted":
        named = {finding.checkpoint for finding in differ}
        found = {checkpoint.tokenizer: checkpoint for checkpoint in adapted if checkpoint.label in named}
        if len(found) > 1:
            raise CheckpointError(
                f"--rendering adapted: {len(found)} adapted checkpoints have chat templates of their own; submit them "
                "one by one"
            )
        return next(iter(found.values()), base)
    return None if submission.rendering == "plain" else base


def _plan(suite: Suite, base: Checkpoint | None, allow_task_code: bool) -> Planned:
    """Plan a suite, rendered as one tokenizer renders: the same for every arm that is compared."""
    loaded = loading.load(suite, allow_task_code=allow_task_code)
    wanted = suite.chat_template
    if wanted == "off" or base is None or (wanted == "auto" and not has_chat_template(Path(base.path))):
        return planning.plan(loaded, Rendering(None, suite.system_prompt))
    template, render = _chat(base)
    if template is None:
        raise SuiteError(
            f"suite {suite.name}: wants a chat template, and {base.label} has none; set chat_template: off, "
            "or add chat_template.jinja to the base"
        )
    return planning.plan(loaded, Rendering(digest("template", template), suite.system_prompt), render)


def has_chat_template(folder: Path) -> bool:
    """Whether a checkpoint's files include a chat template."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))


def _chat(base: Checkpoint) -> tuple[str | None, Render]:
    from evalsvc.engine.encoding import load_tokenizer, render_chat  # transformers takes a second to import

    tokenizer = load_tokenizer(base)
    template = tokenizer.chat_template
    text = template if isinstance(template, str) or template is None else json.dumps(template, sort_keys=True)
    return text, partial(render_chat, tokenizer)
