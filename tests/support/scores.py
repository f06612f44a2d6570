"""Scores made to order, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Aggregation


def make_scores(values: Sequence[float], **changes: object) -> TaskScores:
    """Make the scores of one arm on one task, items numbered from 0."""
    scores = TaskScores(
        suite="s",
        role="general",
        task="t",
        metric="acc",
        filter="none",
        aggregation="mean",
        higher_is_better=True,
        weight=1.0,
        samples=np.arange(len(values)),
        values=np.array(values, dtype=np.float64),
    )
    return replace(scores, **changes)  # type: ignore[arg-type]


def make_text_scores(values: Sequence[float], aggregation: Aggregation = "bits_per_byte") -> TaskScores:
    """Make the log-likelihoods of texts that are 10, 11, 12, ... bytes long."""
    return make_scores(
        values,
        metric=aggregation,
        aggregation=aggregation,
        higher_is_better=False,
        weights=np.arange(10.0, 10 + len(values)),
    )


def known(value: float | None) -> float:
    """Return a figure that must be known."""
    assert value is not None
    return value
