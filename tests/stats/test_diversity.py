"""Several sampled answers per prompt."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest

from evalsvc.stats.diversity import (
    COLLAPSE,
    Answers,
    Ratio,
    compare_diversity,
    distinct_ngrams,
    first_sentence,
    measure_prompts,
    pass_at_k,
    repeated_ngrams,
)

NONE = np.zeros((2, 4), dtype=bool)


@pytest.mark.parametrize(("k", "value"), [(1, 0.2), (5, 0.689437), (10, 0.917481)])
def test_pass_at_k(k: int, value: float) -> None:
    assert pass_at_k(50, 10, k) == pytest.approx(value, abs=1e-6)
    assert pass_at_k(50, 10, k) == pytest.approx(1 - comb(40, k) / comb(50, k), abs=1e-12)
    assert pass_at_k(4, 3, 2) == 1.0


BASE = [["a b c", "d e f"], ["a b a b", "x y"], ["a", "b"], ["q r s t", "u v"], ["", ""]]
ARM = [["a b c", "d e f"], ["no", "no"], ["a b c", "a b c"], ["", ""], ["k l", "k l"]]


def compare(base: Answers, adapted: Answers) -> dict[str, Ratio]:
    ended = np.zeros((len(base), len(base[0])), dtype=bool)
    return {ratio.measure: ratio for ratio in compare_diversity(base, adapted, (ended, ended))}


@pytest.mark.parametrize(
    ("measure", "prompts", "base", "adapted", "kept"),
    [
        ("unique", 5, (1 + 1 + 1 + 1 + 0.5) / 5, (1 + 0.5 + 0.5 + 0.5 + 0.5) / 5, 3 / 4.5),
        # The base has no bigram on prompts 3 and 5; the arm has none on 2 and 4, where the base has.
        ("distinct", 3, 1.0, 1 / 3, 1 / 3),
        # The base's most common first sentence is the empty one, the arm's is "a b c".
        ("top_response", 5, 1 / 5, (0.5 + 1) / 5, 3.5 / 4),
        ("empty", 5, 1 / 5, 1 / 5, 1.0),
        # Words: 6 and 6, 6 and 2, 2 and 6 (not shorter), 6 and 0; none of the base's on prompt 5.
        ("length", 4, 1.0, (1 + 2 / 6 + 1 + 0) / 4, 7 / 12),
        ("unfinished", 5, 0.0, 0.0, 1.0),
        ("repetition", 0, None, None, None),
    ],
)
def test_five_prompts_by_hand(
    measure: str, prompts: int, base: float | None, adapted: float | None, kept: float | None
) -> None:
    ratio = compare(BASE, ARM)[measure]
    assert ratio.prompts == prompts
    assert (ratio.base, ratio.adapted, ratio.ratio) == pytest.approx((base, adapted, kept))


def test_one_word_answers_have_no_bigrams_and_are_not_perfect() -> None:
    words = [[f"w{prompt}{answer}" for answer in range(4)] for prompt in range(10)]
    sentences = [[f"{word} and so on" for word in given] for given in words]
    lost, without = compare(sentences, words)["distinct"], compare(words, sentences)["distinct"]
    assert (lost.prompts, lost.adapted, lost.ratio) == (10, 0.0, 0.0)
    assert (without.prompts, without.base, without.ratio, without.low) == (0, None, None, None)


def test_an_arm_of_empty_answers_keeps_nothing() -> None:
    sentences = [[f"w{prompt}{answer} and so on" for answer in range(4)] for prompt in range(10)]
    ratios = compare(sentences, [[""] * 4] * 10)
    assert {m: ratios[m].ratio for m in COLLAPSE} == pytest.approx(
        {"unique": 0.25, "distinct": 0, "top_response": 0, "empty": 0, "length": 0}
    )
    reverse = compare([[""] * 4] * 10, sentences)
    assert [reverse[m].ratio for m in ("top_response", "empty")] == [None, None]  # nothing to keep
    assert [reverse[m].prompts for m in ("distinct", "length")] == [0, 0]


def test_a_case_without_n_grams_is_undefined() -> None:
    longer = ["one two three four".split(), "one two one two".split()]
    assert distinct_ngrams(longer, 2, 4) == 1.0
    assert distinct_ngrams(longer, 2, 8) == pytest.approx(4 / 6)
    assert math.isnan(distinct_ngrams(longer, 2, 0))


def test_distinct_counts_within_a_budget_of_words_that_both_arms_have() -> None:
    longer, shorter = [["a b a b a b"]], [["a b"]]
    both = measure_prompts(longer, shorter)["distinct"]
    assert (both.base.tolist(), both.adapted.tolist()) == ([1.0], [1.0])


def test_repetition_is_within_one_answer() -> None:
    assert repeated_ngrams("a b c d a b c d".split(), 4) == pytest.approx(1 - 4 / 5)
    assert math.isnan(repeated_ngrams("a b".split(), 4))


def test_first_sentences_are_normalised() -> None:
    assert first_sentence("  I'll  schedule THAT. Then more") == "i'll schedule that."


def test_a_collapsed_arm_is_told_from_its_base() -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(400)]

    def answers(collapsed: bool) -> list[list[str]]:
        given = []
        for prompt in range(60):
            drawn = [" ".join(rng.choice(vocabulary, 12)) for _ in range(8)]
            given.append([f"sure p{prompt}." for _ in range(6)] + drawn[:2] if collapsed else drawn)
        return given

    base, adapted = answers(False), answers(True)
    ratios = compare(base, adapted)
    assert ratios["unique"].base == 1.0
    assert ratios["unique"].ratio == pytest.approx(3 / 8)
    assert (ratios["unique"].high or 1) < 0.5
    assert (ratios["distinct"].high or 1) < 1
    again = compare(base, base)["unique"]
    # Of 60 prompts none changed: a bound a little below that of a normal quantile, n / (n + z^2).
    assert (again.ratio, again.low) == pytest.approx((1.0, 60 / (60 + 1.671**2)), abs=1e-3)


def test_different_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="same number for each prompt"):
        compare_diversity([["a", "b"]], [["a"]], (NONE, NONE))
