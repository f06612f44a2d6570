"""Candidates in turn: their levels add up to alpha, and nothing but new items starts the count anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evalsvc.errors import EvidenceError, PolicyError
from evalsvc.gating.candidates import describe_candidate
from tests.support.candidates import judge_in_turn, make_record, place


def test_one_of_ten_candidates_at_the_margin_passes_no_more_often_than_alpha() -> None:
    """Ten candidates, 200 times: 2,000 gates. Without shares of alpha some candidate passes in a third of them."""
    passed = judge_in_turn(200, 10, 200, seed=1)
    assert passed.any(axis=1).mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(passed))


def test_the_first_gets_most_and_every_further_one_less() -> None:
    records: list[dict[str, Any]] = []
    levels = []
    for number in range(1, 6):
        candidate = place(records, f"c{number}", ["p"])
        assert (candidate.number, candidate.seen, candidate.batch_size) == (number, number, None)
        levels.append(candidate.alpha)
        records.append(make_record(f"c{number}", ["p"]))
    # By hand: 0.05 * 6 / pi^2 = 0.0303964, and that over 4, 9, 16, 25.
    assert levels == pytest.approx([0.0303964, 0.0075991, 0.0033774, 0.0018998, 0.0012159], abs=1e-7)


def test_the_same_candidate_keeps_its_place_whatever_the_policy_says_now() -> None:
    records = [make_record("a", ["p", "q"]), make_record("b", ["p"]), make_record("a", ["p"]), make_record("c", ["q"])]
    assert (place(records, "a", ["p"]).number, place(records, "a", ["p"]).seen) == (1, 2)
    assert place(records, "b", ["p"]).number == 2
    assert place(records, "c", ["q"]).number == 2
    # One suite more in the policy, one less: candidates are counted where they were tested, and the most counts.
    assert place(records, "new", ["q"]).number == 3
    assert place(records, "new", ["q", "r"]).number == 3
    assert place(records, "new", ["r"]).number == 1
    assert place(records, "new", ["p"], base="another").number == 1


def test_on_every_suite_the_levels_add_up_to_alpha_whichever_policies_come_in_which_order() -> None:
    """Fifty random orders of candidates, tests of random suites and halves, among them repeated ones."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        records: list[dict[str, Any]] = []
        levels: dict[tuple[str, str], dict[str, float]] = {}
        for _ in range(30):
            adapted = f"c{rng.integers(8)}"
            plans = [plan for plan in "pqr" if rng.random() < 0.5] or ["p"]
            half = [None, "select", "confirm"][rng.integers(3)]
            candidate = place(records, adapted, plans, half=half)
            records.append(make_record(adapted, plans, half=half))
            for plan in plans:
                for part in [half] if half else ["select", "confirm"]:
                    used = levels.setdefault((plan, part), {})
                    used[adapted] = max(used.get(adapted, 0.0), candidate.alpha)
        assert max(sum(of_piece.values()) for of_piece in levels.values()) <= 0.05


def test_the_confirming_half_counts_its_own_candidates_and_the_whole_contains_both() -> None:
    selected = [make_record(f"c{n}", ["p"], half="select") for n in range(9)]
    assert place(selected, "c4", ["p"], half="confirm").number == 1
    assert place(selected, "new", ["p"], half="select").number == 10
    assert place(selected, "new", ["p"]).number == 10
    whole = [make_record(f"c{n}", ["p"]) for n in range(9)]
    assert place(whole, "new", ["p"], half="confirm").number == 10


def test_parts_of_a_suite_and_sampled_answers_count_as_the_whole() -> None:
    look = make_record("a", ["look"])
    look["suites"][0]["part_of"] = "p"
    sampled = {**make_record("b", []), "sampled": ["p"]}
    of_first_release = {key: value for key, value in make_record("c", ["p"]).items() if key != "candidate"}
    assert place([look, sampled, of_first_release], "new", ["p"]).number == 4


def test_a_batch_is_declared_before_the_first_and_used_up_after_the_last() -> None:
    first = place([], "a", ["p"], batch_size=2)
    assert (first.number, first.batch_size, first.alpha) == (1, 2, 0.025)
    records = [make_record("a", ["p"], batch_size=2)]
    for batch_size in (None, 2):
        second = place(records, "b", ["p"], batch_size=batch_size)
        assert (second.number, second.batch_size, second.alpha) == (2, 2, 0.025)
    records.append(make_record("b", ["p"]))
    assert place(records, "a", ["p"]).alpha == 0.025
    with pytest.raises(EvidenceError, match=r"suite 'suite p': the batch of 2 .* is used up"):
        place(records, "c", ["p"])
    with pytest.raises(PolicyError, match="a batch of 2 was declared before the first of 2 candidates"):
        place(records, "b", ["p"], batch_size=3)
    with pytest.raises(PolicyError, match="no batch was declared before the first of 1 candidates"):
        place([make_record("a", ["p"])], "b", ["p"], batch_size=2)
    # A sole candidate is tested at the whole level.
    assert place([], "a", ["p"], batch_size=1).alpha == 0.05


def test_the_line_says_what_a_batch_would_do_only_before_the_first() -> None:
    new = {"number": 1, "seen": 1, "batch_size": None, "alpha": 0.0304}
    assert "--batch-size N before the first tests each of N at 0.05 / N" in describe_candidate(new, 0.05, is_next=True)
    for candidate, is_next in ((new, False), ({**new, "number": 2, "seen": 2}, True), ({**new, "batch_size": 3}, True)):
        assert "--batch-size" not in describe_candidate(candidate, 0.05, is_next=is_next)
