"""What every `--json` prints, as records: their fields, types and meaning become the JSON schemas of the docs.

Records of the package stand for themselves; what a command puts around them is described here. A test holds the real
output of each command to its schema.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_type_hints

from pydantic import TypeAdapter
from pydantic_core import core_schema

from evalsvc.analysis.claims import DecidedClaim
from evalsvc.analysis.diversity_and_drift import TaskDiversity, TaskDrift
from evalsvc.analysis.trajectory import Trajectory
from evalsvc.gating.candidates import Candidate
from evalsvc.gating.evidence import RecipeRun
from evalsvc.gating.power import RuleForecast
from evalsvc.gating.rules import RuleKind
from evalsvc.gating.verdict import InterimLook, RuleOutcome
from evalsvc.harness.suites import Suite
from evalsvc.records.arms import DECLARED, Cost, Finding
from evalsvc.records.comparisons import FullComparison, ItemGains, Missing, ResampledGains, RoleTotal
from evalsvc.records.frontier import LevelComparison, MethodFrontier, Point
from evalsvc.records.vocabulary import Role, State
from evalsvc.records.weight_changes import GroupChange, TensorChange
from evalsvc.stats.continual import Continual
from evalsvc.stats.ratios import PairedValues

ARM = {
    "arm": "Label: name, step, and how it is served.",
    "checkpoint": "Folder with the weights.",
    "digest": "sha256 of the checkpoint's content.",
    "method": "How it was adapted: base, full, lora, cpt, ...",
    "step": "Training step, if it belongs to a training run.",
    "suite": "Name of the suite.",
    "role": "Role of the suite.",
    "task": "Name of the task.",
}
"""Fields that mean the same in every output."""


@dataclass(frozen=True, kw_only=True)
class ArmFields:
    """A checkpoint as every output names it."""

    arm: str
    checkpoint: str
    digest: str
    method: str
    step: int | None


@dataclass(frozen=True, kw_only=True)
class RunRow(ArmFields):
    """One arm on one suite.

    Attributes:
        run: Number in the store.
        requests: Requests of the run.
        answered, failed: How many of them have an answer, or failed.
        error: Why the run failed.
        part_of: Digest of the whole plan, where a sequential gate has asked a part of it.
        driver_alive: Whether the process that drives the run is alive.
        updated: Time of the last change, ISO 8601.
    """

    run: int
    suite: str
    role: Role
    state: State
    requests: int
    answered: int
    failed: int
    error: str | None
    part_of: str | None
    driver_alive: bool
    updated: str


@dataclass(frozen=True, kw_only=True)
class SubmittedRow(RunRow):
    """One arm on one suite, as submit leaves it.

    Attributes:
        reused: Responses that the store already had.
    """

    reused: int


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The runs that a submission made or found finished."""

    schema: Literal[1]
    runs: tuple[SubmittedRow, ...]


@dataclass(frozen=True, kw_only=True)
class Status:
    """All runs of the store."""

    schema: Literal[1]
    runs: tuple[RunRow, ...]


@dataclass(frozen=True, kw_only=True)
class ScoreRow(ArmFields):
    """One metric of one task of an arm, as lm-eval aggregates it.

    Attributes:
        filter: lm-eval's filter; "none" without one.
        n: Items.
        stderr: lm-eval's standard error.
        primary: Whether comparisons use this metric.
        group: Whether the task is a group of tasks.
    """

    suite: str
    role: Role
    task: str
    metric: str
    filter: str
    n: int
    value: float
    stderr: float | None
    primary: bool
    group: bool


