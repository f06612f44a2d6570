"""What a model is asked and what it answers: requests, samples, tasks, plans. Log-likelihoods are in nats."""

from __future__ import annotations

from dataclasses import dataclass, field

from evalsvc.records.digests import digest
from evalsvc.records.vocabulary import Aggregation, Kind, Role

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


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
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


def has_drift(plan: Plan) -> bool:
    """Whether arms' token drift is measured on a plan: on every suite of role drift, and on suites of texts alone.

    The role tells drift on texts of the domain from drift on general ones. Early looks of a gate have none: they would
    score all that they share anew each time.
    """
    texts = plan.role == "drift" or all(request.kind == "loglikelihood_rolling" for request in plan.requests)
    return texts and plan.part_of is None
