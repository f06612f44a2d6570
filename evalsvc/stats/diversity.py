"""Diversity of K sampled answers per open prompt: values per prompt, and the share of the base's that an arm keeps.

Collapse means that outputs converge to a limited set and the tail of the distribution disappears. The measures are for
open-ended prompts with the same sampler and seeds. They count words, not tokens, so that arms with different tokenizers
can be compared. A measure is undefined, never perfect, where the base has nothing to measure; where the base has and
the arm has not, the arm has lost it.

Formulas and sources: docs/pages/statistics.md, section "Diversity and drift".
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from evalsvc.stats.margins import z_of
from evalsvc.stats.paired import LEVEL
from evalsvc.stats.ratios import PairedValues, ratio_bounds

Floats = NDArray[np.float64]
Answers = Sequence[Sequence[str]]
"""Per prompt, the K sampled answers."""

CollapseMeasure = Literal["unique", "distinct", "top_response", "empty", "length"]
COLLAPSE: tuple[CollapseMeasure, ...] = get_args(CollapseMeasure)
"""The measures of collapse, which a policy can be about."""

NGRAM = 2
REPEATED = 4
_WORD = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")
_INTERNAL = {"internal": True}
"""Metadata of a field that is not written, as in `records.serialise`."""


class PromptPair(NamedTuple):
    """Values of both arms per prompt.

    Attributes:
        base, adapted: [prompts]; nan where the measure is undefined.
    """

    base: Floats
    adapted: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How much of its base's diversity an adapted arm keeps, by one measure.

    Attributes:
        prompts: Number of prompts on which the measure is defined.
        base, adapted: Means over these prompts; None without any.
        ratio: `adapted` over `base`, or 1 - `adapted` over 1 - `base` for shares of which more is worse; below 1 is
            less diversity. None where it is undefined: without prompts, or if the base has nothing to keep.
        low, high: Bounds of the ratio; None without them.
        kept: What the ratio is of: per prompt, values of which less is worse.
    """

    measure: str
    prompts: int
    base: float | None
    adapted: float | None
    ratio: float | None
    low: float | None
    high: float | None
    kept: PairedValues = field(compare=False, repr=False, metadata=_INTERNAL)


WORSE_WHEN = {
    "unique": "lower",
    "distinct": "lower",
    "repetition": "higher",
    "top_response": "higher",
    "unfinished": "higher",
    "empty": "higher",
    "length": "lower",
}


def compare_diversity(
    base: Answers,
    adapted: Answers,
    unfinished: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    level: float = LEVEL,
) -> list[Ratio]:
    """Compare two arms' answers to the same prompts.

    Args:
        unfinished: bool [prompts, K] of each arm, whether an answer reached the length limit.
        level: Confidence level of the intervals, whose ends are one-sided bounds.

    Raises:
        ValueError: The arms differ in prompts or in answers per prompt.
    """
    counts = [[len(given) for given in answers] for answers in (base, adapted)]
    if counts[0] != counts[1] or not counts[0]:
        raise ValueError(f"{sum(counts[0])} and {sum(counts[1])} answers, must have the same number for each prompt")
    values = {**measure_prompts(base, adapted), "unfinished": PromptPair(*(ended.mean(axis=1) for ended in unfinished))}
    return [_compare_values(measure, values[measure], level) for measure in WORSE_WHEN]


def _compare_values(measure: str, values: PromptPair, level: float) -> Ratio:
    """Return the ratio of one measure, on the prompts on which both arms have a value."""
    is_defined = ~(np.isnan(values.base) | np.isnan(values.adapted))
    levels = PairedValues(*(of_arm[is_defined] for of_arm in values))
    kept = levels if WORSE_WHEN[measure] == "lower" else PairedValues(1 - levels.base, 1 - levels.adapted)
    ends: list[float | None] = [None, None]
    if kept.is_testable:
        low, high = ratio_bounds(kept, np.array([z_of((1 - level) / 2)]))
        ends = [end if math.isfinite(end) else None for end in (float(low[0]), float(high[0]))]
    has_any = bool(is_defined.any())
    return Ratio(
        measure=measure,
        prompts=int(is_defined.sum()),
        base=float(levels.base.mean()) if has_any else None,
        adapted=float(levels.adapted.mean()) if has_any else None,
        ratio=kept.ratio if has_any and kept.base.any() else None,
        low=ends[0],
        high=ends[1],
        kept=kept,
    )


