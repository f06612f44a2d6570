"""The nouns of evalsvc: frozen, typed, without I/O. Imports only numpy, and the records that statistics return.

Digests are lower-case SHA-256 in hex: of a checkpoint "sha256:" and 64 digits, of requests, samples, suites and plans
the first 32 digits. Log-likelihoods are in nats.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalsvc.stats.calibration import CalibrationDrift
from evalsvc.stats.transitions import ChanceBracket, Floor

Role = Literal["domain", "general", "instruction", "safety", "drift", "diversity"]
Kind = Literal["loglikelihood", "loglikelihood_rolling", "generate_until"]
State = Literal["queued", "running", "done", "failed"]
Aggregation = Literal["mean", "perplexity", "weighted_perplexity", "bits_per_byte", "other"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no ASCII escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: str) -> str:
    """Return 32 hex digits of SHA-256 over `parts`, each closed off from the next by its length."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:32]


# ------------------------------------------------------------------------------------------------ what is evaluated


@dataclass(frozen=True, slots=True)
class Cost:
    """What a checkpoint cost to make. None means not known, never zero.

    Attributes:
        peak_memory_gb: Of one device while training, in 1e9 bytes.
        train_samples: Samples seen, repetitions counted.
        annotation_cost: Of the training data, in whatever currency the user counts in.
        trainable_share: Parameters that training could change, over those of the base.
        tokens_per_query: Prompt tokens per request, mean over the domain suites: of an arm; measured, never declared.
    """

    gpu_hours: float | None = None
    train_tokens: int | None = None
    peak_memory_gb: float | None = None
    train_samples: int | None = None
    annotation_cost: float | None = None
    trainable_share: float | None = None
    tokens_per_query: float | None = None


DECLARED = tuple(field.name for field in fields(Cost) if field.name != "tokens_per_query")
"""What a checkpoint's cost card may say; what a query costs is an arm's, and measured."""

PROMPTED = ("icl", "rag")
"""Methods that train nothing: worked examples, or retrieved passages, before every question."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights and tokenizer at a fixed content.

    Attributes:
        digest: "sha256:..." of the content; for an adapter, of adapter and base together.
        name: What people call it; not an identity.
        path: Folder that holds it.
        method: "base", "full", "lora", another PEFT type, "cpt", ... (DESIGN: Method).
        tokenizer: Digest of tokenizer files and chat template.
        parent: Digest of the base that it was adapted from.
        base_path: Folder of the weights that an adapter is attached to; None unless it is an adapter.
        step: Training step within its trajectory.
        trajectory: Name shared by all checkpoints of one training run.
    """

    digest: str
    name: str
    path: str
    method: str
    tokenizer: str
    parent: str | None = None
    base_path: str | None = None
    step: int | None = None
    trajectory: str | None = None
    cost: Cost = Cost()

    @property
    def label(self) -> str:
        """What people call it: name, and step within its trajectory."""
        return self.name if self.step is None else f"{self.name}@{self.step}"

    @property
    def is_prompted(self) -> bool:
        """Whether it is its base's own weights, asked with other prompts instead of being trained."""
        return self.method in PROMPTED

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds an adapter rather than whole weights."""
        return self.base_path is not None

    @property
    def resident(self) -> str:
        """Folder of the full weights that must be in memory to score this checkpoint."""
        return self.base_path or self.path


@dataclass(frozen=True, slots=True)
class Numerics:
    """How numbers are computed: part of a response's key, and equal within every comparison.

    Attributes:
        rerun: 0; 1 for a base that is scored once more, in other batches, the opposite order and with other seeds, to
            see how much changes although nothing was adapted (the A/A floor).
    """

    device: str
    dtype: str
    torch: str
    transformers: str
    rerun: int = 0

    def key(self) -> str:
        """Return the text that is compared and stored."""
        return canonical({name: value for name, value in asdict(self).items() if name != "rerun" or value})


Quantisation = Literal["int8", "nf4", "bnb-int8", "bnb-nf4"]


@dataclass(frozen=True, slots=True)
class Serving:
    """How a checkpoint is put into service: part of an arm's identity.

    Attributes:
        merged: An adapter's change is added to the base's weights, instead of being computed beside them.
        quantisation: What the full weights are quantised to, and by whom; None leaves them as they are.
    """

    merged: bool = False
    quantisation: Quantisation | None = None

    @property
    def words(self) -> str:
        """What a label says of it: nothing for an unquantised, unmerged checkpoint."""
        return ", ".join(word for word in (self.quantisation, "merged" if self.merged else None) if word)


@dataclass(frozen=True, slots=True)
class Arm:
    """A checkpoint as it is served."""

    checkpoint: Checkpoint
    numerics: Numerics
    serving: Serving = Serving()

    @property
    def key(self) -> str:
        """The arm's identity: same content, same numerics, same serving."""
        words = self.serving.words
        return digest(self.checkpoint.digest, self.numerics.key(), *([words] if words else []))

    @property
    def weights(self) -> str:
        """What must be in memory to score it: the folder of the full weights, and what they are quantised to."""
        quantisation = self.serving.quantisation
        return f"{self.checkpoint.resident} ({quantisation})" if quantisation else self.checkpoint.resident

    @property
    def label(self) -> str:
        """What people call it: the checkpoint's label, and how it is served unless that is as usual."""
        return served_label(self.checkpoint, self.serving)


