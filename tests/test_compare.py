"""Paired comparisons and their totals, on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from evalsvc.compare import compare, compare_task, task_shares, totals, unit_of
from evalsvc.errors import EvidenceError
from evalsvc.records import Aggregation, TaskScores
from evalsvc.stats.paired import tango_interval


def scores(values: Sequence[float], **changes: object) -> TaskScores:
    made = TaskScores(
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
    return replace(made, **changes)  # type: ignore[arg-type]


def perplexity(values: Sequence[float], aggregation: Aggregation = "bits_per_byte") -> TaskScores:
    return scores(
        values,
        metric=aggregation,
        aggregation=aggregation,
        higher_is_better=False,
        weights=np.arange(10.0, 10 + len(values)),
    )


def test_binary_items_are_counted_and_have_tangos_interval() -> None:
    base, adapted = scores([1, 1, 1, 0, 0] * 40), scores([1, 1, 0, 0, 1] * 40)
    found = compare_task(base, adapted)
    assert (found.n, found.lost, found.gained, found.difference) == (200, 40, 40, 0.0)
    assert (found.low, found.high) == tango_interval(40, 40, 200)
    assert (found.test, found.unit, found.coverage) == ("Tango score", "score", 1.0)


def test_samples_are_paired_by_identity_not_by_row() -> None:
    base = scores([1, 0, 1, 0], samples=np.array([3, 5, 7, 9]))
    adapted = scores([0, 1, 1], samples=np.array([5, 7, 11]))
    found = compare_task(base, adapted)
    assert (found.n, found.lost, found.gained, found.coverage) == (2, 0, 0, 0.5)


def test_graded_items_have_the_paired_t() -> None:
    rng = np.random.default_rng(0)
    base, adapted = rng.random(50), rng.random(50)
    found = compare_task(scores(base.tolist()), scores(adapted.tolist()))
    expected = stats.ttest_rel(adapted, base).confidence_interval(0.90)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.lost, found.gained, found.test) == (None, None, "paired t")


def test_bits_per_byte_are_paired_by_document_and_lower_is_better() -> None:
    base, adapted = perplexity([-30.0, -50, -40, -60]), perplexity([-33.0, -52, -47, -61])
    found = compare_task(base, adapted)
    weight = 10 + 11 + 12 + 13
    assert found.base == pytest.approx(180 / weight / math.log(2))
    assert found.difference == pytest.approx(13 / weight / math.log(2))
    assert found.gain == -found.difference
    assert found.low is not None
    assert 0 < found.low < found.difference
    assert found.unit == "bits_per_byte"


def test_a_metric_with_an_aggregation_of_its_own_has_no_interval() -> None:
    found = compare_task(scores([1, 2, 3], aggregation="other"), scores([1, 2, 4], aggregation="other"))
    assert (found.low, found.high, found.stderr, found.test) == (None, None, None, "none")


def test_an_unchanged_model_differs_by_nothing() -> None:
    found = compare_task(perplexity([-30.0, -50, -40]), perplexity([-30.0, -50, -40]))
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_missing_tasks_and_disjoint_samples_are_no_evidence() -> None:
    with pytest.raises(EvidenceError, match=r"1 tasks have no scores to compare \(s/t\)"):
        compare([scores([1])], [])
    with pytest.raises(EvidenceError, match="no sample in common"):
        compare_task(scores([1]), scores([1], samples=np.array([7])))


def test_units_keep_what_cannot_be_averaged_apart() -> None:
    assert unit_of(scores([0.2, 1])) == "score"
    assert unit_of(scores([20, 90])) == "acc"
    assert unit_of(perplexity([-1.0])) == "bits_per_byte"


def test_totals_are_means_over_suites_with_the_worst_task_beside_them() -> None:
    pairs = [
        (scores([1] * 10, suite="a", task="x"), scores([1] * 8 + [0] * 2, suite="a", task="x")),
        (scores([1] * 10, suite="a", task="y", weight=3), scores([1] * 10, suite="a", task="y", weight=3)),
        (scores([0] * 10, suite="b", task="z"), scores([1] * 4 + [0] * 6, suite="b", task="z")),
        (perplexity([-30.0, -40, -50]), perplexity([-20.0, -30, -40])),
    ]
    by_unit = {total.unit: total for total in totals([compare_task(*pair) for pair in pairs])}
    score = by_unit["score"]
    assert score.difference == pytest.approx((-0.2 * 0.25 + 0 * 0.75 + 0.4) / 2)
    assert (score.suites, score.tasks, score.worst_task) == (2, 3, "x")
    assert score.worst_difference == pytest.approx(-0.2)
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.difference < score.high
    assert by_unit["bits_per_byte"].difference > 0  # fewer bits: better, whatever the metric's own sign


def test_a_total_over_a_task_without_an_interval_has_none() -> None:
    odd = compare_task(scores([1, 2], aggregation="other"), scores([1, 3], aggregation="other"))
    (total,) = totals([odd])
    assert (total.low, total.high) == (None, None)


def test_shares_add_up_to_one() -> None:
    shares = task_shares([("a", 1.0), ("a", 3.0), ("b", 5.0)])
    assert shares == pytest.approx([0.125, 0.375, 0.5])