@dataclass(frozen=True, kw_only=True)
class Results:
    """Scores of all arms, or of one arm or suite."""

    schema: Literal[1]
    scores: tuple[ScoreRow, ...]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One arm against its base. Differences are adapted - base in the metric's unit; totals count better as positive.

    Attributes:
        base, adapted: Labels of the two arms.
        base_digest, adapted_digest: Digests of their checkpoints.
        tasks: One entry per task that both arms have.
        roles: Means over the suites of a role.
        missing: What either arm lacks of the other's suites and tasks.
        warnings: Findings about the compared suites, such as truncated prompts.
    """

    schema: Literal[1]
    base: str
    base_digest: str
    adapted: str
    adapted_digest: str
    tasks: tuple[FullComparison, ...]
    roles: tuple[RoleTotal, ...]
    missing: tuple[Missing, ...]
    warnings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Hypervolume:
    """Volume that the frontier dominates.

    Attributes:
        value: In the product of the axes' units.
        reference: The reference point of the hypervolume, one value per axis.
    """

    value: float
    reference: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class FrontierOutput:
    """Learning against forgetting for all arms of a base.

    Attributes:
        base: Label of the base.
        axes: The axes that dominance is about.
        points: One entry per arm, the base included.
        methods: The frontier of each method alone.
        equal_learning: Forgetting of every method at the same learning; null without a learning that all reach.
        equal_forgetting: Learning of every method at the same forgetting.
        learning_unit, forgetting_unit: "score", or a metric's name.
        suites: The suites of learning and of forgetting.
        unshared: Suites of the base that are not on the axes, because most arms do not share them.
        left_out: Tasks in another unit than their axis, or whose metric is not a mean over items.
        incomplete: Arms that are not placed.
        missing: The same arms, with the suites of the axes and the costs that they lack.
    """

    schema: Literal[1]
    base: str
    axes: tuple[str, ...]
    points: tuple[Point, ...]
    methods: tuple[MethodFrontier, ...]
    equal_learning: LevelComparison | None
    equal_forgetting: LevelComparison | None
    hypervolume: Hypervolume
    learning_unit: str
    forgetting_unit: str
    suites: tuple[str, ...]
    unshared: tuple[str, ...]
    left_out: tuple[str, ...]
    incomplete: tuple[str, ...]
    missing: tuple[Missing, ...]


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Training runs, step by step."""

    schema: Literal[1]
    trajectories: tuple[Trajectory, ...]


@dataclass(frozen=True, kw_only=True)
class DiversityOutput:
    """Sampled answers of an arm compared with its base's.

    Attributes:
        tasks: One entry per task with sampled answers.
    """

    schema: Literal[1]
    arm: str
    tasks: tuple[TaskDiversity, ...]


@dataclass(frozen=True, kw_only=True)
class DriftRow:
    """How far one arm moved from its base.

    Attributes:
        forgetting: Its mean loss on general suites, if known.
        tasks: KL per token, task by task.
        refusal: Why no drift is known.
    """

    arm: str
    digest: str
    forgetting: float | None
    tasks: tuple[TaskDrift, ...]
    refusal: str | None