def base_among(arm: Arm, arms: Iterable[Arm]) -> Arm | None:
    """Return what an arm is held against: its base as it is served itself, but for merging; None if it is not there."""
    served = replace(arm.serving, merged=False)
    for other in arms:
        if (other.checkpoint.digest, other.serving, other.numerics) == (arm.checkpoint.parent, served, arm.numerics):
            return other
    return None


def served_label(checkpoint: Checkpoint, serving: Serving) -> str:
    """Return a checkpoint's label with how it is served: "lora@400", "lora@400 (nf4, merged)"."""
    return f"{checkpoint.label} ({serving.words})" if serving.words else checkpoint.label


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a checkpoint that people should know before they trust its scores.

    Attributes:
        severity: An "error" means that scores would be wrong, and refuses; a "warning" that they may mislead; a "note"
            that nothing has to be done.
        check: Name of the check, the same in every version.
        checkpoint: Label of the checkpoint.
    """

    severity: Literal["error", "warning", "note"]
    check: str
    checkpoint: str
    text: str


# -------------------------------------------------------------------------------------------------- plan and score


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked.

    Attributes:
        arguments: (context, continuation), (text,), or (context, generation settings as canonical JSON).
        repeat: Which of several sampled answers to the same question this is.
    """

    digest: str
    kind: Kind
    arguments: tuple[str, ...]
    repeat: int = 0

    @classmethod
    def of(cls, kind: Kind, arguments: tuple[str, ...], repeat: int = 0) -> Request:
        """Make a request and its digest."""
        return cls(digest(kind, *arguments, str(repeat)), kind, arguments, repeat)


