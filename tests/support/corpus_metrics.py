"""Simulated arms on metrics of all items together, and how often the paired bootstrap's interval holds the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalsvc.stats.bootstrap import resampled_error
from evalsvc.stats.paired import t_interval

Array = NDArray[Any]
REPLICATES = 1000
_POPULATION = 2_000_000


class Case(NamedTuple):
    """A kind of metric and of change.

    Attributes:
        draw: Takes a number of items and a generator; returns both arms' items, [n] or [n, statistics].
        score: Takes how often items were drawn, [resamples, n], and items; returns levels [resamples].
    """

    draw: Callable[[int, np.random.Generator], tuple[Array, Array]]
    score: Callable[[Array, Array], Array]


class Coverage(NamedTuple):
    """Shares of simulated comparisons: with an interval, and among these with one that holds the truth."""

    decided: float
    covered: float


def measure_coverage(case: Case, n: int, runs: int, seed: int = 1) -> Coverage:
    """Return how often the 90 % interval of the difference holds that of two million items."""
    before, after = case.draw(_POPULATION, np.random.default_rng(99))
    everything = np.ones((1, _POPULATION), dtype=np.int64)
    truth = float((case.score(everything, after) - case.score(everything, before))[0])
    rng = np.random.default_rng(seed)
    decided = covered = 0
    for _ in range(runs):
        before, after = case.draw(n, rng)
        drawn = rng.integers(0, n, (REPLICATES, n)) + np.arange(REPLICATES)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=REPLICATES * n).reshape(REPLICATES, n)
        counts = np.vstack([np.ones((1, n), dtype=np.int64), counts])
        differences = case.score(counts, after) - case.score(counts, before)
        if (error := resampled_error(differences[1:], n, n)) is not None:
            low, high = t_interval(float(differences[0]), *error)
            decided += 1
            covered += low <= truth <= high
    return Coverage(decided / runs, covered / max(decided, 1))


def change_answers(lost: float, gained: float) -> Callable[[int, np.random.Generator], tuple[Array, Array]]:
    """Draw [n, 4] true and false positives, misses and true negatives: 85 % are right, 30 % of the golds are positive.

    Args:
        lost, gained: Shares of the items whose answers go wrong, and come right.
    """

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        gold, right, chance = rng.random(n) < 0.3, rng.random(n) < 0.85, rng.random(n)
        now_right = np.where(right, chance >= lost / 0.85, chance < gained / 0.15)
        tables = []
        for is_right in (right, now_right):
            answer = np.where(is_right, gold, ~gold)
            tables.append(np.stack([gold & answer, ~gold & answer, gold & ~answer, ~gold & ~answer], axis=-1))
        return tables[0].astype(np.int64), tables[1].astype(np.int64)

    return draw


def score_f1(counts: Array, items: Array) -> Array:
    """F1 of the positive answers."""
    hits, false, missed = (counts @ items)[:, :3].T
    return np.asarray(2 * hits / np.maximum(2 * hits + false + missed, 1))


def score_correlation(counts: Array, items: Array) -> Array:
    """Matthews' correlation."""
    hits, false, missed, rest = (counts @ items).astype(np.float64).T
    spread = np.sqrt((hits + false) * (hits + missed) * (rest + false) * (rest + missed))
    return np.asarray(np.where(spread > 0, (hits * rest - false * missed) / np.maximum(spread, 1), 0.0))


def change_texts(share: float, loss: float) -> Callable[[int, np.random.Generator], tuple[Array, Array]]:
    """Draw [n, 10] BLEU's lengths, matches and n-grams of answers of about 20 words, some better than others.

    Args:
        share: Of the answers that are written anew.
        loss: By how much these match less, as a share of the words.
    """

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        length, quality = rng.integers(8, 30, n), rng.beta(4, 3, n)

        def write(quality: Array) -> Array:
            words = np.maximum(5, length + rng.integers(-3, 4, n))
            match = rng.beta(8 * quality + 0.01, 8 * (1 - quality) + 0.01)
            grams = [words - k for k in range(4)]
            matches = [rng.binomial(total, match ** (0.8 * (k + 1))) for k, total in enumerate(grams)]
            return np.stack([words, length, *matches, *grams], axis=-1)

        before, after = write(quality), write(np.clip(quality - loss, 0.02, 0.98))
        return before, np.where((rng.random(n) < share)[:, None], after, before)

    return draw


def score_bleu(counts: Array, items: Array) -> Array:
    """BLEU of sums of its statistics (Papineni et al. 2002), of corpora with a match of every length."""
    words, length, *grams = (counts @ items).T
    precisions = np.array(grams[:4]) / np.array(grams[4:])
    return np.asarray(100 * np.minimum(1, np.exp(1 - length / words)) * np.exp(np.log(precisions).mean(axis=0)))


def change_lengths(share: float, factor: float) -> Callable[[int, np.random.Generator], tuple[Array, Array]]:
    """Draw [n] lengths of answers; some are longer or shorter, by this factor in the middle."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        before = rng.lognormal(3, 0.8, n)
        after = before * factor * np.exp(rng.normal(0, 0.4, n))
        return before, np.where(rng.random(n) < share, after, before)

    return draw


def score_median(counts: Array, items: Array) -> Array:
    """The upper median, as lm-eval has it."""
    order = np.argsort(items)
    reached = np.cumsum(counts[:, order], axis=1)
    return np.asarray(items[order][(reached <= reached[:, -1:] // 2).sum(axis=1)])


CASES = {
    "F1, 2 % lost and 2 % gained": Case(change_answers(0.02, 0.02), score_f1),
    "F1, 5 % lost and 5 % gained": Case(change_answers(0.05, 0.05), score_f1),
    "F1, 10 % lost and 5 % gained": Case(change_answers(0.1, 0.05), score_f1),
    "Matthews' correlation, 5 % lost and 5 % gained": Case(change_answers(0.05, 0.05), score_correlation),
    "Matthews' correlation, 10 % lost and 5 % gained": Case(change_answers(0.1, 0.05), score_correlation),
    "BLEU, 30 % of the answers other ones": Case(change_texts(0.3, 0.0), score_bleu),
    "BLEU, 30 % of the answers worse": Case(change_texts(0.3, 0.1), score_bleu),
    "BLEU, 10 % of the answers other ones": Case(change_texts(0.1, 0.0), score_bleu),
    "BLEU, 10 % of the answers worse": Case(change_texts(0.1, 0.1), score_bleu),
    "median, 30 % of the answers other ones": Case(change_lengths(0.3, 1.0), score_median),
    "median, 30 % of the answers shorter": Case(change_lengths(0.3, 0.7), score_median),
    "median, 90 % of the answers shorter": Case(change_lengths(0.9, 0.9), score_median),
}