@dataclass(frozen=True, kw_only=True)
class DriftOutput:
    """Drift of all arms of a base, and whether it predicts forgetting."""

    schema: Literal[1]
    arms: tuple[DriftRow, ...]
    claim: DecidedClaim


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Common claims about adaptation, decided on the stored arms."""

    schema: Literal[1]
    claims: tuple[DecidedClaim, ...]


@dataclass(frozen=True, kw_only=True)
class MatrixFigure:
    """The mean of one figure over a method's runs.

    Attributes:
        figure: "acc", "bwt" or "forgetting".
        runs: Imported matrices of this method.
        low, high: Student's t over runs; null with one run.
        divisor: What the figure was divided by, in words.
    """

    method: str
    figure: str
    runs: int
    mean: float
    low: float | None
    high: float | None
    divisor: str


@dataclass(frozen=True, kw_only=True)
class MatrixRow(Continual):
    """The figures of one imported matrix of T tasks; null where the matrix lacks what a figure needs.

    Attributes:
        tasks: T.
        seed: Seed of the run, if its file has one.
    """

    name: str
    method: str
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class ContinualOutput:
    """Imported matrices as the continual-learning family.

    Attributes:
        runs: One entry per matrix.
        methods: Means over the runs of a method.
    """

    schema: Literal[1]
    runs: tuple[MatrixRow, ...]
    methods: tuple[MatrixFigure, ...]


@dataclass(frozen=True, kw_only=True)
class GateRule(RuleOutcome):
    """The outcome of one rule.

    Attributes:
        short: What an inconclusive rule needs, in words.
    """

    short: str | None


@dataclass(frozen=True, kw_only=True)
class KeptRule(RuleOutcome):
    """A rule in a decision record.

    Attributes:
        kind, suite, task, threshold: Not in records of version 0.1.0; `rule` and `margin` say the same.
        units, unit_of_evidence: Not in records of version 0.1.0, which took every item for a unit.
        blind_spots, is_blind: Not in records of version 0.1.0.
        run_gains, needed_runs: Not in records of version 0.1.0, which knew no recipes.
    """

    kind: RuleKind | None = None  # type: ignore[assignment]
    suite: str | None = None
    task: str | None = None
    threshold: float | None = None  # type: ignore[assignment]
    units: int | None = None  # type: ignore[assignment]
    unit_of_evidence: str | None = None  # type: ignore[assignment]
    blind_spots: tuple[str, ...] = ()
    is_blind: bool = False
    run_gains: tuple[float, ...] = ()
    needed_runs: int | None = None


@dataclass(frozen=True, kw_only=True)
class WaiverState:
    """A waiver of the policy, and its effect.

    Attributes:
        waiver: As in the policy.
        state: "applied", or the reason why it has no effect.
    """

    waiver: Any
    state: str


@dataclass(frozen=True, kw_only=True)
class LostItemRow:
    """An item that the base got right and the checkpoint does not.

    Attributes:
        doc: The document's longest text, shortened.
        target: The right answer.
        base, adapted: Scores of the two arms.
    """

    suite: str
    task: str
    doc: str
    target: str
    base: float
    adapted: float


@dataclass(frozen=True, kw_only=True)
class KeptDecision:
    """Where the decision is stored.

    Attributes:
        digest: Of the record.
        previous: Digest of the decision before it, of the same base.
        path: The file that `evalsvc verify` takes.
    """

    digest: str
    previous: str | None
    path: str


@dataclass(frozen=True, kw_only=True)
class GateOutput:
    """A decision of the gate.

    Attributes:
        exit_code: 0 pass, 3 fail, 4 inconclusive.
        degraded: Whether some rule's loss is real, even if it is within its margin.
        base, checkpoint: Labels of the two arms; with --recipe, the checkpoint is the name of the recipe.
        base_digest, digest: Digests of their checkpoints.
        runs: With --recipe, its training runs; else empty.
        policy: Digest of the policy.
        incumbent: Label of the arm that is served now, if the policy has a rule about it.
        looks: Interim looks of the sequential modes.
        items_saved: Items that did not have to be asked.
        half: Which half of the items was used, with --half.
        lost_items: The worst lost items.
    """

    schema: Literal[1]
    verdict: Literal["pass", "fail", "inconclusive"]
    exit_code: int
    degraded: bool
    base: str
    base_digest: str
    checkpoint: str
    digest: str
    incumbent: str | None
    runs: tuple[RecipeRun, ...]
    policy: str
    mode: str
    alpha: float
    rules: tuple[GateRule, ...]
    looks: tuple[InterimLook, ...]
    items_saved: int
    waivers: tuple[WaiverState, ...]
    candidate: Candidate
    half: Literal["select", "confirm"] | None
    lost_items: tuple[LostItemRow, ...]
    warnings: tuple[str, ...]
    decision: KeptDecision


@dataclass(frozen=True, kw_only=True)
class PlanOutput:
    """What a policy can resolve, before anything is scored.

    Attributes:
        power: Chance that an unchanged checkpoint meets all retention rules, were they independent; null without one.
        requests: Requests that are still to be scored.
        seconds: Estimated time; null without a run that took long enough to measure.
        alpha: Level of the policy.
        candidate: Which candidate on its evidence the checkpoint will be.
        notes: The rules without a power analysis, one line each.
    """

    schema: Literal[1]
    rules: tuple[RuleForecast, ...]
    power: float | None
    alpha: float
    candidate: Candidate
    requests: int
    seconds: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DecidedArm:
    """An arm in a decision record.

    Attributes:
        key: Digest of checkpoint, numerics and serving.
    """

    arm: str
    digest: str
    key: str


@dataclass(frozen=True, kw_only=True)
class DecisionRecord:
    """A stored decision: the file in `<store>.decisions/`, and the same in the store.

    Attributes:
        statistics: Version of the way that bounds and p-values are computed; records before 0.2.0
            have none, which is 1.
        decided: Time, ISO 8601.
        numerics: Device, dtype and library versions of the scores.
        policy: Digest and content of the policy.
        suites: Suites with the digests of what they asked.
        sampled: Suites of sampled answers behind a diversity rule.
        packages: Versions of the packages that decided.
        seeds: Seed of the random order of items.
        fraction: Share of the items that had been asked.
        items: Items of the whole tasks, where a part was asked.
        inputs: The input of every test: each task's comparison with digests of both arms' scores.
        incumbent: The arm that is served now, if the policy has a rule about it; not in records before 0.2.0.
        incumbent_inputs: The same with the incumbent in the place of the base.
        ratios: The input of diversity rules.
        runs: Training runs of a recipe, whose mean was decided; only in recipe decisions.
        candidate: Which candidate on its evidence the checkpoint is; records before 0.2.0 have none.
        digest: sha256 of the record without this field.
        previous: Digest of the decision before it, of the same base.
    """

    schema: Literal[1]
    kind: Literal["evalsvc decision", "evalsvc recipe decision"]
    statistics: int
    decided: str
    base: DecidedArm
    checkpoint: DecidedArm
    incumbent: DecidedArm | None
    numerics: dict[str, Any]
    policy: dict[str, Any]
    suites: tuple[dict[str, Any], ...]
    sampled: tuple[Any, ...]
    packages: dict[str, str]
    seeds: dict[str, int]
    half: str | None
    fraction: float
    items: tuple[Any, ...]
    inputs: tuple[dict[str, Any], ...]
    incumbent_inputs: tuple[dict[str, Any], ...]
    ratios: tuple[dict[str, Any], ...]
    runs: tuple[RecipeRun, ...]
    rules: tuple[KeptRule, ...]
    waivers: tuple[WaiverState, ...]
    looks: tuple[InterimLook, ...]
    verdict: Literal["pass", "fail", "inconclusive"]
    exit_code: int
    degraded: bool
    candidate: Candidate
    digest: str
    previous: str | None


@dataclass(frozen=True, kw_only=True)
class VerifyOutput:
    """Whether a decision still follows from the stored scores.

    Attributes:
        decision: Digest of the record.
        only_evidence: Whether only suites, items and scores were compared, because the record's bounds were computed in
            another way.
        differences: What differs, one line each.
    """

    schema: Literal[1]
    decision: str | None
    equal: bool
    only_evidence: bool
    differences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckpointRow(ArmFields):
    """A checkpoint of the store.

    Attributes:
        parent: Digest of the base that it was adapted from.
        seed: Seed of the training run; null is not known.
        cost: What it cost; null is not known.
    """

    parent: str | None
    seed: int | None
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class CheckpointList:
    """All checkpoints of the store."""

    schema: Literal[1]
    checkpoints: tuple[CheckpointRow, ...]


@dataclass(frozen=True, kw_only=True)
class ChangeOutput:
    """What adapting changed in the weights.

    Attributes:
        parameters: Of the base.
        trainable: Parameters that training could change.
        tolerance: When a weight counts as changed, in words.
        groups: By kind of layer.
        tensors: Tensor by tensor.
    """

    parameters: int
    trainable: int
    tolerance: str
    groups: tuple[GroupChange, ...]
    tensors: tuple[TensorChange, ...]


@dataclass(frozen=True, kw_only=True)
class MemoryOutput:
    """Estimated memory of training in GB (1e9 bytes), without activations.

    Attributes:
        full: Full fine-tuning with Adam in mixed precision.
        adapter: This adapter on a 16-bit base; null for a checkpoint that is no adapter.
        adapter_4bit: This adapter on a 4-bit base; null for a checkpoint that is no adapter.
    """

    model_states_only: Literal[True]
    full: float
    adapter: float | None
    adapter_4bit: float | None


@dataclass(frozen=True, kw_only=True)
class CheckpointOutput(CheckpointRow):
    """One checkpoint: what it is, what it cost, what adapting changed.

    Attributes:
        tokenizer: Digest of tokenizer and chat template.
        parent: Digest of the base that it was adapted from.
        seed: Seed of the training run; null is not known.
        cost: What it cost; null is not known.
    """

    schema: Literal[1]
    tokenizer: str
    change: ChangeOutput | None
    training_memory_gb: MemoryOutput | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class CheckOutput:
    """What a checkpoint's files say before anything is scored.

    Attributes:
        checkpoints: The checkpoints that were checked.
        findings: Errors refuse the checkpoint; warnings and notes do not.
    """

    schema: Literal[1]
    checkpoints: tuple[ArmFields, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class SuiteList:
    """The shipped suites."""

    schema: Literal[1]
    suites: tuple[Suite, ...]


@dataclass(frozen=True, kw_only=True)
class SuiteOutput:
    """One suite.

    Attributes:
        path: The suite's file.
    """

    schema: Literal[1]
    suite: Suite
    path: str


@dataclass(frozen=True, kw_only=True)
class SuiteCheckRow:
    """A task that loads, with golds in range and metric and filter known.

    Attributes:
        kind: lm-eval's output type.
        n: Items.
        units: Effective number of independent units: documents, or the clusters that the suite declares.
        rule: What a policy may demand of it: margin, drift or diversity; null for other metrics.
        shots: Worked examples in the prompt.
        runs_code: Whether the task runs Python code of its own.
        margin: The smallest loss that so many units can exclude in 80 % of cases, if 10 % of them change.
    """

    task: str
    kind: str
    n: int
    units: int
    shots: int
    metric: str
    filter: str
    runs_code: bool
    rule: Literal["margin", "drift", "diversity"] | None
    margin: float | None


@dataclass(frozen=True, kw_only=True)
class DoctorRow:
    """One check of the machine.

    Attributes:
        what: What was checked.
        found: The result, in words.
    """

    what: str
    state: Literal["ok", "note", "bad"]
    found: str


@dataclass(frozen=True, kw_only=True)
class SuiteCheck:
    """The tasks of a suite, loaded and checked.

    Attributes:
        notes: What the suite's author should know, one line each.
    """

    schema: Literal[1]
    tasks: tuple[SuiteCheckRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImportedRow:
    """One imported arm.

    Attributes:
        tasks: Number of tasks.
        items: Number of items that can be paired; 0 without samples.
        notes: What was left out, and why.
    """

    arm: str
    digest: str
    suite: str
    tasks: int
    items: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImportOutput:
    """The imported arms."""

    schema: Literal[1]
    imported: tuple[ImportedRow, ...]


@dataclass(frozen=True, kw_only=True)
class ImportedMatrix:
    """One imported matrix.

    Attributes:
        tasks: In the order in which they were learned.
    """

    name: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImportMatrixOutput:
    """The imported matrices."""

    schema: Literal[1]
    matrices: tuple[ImportedMatrix, ...]


@dataclass(frozen=True, kw_only=True)
class DoctorOutput:
    """What works on this machine."""

    schema: Literal[1]
    findings: tuple[DoctorRow, ...]


class _CardText:
    """What training cost: `evalsvc.json` beside a checkpoint. All fields may be left out.

    Attributes:
        cpu_hours: CPU time of training without a GPU, all processes added up.
        train_tokens: Tokens seen in training, repetitions counted.
        method: How the checkpoint was adapted: full, lora, cpt, ...
        seed: Seed of the training run.
    """


_COST_TYPES = get_type_hints(Cost)
CostCard: Any = make_dataclass(
    "CostCard",
    [
        *((name, _COST_TYPES[name], field(default=None)) for name in DECLARED),
        ("method", str | None, field(default=None)),
        ("seed", int | None, field(default=None)),
    ],
    namespace={"__doc__": _CardText.__doc__},
)


OUTPUTS: dict[str, Any] = {
    "submit": Submitted,
    "status": Status,
    "results": Results,
    "compare": Compared,
    "frontier": FrontierOutput,
    "trajectory": Trajectories,
    "diversity": DiversityOutput,
    "drift": DriftOutput,
    "claims": Claims,
    "continual": ContinualOutput,
    "gate": GateOutput,
    "gate-plan": PlanOutput,
    "decision": DecisionRecord,
    "verify": VerifyOutput,
    "checkpoints-list": CheckpointList,
    "checkpoints-show": CheckpointOutput,
    "checkpoints-compare": CheckpointOutput,
    "checkpoints-check": CheckOutput,
    "suites-list": SuiteList,
    "suites-show": SuiteOutput,
    "suites-check": SuiteCheck,
    "import": ImportOutput,
    "import-matrix": ImportMatrixOutput,
    "doctor": DoctorOutput,
}
COMMANDS = {name: f"evalsvc {name.replace('-', ' ')} --json" for name in OUTPUTS} | {
    "gate-plan": "evalsvc gate --plan --json",
    "import": "evalsvc import lm-eval --json and evalsvc import items --json",
    "decision": "a stored decision",
}
"""What prints each of them."""


def attributes(record: type) -> dict[str, str]:
    """Return the meaning of a record's fields in JSON, from its docstring and those of its bases."""
    meanings: dict[str, str] = {}
    for cls in reversed(record.__mro__):
        doc = inspect.cleandoc(cls.__doc__ or "")
        _, _, section = f"\n{doc}\n".partition("\nAttributes:\n")
        entries = re.split(r"\n(?=    \w)", "\n" + section.split("\n\n")[0].rstrip())[1:] if section else []
        for entry in entries:
            names, _, text = " ".join(entry.split()).partition(": ")
            meaning = re.sub(r"\bNone\b", "null", text[:1].upper() + text[1:])
            meanings |= dict.fromkeys(names.split(", "), meaning)
    return meanings


