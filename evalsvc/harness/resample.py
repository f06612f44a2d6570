"""Levels of a task's metric on resampled units, for metrics that are no mean over items: F1, BLEU, a median.

Units are documents, or the clusters of documents that a suite declares. What is drawn follows from the items alone, so
that every arm that was scored on the same items has the same draws, and the differences of two arms' levels are those
of a paired bootstrap (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 6 and 8; Koehn 2004, EMNLP,
for BLEU). Only here are the items' values and the aggregation known, so the levels are stored with the result.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from lm_eval.api.metrics import _sacreformat
from lm_eval.api.registry import AGGREGATION_REGISTRY
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from evalsvc.records.digests import digest
from evalsvc.records.plans import Sample, number_samples
from evalsvc.records.scores import Resamples
from evalsvc.records.vocabulary import Ints
from evalsvc.stats.bootstrap import draw_units, number_units
from evalsvc.stats.unit_means import count_effective

REPLICATES, FEWEST = 1_000, 200
"""Number of resamples, and below which there are none."""
SECONDS = 60.0
"""Time after which no more resamples are computed, for aggregations that are slow."""

Aggregate = Callable[[Sequence[Any]], Any]


def resample_level(aggregate: Aggregate, values: Sequence[Any], task: str, items: Sequence[Sample]) -> Resamples | None:
    """Return a metric's levels on resampled units.

    Args:
        aggregate: The task's aggregation of a list of values.
        values: One per item.
        task: The task's name, part of the content of items that are only named.
        items: Their documents and clusters decide what is drawn.

    Returns:
        None if there is one unit, if a resample has no level (such as a correlation of equal values), or if the
        aggregation takes so long that there would be less than 200 levels.
    """
    documents, clusters = number_samples("", task, items)
    units = number_units(documents, clusters)
    sizes = np.bincount(units).astype(np.float64)
    if len(sizes) < 2:
        return None
    draws = digest("draws", *(f"{document} {unit}" for document, unit in zip(documents, units, strict=True)))
    levels: list[float] = []
    end = time.monotonic() + SECONDS
    try:
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):  # of resamples with one class only
            for level in _compute_levels(aggregate, values, units, draw_units(len(sizes), int(draws, 16))):
                levels.append(level)
                if len(levels) == REPLICATES or time.monotonic() > end:
                    break
    except Exception:  # the task author's code, which was not written for repeated items
        return None
    if len(levels) < FEWEST or not np.isfinite(levels).all():
        return None
    return Resamples(
        levels=tuple(levels),
        draws=draws,
        units=len(sizes),
        effective=count_effective(sizes),
        has_clusters=clusters is not None,
    )


def resample_published(
    aggregation: str, level: float, values: Sequence[Any], task: str, items: Sequence[Sample]
) -> Resamples | None:
    """Return a published metric's levels on resampled units; arguments and None as of `resample_level`.

    Args:
        aggregation: Its name in lm-eval; None is returned if lm-eval has no such aggregation, or another level than
            this one comes from it.
    """
    try:
        aggregate = AGGREGATION_REGISTRY[aggregation]
        with warnings.catch_warnings(action="ignore"):
            is_same = math.isclose(aggregate(values), level, rel_tol=1e-6, abs_tol=1e-9)
    except Exception:  # no such aggregation, or the values are not what it takes
        return None
    return resample_level(aggregate, values, task, items) if is_same else None


def _compute_levels(aggregate: Aggregate, values: Sequence[Any], units: Ints, draws: Iterator[Ints]) -> Iterator[float]:
    """Yield the level of each resample, whose items are those of the units drawn."""
    name = next((name for name, known in AGGREGATION_REGISTRY.items() if known is aggregate), "")
    count = int(units.max()) + 1
    if name in _COUNTED:
        score = _COUNTED[name](values)
        for drawn in draws:
            yield score(np.bincount(drawn, minlength=count)[units])
    order = np.argsort(units, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(units))[:-1])
    for drawn in draws:
        yield float(aggregate([values[i] for unit in drawn for i in members[unit]]))


# ------------------------------------------------------------------------------------- metrics of sums over the items

Score = Callable[[Ints], float]
"""Takes how often each item was drawn, [n]."""


def _score_f1(pairs: Sequence[Any]) -> Score:
    """F1 of the label 1 in pairs of a gold and an answer, as sklearn has it: 0 without such a gold or answer."""
    table = np.array(pairs)
    if not np.isin(table, (0, 1)).all():
        raise ValueError("labels must be 0 and 1")
    both, either = table.min(axis=1).astype(np.int64), table.sum(axis=1, dtype=np.int64)
    return lambda counts: float(2 * (counts @ both) / max(counts @ either, 1))


def _score_correlation(pairs: Sequence[Any]) -> Score:
    """Matthews' correlation of any number of labels, as sklearn has it: 0 where a side has one label only."""
    labels, numbers = np.unique(np.array(pairs), return_inverse=True)
    size = len(labels)
    golds, answers = numbers.reshape(len(pairs), 2).T

    def correlate(counts: Ints) -> float:
        table = np.bincount(golds * size + answers, weights=counts, minlength=size**2).reshape(size, size)
        rows, columns, n = table.sum(axis=1), table.sum(axis=0), table.sum()
        spread = (n**2 - rows @ rows) * (n**2 - columns @ columns)
        return float((n * np.trace(table) - rows @ columns) / np.sqrt(spread)) if spread else 0.0

    return correlate


def _score_texts(build: Callable[[], Any], pairs: Sequence[Any]) -> Score:
    """A metric of sacrebleu, of pairs of references and an answer."""
    metric = build()
    references, answers = _sacreformat(*list(zip(*pairs, strict=True))[:2])
    statistics = np.array(metric._extract_corpus_statistics(answers, references))
    return lambda counts: float(metric._compute_score_from_stats((counts @ statistics).tolist()).score)


_COUNTED: dict[str, Callable[[Sequence[Any]], Score]] = {
    "f1": _score_f1,
    "matthews_corrcoef": _score_correlation,
    "bleu": partial(_score_texts, partial(BLEU, force=True)),  # without a warning about tokens
    "chrf": partial(_score_texts, CHRF),
    "chrf++": partial(_score_texts, partial(CHRF, word_order=2)),
    "ter": partial(_score_texts, TER),
}
"""lm-eval's aggregations that need no more than sums over items; calling them again takes a hundred times as long."""