def measure_prompts(base: Answers, adapted: Answers) -> Mapping[str, PromptPair]:
    """Return the values per prompt of every measure of the texts.

    * unique: distinct strings among the K answers / K: unique@K (Biderman et al. 2024), by exact match.
    * distinct: distinct n-grams / n-grams within a budget of words that both arms have (Li et al. 2016). Where an arm
      has none within the budget, it is over all of its words.
    * repetition: 1 - distinct n-grams / n-grams within one answer, mean over the answers that have some: seq-rep-n
      (Welleck et al. 2020).
    * top_response: share of the K answers that begin with the arm's most common first sentence.
    * empty: share of the K answers without a word.
    * length: words of the K answers over those of the base's, at most 1.
    """
    words = [[[_WORD.findall(answer) for answer in given] for given in answers] for answers in (base, adapted)]
    lengths = [np.array([sum(map(len, given)) for given in of_arm], dtype=np.float64) for of_arm in words]
    budgets = np.minimum(*lengths).astype(int)
    base_distinct, distinct = (
        np.array([_distinct_share(given, int(budget)) for given, budget in zip(of_arm, budgets, strict=True)])
        for of_arm in words
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        length = np.where(lengths[0] > 0, np.minimum(lengths[1] / lengths[0], 1), np.nan)
    return {
        "unique": PromptPair(*(_unique_shares(answers) for answers in (base, adapted))),
        "distinct": PromptPair(base_distinct, np.where(np.isnan(distinct), 0.0, distinct)),
        "repetition": PromptPair(*(np.array([_repetition(given) for given in of_arm]) for of_arm in words)),
        "top_response": PromptPair(*(_top_shares(answers) for answers in (base, adapted))),
        "empty": PromptPair(*(_empty_shares(of_arm) for of_arm in words)),
        "length": PromptPair(np.where(np.isnan(length), np.nan, 1.0), length),
    }


def _unique_shares(answers: Answers) -> Floats:
    return np.array([len(set(given)) / len(given) for given in answers])


def _top_shares(answers: Answers) -> Floats:
    first = [[first_sentence(answer) for answer in given] for given in answers]
    (top, _), *_ = Counter(sentence for given in first for sentence in given).most_common(1)
    return np.array([given.count(top) / len(given) for given in first])


def _empty_shares(words: Sequence[Sequence[Sequence[str]]]) -> Floats:
    return np.array([sum(not answer for answer in given) / len(given) for given in words])


def _distinct_share(answers: Sequence[Sequence[str]], budget: int) -> float:
    """Return `distinct_ngrams` within a budget, over all words where the budget has no n-gram; nan without any."""
    share = distinct_ngrams(answers, NGRAM, budget)
    return distinct_ngrams(answers, NGRAM, sum(map(len, answers))) if math.isnan(share) else share


def _repetition(answers: Sequence[Sequence[str]]) -> float:
    """Return the mean of `repeated_ngrams` over the answers that are long enough; nan without any."""
    shares = [share for answer in answers if not math.isnan(share := repeated_ngrams(answer, REPEATED))]
    return float(np.mean(shares)) if shares else math.nan


def distinct_ngrams(answers: Sequence[Sequence[str]], n: int, budget: int) -> float:
    """Return distinct / all n-grams among the first `budget` words of a prompt's answers; nan if there is no n-gram."""
    grams: list[tuple[str, ...]] = []
    for answer in answers:
        taken = answer[: max(0, budget)]
        budget -= len(taken)
        grams += _ngrams(taken, n)
    return len(set(grams)) / len(grams) if grams else math.nan


def repeated_ngrams(answer: Sequence[str], n: int) -> float:
    """Return 1 - distinct / all n-grams of one answer; nan if it has fewer than n words."""
    grams = _ngrams(answer, n)
    return 1 - len(set(grams)) / len(grams) if grams else math.nan


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def first_sentence(answer: str) -> str:
    """Return an answer's first sentence, in lower case and with single spaces."""
    return " ".join(_SENTENCE_END.split(answer.strip(), maxsplit=1)[0].lower().split())


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Estimate the probability that one of k answers is right, from n samples (Chen et al. 2021, arXiv 2107.03374)."""
    if n - correct < k:
        return 1.0
    log_all_wrong = gammaln(n - correct + 1) - gammaln(n - correct - k + 1) - gammaln(n + 1) + gammaln(n - k + 1)
    return 1 - math.exp(float(log_all_wrong))