@dataclass(frozen=True, slots=True)
class Response:
    """What a model answered.

    Attributes:
        request: Digest of the request.
        loglikelihood: Natural log of the continuation's probability; None for generations.
        greedy: Whether greedy decoding would have produced the continuation; None where not defined.
        text: The generated text, cut at the first stop sequence; None for likelihoods.
        tokens: Tokens scored or generated.
        truncated: Tokens cut from the left of the prompt because it was longer than the model's window.
    """

    request: str
    loglikelihood: float | None = None
    greedy: bool | None = None
    text: str | None = None
    tokens: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that could not be answered, and why."""

    request: str
    error: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a task: the unit of pairing.

    Attributes:
        digest: Of the document and of all its requests; equal documents of a task are told apart by their order.
        doc_id: Position in the task's evaluation split.
        doc: The document as JSON.
        target: The gold answer as text.
        requests: Digests of its requests, in lm-eval's order.
        cluster: What it has in common with other samples (a passage, a subject), where the suite says so.
    """

    digest: str
    doc_id: int
    doc: str
    target: str
    requests: tuple[str, ...]
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a task under one filter."""

    name: str
    filter: str
    aggregation: Aggregation
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task of a suite, ready to be scored.

    Attributes:
        group: Name of the lm-eval group that it was named through, if any.
        metrics: All metrics that grading yields; the first is the one that comparisons use.
        weight: Share in its suite's mean (a group's weight is split over its tasks by size).
        chance: Accuracy of guessing, where the suite says so or the number of choices does.
        format_of: The task whose items this one asks in another prompt format, where the suite says so.
    """

    name: str
    group: str | None
    version: str
    output_type: str
    shots: int
    metrics: tuple[Metric, ...]
    weight: float
    chance: float | None
    samples: tuple[Sample, ...]
    format_of: str | None = None


@dataclass(frozen=True, slots=True)
class Rendering:
    """How documents become prompts, beyond what the task says.

    Attributes:
        template: Chat template's digest, None when prompts are plain text.
        system_prompt: Put before every prompt, if any.
    """

    template: str | None = None
    system_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All requests of a suite under one rendering: built once, shared by all checkpoints.

    Attributes:
        part_of: Digest of the plan that this is an early look at; None for a whole suite.
        files: What it was made from and is not lm-eval's: path and digest of each, the suite's own first.
    """

    digest: str
    suite: str
    role: Role
    description: str
    suite_digest: str
    suite_path: str
    rendering: Rendering
    tasks: tuple[PlannedTask, ...]
    requests: tuple[Request, ...] = field(repr=False)
    part_of: str | None = None
    files: tuple[tuple[str, str], ...] = field(default=(), repr=False)


# ------------------------------------------------------------------------------------------------------------ grade


@dataclass(frozen=True, slots=True)
class Score:
    """The value of one metric for one sample.

    Attributes:
        value: The metric's value; for perplexities the log-likelihood in nats; None if it is not a number.
        weight: Words or bytes, for metrics that are normalised by them.
        detail: JSON of a value that is not a number.
        answer: A number that is the same for the same answer: the option chosen, or 60 bits of a digest of the text.
        invalid: Whether no answer could be parsed out of what was generated.
        confidence: Probability of the chosen option among the options.
    """

    sample: str
    metric: str
    filter: str
    value: float | None
    weight: float | None = None
    detail: str | None = None
    answer: int | None = None
    invalid: bool | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A metric of one task (or group) of a run, aggregated as lm-eval does."""

    task: str
    metric: str
    filter: str
    n: int
    value: float
    stderr: float | None
    higher_is_better: bool
    primary: bool
    is_group: bool = False


@dataclass(frozen=True, slots=True)
class Graded:
    """Grading's outcome for one run."""

    results: tuple[Result, ...]
    scores: Mapping[str, tuple[Score, ...]]
    """Task name to its scores."""


