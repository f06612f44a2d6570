"""Scores per sample, results per task, and scores as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evalsvc.records.digests import digest
from evalsvc.records.vocabulary import Aggregation, Floats, Ints, Role

# ------------------------------------------------------------------------------------------------------------ grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The value of one metric for one sample.

    Attributes:
        value: The metric's value; for perplexities the log-likelihood in nats; None if it is not a number.
        weight: Words or bytes, for metrics that are normalised by them.
        detail: JSON of a value that is not a number.
        answer: A number that identifies the answer: the index of the option, or that of `identify_answer`.
        invalid: Whether no answer could be parsed from the generated text.
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


def identify_answer(text: str) -> int:
    """Return the number of a text as an answer: 60 bits of a digest.

    White space, quotes around it and punctuation at its end make no other answer: "False." is "False".
    """
    words = " ".join(text.split())
    return int(digest("answer", words.lstrip(_QUOTES).rstrip(_QUOTES + ".,;:!? ") or words)[:15], 16)


_QUOTES = "\"'`\u201c\u201d\u2018\u2019"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resamples:
    """A metric's levels on resampled units: documents, or the clusters of documents that the suite declares.

    Attributes:
        levels: One per resample, in the metric's unit.
        draws: Digest of the items and their units, from which the draws follow: of two arms with the same, the i-th
            resamples have the same items.
        units: Number of units.
        effective: Their effective number, which is smaller if some have more items than others.
        has_clusters: Whether the suite declares clusters.
    """

    levels: tuple[float, ...]
    draws: str
    units: int
    effective: float
    has_clusters: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A metric of one task (or group) of a run, aggregated as lm-eval does.

    Attributes:
        resamples: Of a task's primary metric, if it is no mean over items; None where there are none.
    """

    task: str
    metric: str
    filter: str
    n: int
    value: float
    stderr: float | None
    higher_is_better: bool
    primary: bool
    is_group: bool = False
    resamples: Resamples | None = None


@dataclass(frozen=True, slots=True)
class Graded:
    """Results and scores of one graded run."""

    results: tuple[Result, ...]
    scores: Mapping[str, tuple[Score, ...]]
    """Task name to its scores."""


# ------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True, eq=False, kw_only=True)  # without slots, for the cached properties
class TaskScores:
    """One arm's scores on one task in its primary metric, sorted by sample.

    Attributes:
        samples: int64 [n], the store's sample numbers, increasing.
        values: float64 [n].
        weights: float64 [n], or None where the aggregation takes none.
        documents: int64 [n], the same number for the same document in any task and prompt; None: each its own.
        clusters: int64 [n], equal for samples of one declared cluster, in all tasks of a suite; None where it declares
            none.
        answers, invalid, confidence: [n] as in `Score`; None if the task does not have them.
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
    documents: Ints | None = None
    clusters: Ints | None = None
    answers: Ints | None = None
    invalid: NDArray[np.bool_] | None = None
    confidence: Floats | None = None
    chance: float | None = None
    format_of: str | None = None

    @cached_property
    def is_bounded(self) -> bool:
        """Whether all values lie in [0, 1]."""
        return bool(((self.values >= 0) & (self.values <= 1)).all())

    @cached_property
    def fault(self) -> str | None:
        """Why the scores cannot be used; None if they can."""
        if not (self.samples[1:] > self.samples[:-1]).all():
            return "an item has two scores in one arm: the store is damaged; submit again"
        if not np.isfinite(self.values).all():
            return f"{self.metric} is not a number for some items; choose another metric"
        if self.weights is not None and not (np.isfinite(self.weights) & (self.weights > 0)).all():
            return "some items have no size in bytes; remove them from the task"
        return None

    def take(self, places: NDArray[np.bool_] | NDArray[np.intp]) -> TaskScores:
        """Return the scores of some samples, chosen by a mask or by positions."""
        return replace(
            self,
            samples=self.samples[places],
            values=self.values[places],
            weights=None if self.weights is None else self.weights[places],
            documents=None if self.documents is None else self.documents[places],
            clusters=None if self.clusters is None else self.clusters[places],
            answers=None if self.answers is None else self.answers[places],
            invalid=None if self.invalid is None else self.invalid[places],
            confidence=None if self.confidence is None else self.confidence[places],
        )

    def is_aligned(self, scores: TaskScores) -> bool:
        """Whether both have the same samples; usually they share one array."""
        return self.samples is scores.samples or np.array_equal(self.samples, scores.samples)