# What a record was computed from is not written, and pydantic knows no arrays.
for internal_record in (ItemGains, PairedValues, ResampledGains):
    setattr(internal_record, "__get_pydantic_core_schema__", classmethod(lambda *_: core_schema.any_schema()))  # noqa: B010


_ADDED = {
    KeptRule: tuple(KeptRule.__annotations__),
    DecisionRecord: ("candidate", "statistics", "incumbent", "incumbent_inputs", "runs"),
}
"""Fields that records of 0.1.0, or of one checkpoint, do not have."""


@cache
def schema_of(record: Any) -> dict[str, Any]:
    """Return a record's JSON schema, with the meaning of its fields; cost cards and old decisions leave some out."""
    known = {cls.__name__: cls for cls in _records(record)}
    schema = TypeAdapter(record).json_schema(ref_template="#/$defs/{model}")
    for name, part in [(record.__name__, schema), *schema.get("$defs", {}).items()]:
        if part.get("type") != "object" or name not in known:
            continue
        part["description"] = inspect.cleandoc(known[name].__doc__ or "").split("\n\n")[0].replace("\n", " ")
        meanings = ARM | attributes(Cost if record is CostCard else known[name]) | attributes(known[name])
        for internal in [entry.name for entry in fields(known[name]) if "internal" in entry.metadata]:
            del part["properties"][internal]
        for key, entry in part["properties"].items():
            entry.pop("title", None)
            entry.pop("default", None)
            if key in meanings:
                entry["description"] = meanings[key]
        part.pop("title", None)
        if record is not CostCard:
            left_out = _ADDED.get(known[name], ())
            part["required"] = [key for key in part["properties"] if key not in left_out]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _records(record: Any, seen: set[Any] | None = None) -> set[Any]:
    """Return a record and all dataclasses that its fields hold."""
    seen = set() if seen is None else seen
    if is_dataclass(record) and record not in seen:
        seen.add(record)
        hints = get_type_hints(record)
        for part in fields(record):
            _records(hints.get(part.name, part.type), seen)
    for part in get_args(record):
        _records(part, seen)
    return seen