# ------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True, eq=False)  # not by slots: what is found out about an arm's scores is kept with them
class TaskScores:
    """One arm's scores on one task in its primary metric, sorted by sample.

    Attributes:
        samples: int64 [n], the store's sample numbers, increasing.
        values: float64 [n].
        weights: float64 [n], or None where the aggregation takes none.
        clusters: int64 [n], equal for samples that go together; None where all are independent.
        answers, invalid, confidence: [n] as in `Score`; None where the task has no such thing.
    """

    suite: str
    role: Role
    task: str
    metric: str
    filter: str
    aggregation: Aggregation
    higher_is_better: bool
    weight: float
    samples: Ints
    values: Floats
    weights: Floats | None = None
    clusters: Ints | None = None
    answers: Ints | None = None
    invalid: NDArray[np.bool_] | None = None
    confidence: Floats | None = None
    chance: float | None = None
    format_of: str | None = None

    @cached_property
    def bounded(self) -> bool:
        """Whether all values lie in [0, 1]."""
        return bool(((self.values >= 0) & (self.values <= 1)).all())

    @cached_property
    def fault(self) -> str | None:
        """What is wrong with the scores, whatever they are compared with."""
        if not (self.samples[1:] > self.samples[:-1]).all():
            return "an item has two scores in one arm; the store is damaged, submit again"
        if not np.isfinite(self.values).all():
            return f"{self.metric} is not a number for some items; choose another metric"
        if self.weights is not None and not (np.isfinite(self.weights) & (self.weights > 0)).all():
            return "some items have no size in bytes; take them out of the task"
        return None

    def aligned(self, other: TaskScores) -> bool:
        """Whether both have the same samples; as a rule they share one array of them."""
        return self.samples is other.samples or np.array_equal(self.samples, other.samples)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired estimate of adapted minus base on one task, in the metric's unit.

    Attributes:
        difference: Adapted minus base.
        low, high: Ends of the interval of `difference`; None where the metric has no paired interval.
        lost, gained: Items that went 1 -> 0 and 0 -> 1; None for metrics that are not binary.
        test: Name of the procedure behind the interval.
        unit: "score" for metrics in [0, 1], else the metric's name.
        coverage: Share of the base's samples that both arms have.
        clusters: Clusters of samples that the interval takes as the unit; None where samples are independent.
        p_value: Two-sided, of no difference: McNemar's exact test for binary items, else that of `test`.
    """

    suite: str
    role: Role
    task: str
    metric: str
    filter: str
    n: int
    base: float
    adapted: float
    difference: float
    low: float | None
    high: float | None
    lost: int | None
    gained: int | None
    test: str
    unit: str
    higher_is_better: bool
    weight: float
    stderr: float | None
    coverage: float = 1.0
    clusters: int | None = None
    p_value: float | None = None

    @property
    def gain(self) -> float:
        """The difference with better counted positive."""
        return self.difference if self.higher_is_better else -self.difference

    @property
    def gain_interval(self) -> tuple[float | None, float | None]:
        """Ends of the gain's interval."""
        if self.higher_is_better:
            return self.low, self.high
        low, high = (None if end is None else 0.0 - end for end in (self.high, self.low))
        return low, high


@dataclass(frozen=True, slots=True)
class FullComparison(Comparison):
    """A comparison with all that people look at beside it, and no test takes.

    Attributes:
        p_holm: `p_value` adjusted for all tasks of the comparison (Holm): which tasks moved.
        q_value: Ditto by Benjamini and Hochberg, for exploring.
        moved: "worse" or "better" where p_holm is at most 5 %.
        agreement: Share of samples that both arms answer alike, right or wrong.
        invalid_base, invalid_adapted: Answers that could not be parsed; they count as wrong, and are told apart here.
        chance: lost and gained with the guesses taken off: the other end of a bracket, never a verdict.
        floor: lost and gained between two runs of the base itself.
        blind_spots: What the base's level keeps the task from showing.
        format_loss: What the same items in other prompt formats say about a loss.
    """

    p_holm: float | None = None
    q_value: float | None = None
    moved: Literal["worse", "better"] | None = None
    agreement: float | None = None
    invalid_base: int | None = None
    invalid_adapted: int | None = None
    chance: ChanceBracket | None = None
    floor: Floor | None = None
    calibration: CalibrationDrift | None = None
    blind_spots: tuple[str, ...] = ()
    format_loss: str | None = None


@dataclass(frozen=True, slots=True)
class RoleTotal:
    """Unweighted mean over a role's suites of the difference, better counted positive."""

    role: Role
    unit: str
    suites: int
    tasks: int
    difference: float
    low: float | None
    high: float | None
    worst_task: str
    worst_difference: float
    stderr: float | None = None


def as_dict(record: Any) -> dict[str, Any]:
    """Return a record as a JSON-ready dict, arrays as lists."""

    def plain(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in items}

    return asdict(record, dict_factory=plain)
