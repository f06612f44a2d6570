"""Several sampled answers per prompt."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from evalsvc.stats.diversity import (
    compare_diversity,
    distinct_ngrams,
    diversity,
    first_sentence,
    pass_at_k,
    repeated_ngrams,
    word_budgets,
)

NONE = np.zeros((2, 4), dtype=bool)


@pytest.mark.parametrize(("k", "value"), [(1, 0.2), (5, 0.689437), (10, 0.917481)])
def test_pass_at_k(k: int, value: float) -> None:
    assert pass_at_k(50, 10, k) == pytest.approx(value, abs=1e-6)
    assert pass_at_k(50, 10, k) == pytest.approx(1 - comb(40, k) / comb(50, k), abs=1e-12)
    assert pass_at_k(4, 3, 2) == 1.0


def test_measures_of_one_arm() -> None:
    answers = [["a b. c", "a b. d", "a b. c", "x y z"], ["q", "a b", "r s", "t"]]
    ended = np.array([[True, False, False, False], [False, False, True, True]])
    found = diversity(answers, ended, [100, 100])
    assert found.unique.tolist() == [0.75, 1.0]
    # Bigrams of the first prompt: (a b)(b .)(. c) (a b)(b .)(. d) (a b)(b .)(. c) (x y)(y z): 6 distinct of 11.
    assert found.distinct.tolist() == pytest.approx([6 / 11, 1.0])
    assert found.top_response.tolist() == [0.75, 0.0]  # "a b." three times; "a b" is another sentence
    assert found.unfinished.tolist() == [0.25, 0.5]


def test_distinct_counts_within_a_budget_of_words() -> None:
    longer = ["one two three four".split(), "one two one two".split()]
    assert distinct_ngrams(longer, 2, 4) == 1.0
    assert distinct_ngrams(longer, 2, 8) == pytest.approx(4 / 6)
    assert distinct_ngrams(longer, 2, 0) == 1.0
    assert word_budgets([["a b c"]], [["a b"]]) == [2]


def test_repetition_is_within_one_answer() -> None:
    assert repeated_ngrams("a b c d a b c d".split(), 4) == pytest.approx(1 - 4 / 5)
    assert repeated_ngrams("a b".split(), 4) == 0.0


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

    ended = np.zeros((60, 8), dtype=bool)
    base, adapted = answers(False), answers(True)
    found = {r.measure: r for r in compare_diversity(base, adapted, (ended, ended), np.random.default_rng(1))}
    assert found["unique"].base == 1.0
    assert found["unique"].ratio == pytest.approx(3 / 8)
    assert (found["unique"].high or 1) < 0.5
    assert (found["distinct"].high or 1) < 1
    assert found["unfinished"].ratio is None
    again = {r.measure: r for r in compare_diversity(base, base, (ended, ended), np.random.default_rng(1))}
    assert (again["unique"].ratio, again["unique"].low, again["unique"].high) == (1.0, 1.0, 1.0)


def test_the_ratios_interval_covers_at_its_level() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    runs = 200
    for _ in range(runs):
        arms = [[[str(rng.integers(0, size)) for _ in range(4)] for _ in range(80)] for size in (20, 6)]
        ended = np.zeros((80, 4), dtype=bool)
        found = compare_diversity(arms[0], arms[1], (ended, ended), rng, replicates=400)[0]
        truth = (6 * (1 - (5 / 6) ** 4) / 4) / (20 * (1 - (19 / 20) ** 4) / 4)
        covered += (found.low or 0) <= truth <= (found.high or 0)
    assert covered / runs == pytest.approx(0.90, abs=0.06)


def test_different_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="same number for each prompt"):
        compare_diversity([["a", "b"]], [["a"]], (NONE, NONE), np.random.default_rng(0))
