"""Placing arms: signs, pairing, uncertainty."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from evalsvc.errors import EvidenceError
from evalsvc.frontier import Candidate, frontier
from evalsvc.records import TaskScores
from tests.fakes import checkpoint
from tests.test_compare import perplexity, scores

BASE = checkpoint(1)
RNG = np.random.default_rng(11)


def task(role: Literal["domain", "general"], values: np.ndarray) -> TaskScores:
    return scores(values.tolist(), suite=role, role=role, task=role)


def candidate(number: int, domain: np.ndarray, general: np.ndarray) -> Candidate:
    of = BASE if number == 1 else checkpoint(number, parent=BASE)
    return Candidate(f"c{number}", of, [task("domain", domain), task("general", general)])


def binary(rate: float, n: int = 400) -> np.ndarray:
    values = np.zeros(n)
    values[: round(rate * n)] = 1
    return values


def test_signs_units_and_dominance() -> None:
    base = candidate(1, binary(0.2), binary(0.8))
    arms = [
        candidate(2, binary(0.6), binary(0.7)),
        candidate(3, binary(0.4), binary(0.8)),
        candidate(4, binary(0.3), binary(0.6)),
    ]
    found = frontier(base, arms)
    by_name = {point.arm: point for point in found.points}
    assert (by_name["c1"].learning, by_name["c1"].forgetting) == (0, 0)
    assert by_name["c2"].learning == pytest.approx(0.4)
    assert by_name["c2"].forgetting == pytest.approx(0.1)
    assert {name for name, point in by_name.items() if point.on_frontier} == {"c2", "c3"}
    assert found.reference == pytest.approx((0, 0.8))
    assert found.hypervolume == pytest.approx(0.4 * 0.7 + 0.2 * 0.1)
    assert (found.learning_unit, found.forgetting_unit) == ("score", "score")
    for point in found.points:
        assert point.learning_low <= point.learning <= point.learning_high
        assert point.forgetting_low <= point.forgetting <= point.forgetting_high


def test_intervals_are_those_of_the_paired_difference() -> None:
    domain, general = RNG.integers(0, 2, 400).astype(float), RNG.integers(0, 2, 400).astype(float)
    changed = general.copy()
    changed[:20] = 1 - changed[:20]
    found = frontier(candidate(1, domain, general), [candidate(2, domain, changed)])
    width = found.points[1].forgetting_high - found.points[1].forgetting_low
    paired = 2 * 1.645 * (changed - general).std() / 20
    assert width == pytest.approx(paired, rel=0.1)
    assert found.points[1].learning_high - found.points[1].learning_low == 0  # the same answers, resampled or not


def test_equal_arms_share_the_frontier_whatever_their_items() -> None:
    base = candidate(1, binary(0.2), binary(0.8))
    gained = binary(0.4)
    found = frontier(base, [candidate(2, gained, binary(0.8)), candidate(3, gained[::-1].copy(), binary(0.8))])
    assert [point.on_frontier for point in found.points] == [False, True, True]


def test_a_close_call_is_a_matter_of_probability() -> None:
    base = candidate(1, np.zeros(400), np.ones(400))
    one, two = RNG.random(400) < 0.5, RNG.random(400) < 0.5
    found = frontier(
        base, [candidate(2, one.astype(float), np.ones(400)), candidate(3, two.astype(float), np.ones(400))]
    )
    often = [point.p_on_frontier for point in found.points[1:]]
    assert all(0.02 < p < 0.98 for p in often)
    assert sum(often) >= 1


def test_tasks_in_other_units_and_incomplete_arms_are_named() -> None:
    extra = [perplexity([-3.0] * 9), scores([1.0] * 9, task="more")]
    base = Candidate("b", BASE, [task("domain", binary(0.2)), task("general", binary(0.8)), *extra])
    whole = Candidate("w", checkpoint(2, parent=BASE), base.scores)
    part = Candidate("p", checkpoint(3, parent=BASE), base.scores[:1])
    found = frontier(base, [whole, part])
    assert found.left_out == ("s/t",)
    assert found.incomplete == ("p",)
    assert [point.arm for point in found.points] == ["b", "w"]


def test_an_axis_without_scores_is_no_evidence() -> None:
    with pytest.raises(EvidenceError, match="b has no scores on any general suite"):
        frontier(Candidate("b", BASE, [task("domain", binary(0.2))]), [])


def test_other_samples_than_the_bases_are_refused() -> None:
    base = candidate(1, binary(0.2), binary(0.8))
    moved = Candidate("m", checkpoint(2, parent=BASE), [task("domain", binary(0.2, 399)), task("general", binary(0.8))])
    with pytest.raises(EvidenceError, match="its samples of domain/domain are not the base's"):
        frontier(base, [moved])


def test_the_same_scores_give_the_same_frontier() -> None:
    base = candidate(1, binary(0.2), binary(0.8))
    arms = [candidate(2, binary(0.6), binary(0.7))]
    assert frontier(base, arms) == frontier(base, arms)
