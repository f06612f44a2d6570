"""Requests, responses, samples, tasks and plans. Log-likelihoods are in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evalsvc.records.digests import digest, number_cluster, number_document
from evalsvc.records.vocabulary import Aggregation, Ints, Kind, Role

# -------------------------------------------------------------------------------------------------- plan and score


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a model.

    Attributes:
        arguments: (context, continuation), (text,), or (context, generation settings as canonical JSON).
        repeat: Index among several sampled answers to the same prompt.
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
    """A model's response to a request.

    Attributes:
        request: Digest of the request.
        loglikelihood: Natural log of the continuation's probability; None for generations.
        greedy: Whether greedy decoding would have produced the continuation; None where not defined.
        text: The generated text, cut at the first stop sequence; None for likelihoods.
        tokens: Tokens scored or generated.
        truncated: Tokens truncated from the left of the prompt, which was longer than the model's context window.
    """

    request: str
    loglikelihood: float | None = None
    greedy: bool | None = None
    text: str | None = None
    tokens: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed request, with the error."""

    request: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One item of a task: the unit of pairing.

    Attributes:
        digest: Digest of the document and all its requests; equal documents of a task differ by their order.
        doc_id: Position in the task's evaluation split.
        doc: The document as JSON.
        target: The gold answer as text.
        requests: Digests of its requests, in lm-eval's order.
        cluster: Shared by samples that are not independent (same passage, same subject), if the suite declares it.
    """

    digest: str
    doc_id: int
    doc: str
    target: str
    requests: tuple[str, ...]
    cluster: str | None = None


def number_samples(suite: str, task: str, samples: Sequence[Sample]) -> tuple[Ints, Ints | None]:
    """Return [n], the numbers of the samples' documents, and of the clusters that the suite declares.

    A sample without a cluster is in its document's own; such numbers are negative, which no other cluster's are. None
    if no sample has a cluster.
    """
    documents = [number_document(task, sample.doc) for sample in samples]
    clusters = None
    if any(sample.cluster is not None for sample in samples):
        clusters = [
            -document - 1 if sample.cluster is None else number_cluster(suite, sample.cluster)
            for document, sample in zip(documents, samples, strict=True)
        ]
    return np.array(documents, dtype=np.int64), None if clusters is None else np.array(clusters, dtype=np.int64)


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
        group: Name of the lm-eval group through which the suite names it, if any.
        metrics: All metrics of grading; the first is the primary one, which comparisons use.
        weight: Weight in its suite's mean (a group's weight is split over its tasks by size).
        chance: Accuracy of guessing, as declared by the suite or from the numbers of choices and golds.
        format_of: The task with the same items in another prompt format, if the suite declares it.
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
    """How the task's prompts are rendered.

    Attributes:
        template: Digest of the chat template, None for plain text.
        system_prompt: Added before every prompt, if any.
    """

    template: str | None = None
    system_prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All requests of a suite with one rendering: built once, shared by all checkpoints.

    Attributes:
        part_of: For an interim look of a gate, digest of the whole suite's plan; else None.
        files: Path and digest of the files that it was built from, except lm-eval's; the suite's file first.
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
    """Whether token drift is measured on a plan: on suites of role drift, and on suites with only texts.

    Interim looks of a gate have no drift, which would require scoring all earlier requests again at each look.
    """
    texts = plan.role == "drift" or all(request.kind == "loglikelihood_rolling" for request in plan.requests)
    return texts and plan.part_of is None


def count_golds(gold: object) -> int:
    """Return how many choices of an item are right: several if its gold is a list of their indices, else one."""
    indices = set(gold) if isinstance(gold, list) and all(isinstance(index, int) for index in gold) else set()
    return len(indices) or 1
