"""Diversity of K sampled answers per open prompt: values per prompt, and paired ratios to the base.

Collapse means that outputs converge to a limited set and the tail of the distribution disappears. The measures are for
open-ended prompts with the same sampler and seeds. They count words, not tokens, so that arms with different tokenizers
can be compared.

Formulas and sources: docs/pages/statistics.md, section "Diversity and drift".
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from evalsvc.stats.bootstrap import bca_interval
from evalsvc.stats.paired import LEVEL

Floats = NDArray[np.float64]
Answers = Sequence[Sequence[str]]
"""Per prompt, the K sampled answers."""

NGRAM = 2
REPEATED = 4
_WORD = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Per-prompt values [prompts] of one arm; `WORSE_WHEN` has the direction that is worse.

    Attributes:
        unique: Distinct strings among the K answers / K: unique@K (Biderman et al. 2024), by exact match.
        distinct: Distinct n-grams / n-grams within a budget of words that both arms have (Li et al. 2016).
        repetition: 1 - distinct n-grams / n-grams within one answer, mean over the K: seq-rep-n (Welleck et al. 2020).
        top_response: Share of the K answers that begin with the arm's most common first sentence.
        unfinished: Share of the K answers that reached the length limit.
    """

    unique: Floats
    distinct: Floats
    repetition: Floats
    top_response: Floats
    unfinished: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A measure of an adapted arm as a ratio to its base's.

    Attributes:
        ratio, low, high: Ratio of the means over prompts, with a BCa interval; None where the base's mean is 0.
    """

    measure: str
    prompts: int
    base: float
    adapted: float
    ratio: float | None
    low: float | None
    high: float | None


WORSE_WHEN = {
    "unique": "lower",
    "distinct": "lower",
    "repetition": "higher",
    "top_response": "higher",
    "unfinished": "higher",
}


def diversity(answers: Answers, unfinished: NDArray[np.bool_], budgets: Sequence[int]) -> Diversity:
    """Measure one arm.

    Args:
        unfinished: [prompts, K], whether an answer reached the length limit.
        budgets: Words per prompt that `distinct` uses; see `word_budgets`.
    """
    words = [[_WORD.findall(answer) for answer in given] for given in answers]
    first = [[first_sentence(answer) for answer in given] for given in answers]
    (top, _), *_ = Counter(sentence for given in first for sentence in given).most_common(1)
    return Diversity(
        unique=np.array([len(set(given)) / len(given) for given in answers]),
        distinct=np.array([distinct_ngrams(given, NGRAM, n) for given, n in zip(words, budgets, strict=True)]),
        repetition=np.array([np.mean([repeated_ngrams(answer, REPEATED) for answer in given]) for given in words]),
        top_response=np.array([given.count(top) / len(given) for given in first]),
        unfinished=unfinished.mean(axis=1),
    )


def compare_diversity(
    base: Answers,
    adapted: Answers,
    unfinished: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    rng: np.random.Generator,
    replicates: int = 2000,
    level: float = LEVEL,
) -> list[Ratio]:
    """Compare two arms' answers to the same prompts.

    Raises:
        ValueError: The arms differ in prompts or in answers per prompt.
    """
    counts = [[len(given) for given in answers] for answers in (base, adapted)]
    if counts[0] != counts[1] or not counts[0]:
        raise ValueError(f"{sum(counts[0])} and {sum(counts[1])} answers, must have the same number for each prompt")
    budgets = word_budgets(base, adapted)
    both = [diversity(answers, ended, budgets) for answers, ended in zip((base, adapted), unfinished, strict=True)]
    ratios = []
    for measure in WORSE_WHEN:
        pair = np.stack([getattr(arm, measure) for arm in both])
        level_of = pair.mean(axis=1)
        ratio = low = high = None
        if level_of[0] > 0:
            ratio = float(level_of[1] / level_of[0])
            ends = bca_interval(pair, _ratio, replicates, rng, level)
            low, high = (end if math.isfinite(end) else None for end in ends)
        ratios.append(
            Ratio(
                measure=measure,
                prompts=pair.shape[1],
                base=float(level_of[0]),
                adapted=float(level_of[1]),
                ratio=ratio,
                low=low,
                high=high,
            )
        )
    return ratios


def _ratio(means: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(means[..., 0] > 0, means[..., 1] / means[..., 0], np.inf)


def word_budgets(base: Answers, adapted: Answers) -> list[int]:
    """Return, per prompt, the smaller number of words of both arms, so that shorter output is not more diverse."""
    return [
        min(sum(len(_WORD.findall(answer)) for answer in given) for given in pair)
        for pair in zip(base, adapted, strict=True)
    ]


def distinct_ngrams(answers: Sequence[Sequence[str]], n: int, budget: int) -> float:
    """Return distinct / all n-grams among the first `budget` words of a prompt's answers; 1 if there is no n-gram."""
    grams: list[tuple[str, ...]] = []
    for answer in answers:
        taken = answer[: max(0, budget)]
        budget -= len(taken)
        grams += _ngrams(taken, n)
    return len(set(grams)) / len(grams) if grams else 1.0


def repeated_ngrams(answer: Sequence[str], n: int) -> float:
    """Return 1 - distinct / all n-grams of one answer; 0 if it has fewer than n words."""
    grams = _ngrams(answer, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


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
