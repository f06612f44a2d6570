"""Paired comparisons and their totals, on arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evalsvc.analysis.compare import compare_task, compare_tasks, compute_task_shares, compute_totals, find_unit
from evalsvc.errors import EvidenceError
from evalsvc.records.scores import identify_answer
from evalsvc.stats.estimates import clustered_error
from evalsvc.stats.paired import mcnemar, t_interval, tango_interval
from tests.support.scores import make_scores, make_text_scores


def test_binary_items_are_counted_and_have_tangos_interval() -> None:
    base, adapted = make_scores([1, 1, 1, 0, 0] * 40), make_scores([1, 1, 0, 0, 1] * 40)
    found = compare_task(base, adapted)
    assert (found.n, found.lost, found.gained, found.difference) == (200, 40, 40, 0.0)
    assert (found.low, found.high) == pytest.approx(tango_interval(40, 40, 200), abs=1e-12)
    assert (found.test, found.unit, found.coverage) == ("Tango score", "score", 1.0)


def test_samples_are_paired_by_identity_not_by_row() -> None:
    base = make_scores([1, 0, 1, 0], samples=np.array([3, 5, 7, 9]))
    adapted = make_scores([0, 1, 1], samples=np.array([5, 7, 11]))
    found = compare_task(base, adapted)
    assert (found.n, found.lost, found.gained, found.coverage) == (2, 0, 0, 0.5)


def test_graded_items_have_an_interval_near_that_of_the_paired_t() -> None:
    rng = np.random.default_rng(0)
    base, adapted = rng.random(500), rng.random(500)
    found = compare_task(make_scores(base.tolist()), make_scores(adapted.tolist()))
    expected = stats.ttest_rel(adapted, base).confidence_interval(0.90)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.001)
    assert found.p_value == pytest.approx(stats.ttest_rel(adapted, base).pvalue, abs=0.01)
    assert (found.lost, found.gained, found.test) == (None, None, "score over documents")


def test_bits_per_byte_are_paired_by_document_and_lower_is_better() -> None:
    base, adapted = make_text_scores([-30.0, -50, -40, -60]), make_text_scores([-33.0, -52, -47, -61])
    found = compare_task(base, adapted)
    weight = 10 + 11 + 12 + 13
    assert found.base == pytest.approx(180 / weight / math.log(2))
    assert found.difference == pytest.approx(13 / weight / math.log(2))
    assert found.gain == -found.difference
    assert found.low is not None
    assert 0 < found.low < found.difference
    assert found.unit == "bits_per_byte"


def test_a_metric_with_an_aggregation_of_its_own_has_no_interval() -> None:
    found = compare_task(make_scores([1, 2, 3], aggregation="other"), make_scores([1, 2, 4], aggregation="other"))
    assert (found.low, found.high, found.stderr, found.test) == (None, None, None, "none")


def test_an_unchanged_model_differs_by_nothing() -> None:
    found = compare_task(make_text_scores([-30.0, -50, -40]), make_text_scores([-30.0, -50, -40]))
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_missing_tasks_are_left_out_and_disjoint_samples_refused() -> None:
    assert compare_tasks([make_scores([1])], []) == []
    with pytest.raises(EvidenceError, match="no sample in common"):
        compare_task(make_scores([1]), make_scores([1], samples=np.array([7])))


def test_units_keep_what_cannot_be_averaged_apart() -> None:
    assert find_unit(make_scores([0.2, 1])) == "score"
    assert find_unit(make_scores([20, 90])) == "acc"
    assert find_unit(make_text_scores([-1.0])) == "bits_per_byte"


def test_totals_are_means_over_suites_with_the_worst_task_beside_them() -> None:
    pairs = [
        (make_scores([1] * 10, suite="a", task="x"), make_scores([1] * 8 + [0] * 2, suite="a", task="x")),
        (make_scores([1] * 10, suite="a", task="y", weight=3), make_scores([1] * 10, suite="a", task="y", weight=3)),
        (make_scores([0] * 10, suite="b", task="z"), make_scores([1] * 4 + [0] * 6, suite="b", task="z")),
        (make_text_scores([-30.0, -40, -50]), make_text_scores([-20.0, -30, -40])),
    ]
    by_unit = {total.unit: total for total in compute_totals([compare_task(*pair) for pair in pairs])}
    score = by_unit["score"]
    assert score.difference == pytest.approx((-0.2 * 0.25 + 0 * 0.75 + 0.4) / 2)
    assert (score.suites, score.tasks, score.worst_task) == (2, 3, "x")
    assert score.worst_difference == pytest.approx(-0.2)
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.difference < score.high
    assert by_unit["bits_per_byte"].difference > 0  # fewer bits: better, whatever the metric's own sign


def test_a_total_over_a_task_without_an_interval_has_none() -> None:
    odd = compare_task(make_scores([1, 2], aggregation="other"), make_scores([1, 3], aggregation="other"))
    (total,) = compute_totals([odd])
    assert (total.low, total.high) == (None, None)


def test_shares_add_up_to_one() -> None:
    shares = compute_task_shares([("a", 1.0), ("a", 3.0), ("b", 5.0)])
    assert shares == pytest.approx([0.125, 0.375, 0.5])


# ------------------------------------------------------------------------------------------------ what a mean hides


def binary(lost: int, gained: int, n: int = 400, right: int = 240) -> tuple[list[float], list[float]]:
    """Make a base with `right` of n items right, of which `lost` go wrong while `gained` others come right."""
    base, adapted = np.zeros(n), np.zeros(n)
    base[:right], adapted[lost : right + gained] = 1, 1
    return base.tolist(), adapted.tolist()


def test_binary_items_have_mcnemars_p_and_tasks_that_moved_are_named_after_holm() -> None:
    tables = {"worse": (60, 10), "better": (2, 40), "same": (20, 21), "nearly": (30, 14)}
    pairs = {name: binary(*counts) for name, counts in tables.items()}
    base, adapted = ([make_scores(pairs[name][side], task=name) for name in tables] for side in (0, 1))
    found = {c.task: c for c in compare_tasks(base, adapted)}
    assert {name: c.p_value for name, c in found.items()} == {n: mcnemar(*t).exact for n, t in tables.items()}
    assert {name: c.moved for name, c in found.items()} == {
        **{"worse": "worse", "better": "better"},
        **{"same": None, "nearly": "worse"},
    }
    assert found["nearly"].p_value == pytest.approx(0.0226, abs=1e-3)
    assert found["nearly"].p_holm == pytest.approx(2 * (found["nearly"].p_value or 0))


def test_a_perplexity_that_falls_moved_for_the_better() -> None:
    found = compare_tasks([make_text_scores([-30.0, -50, -40, -60])], [make_text_scores([-20.0, -39, -31, -49])])[0]
    assert found.moved == "better"
    assert found.difference < 0


def test_clusters_widen_the_interval_and_name_the_test() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), 10)
    base = rng.integers(0, 2, 400).astype(float)
    adapted = np.where(np.repeat(rng.random(40) < 0.2, 10), 0.0, base)
    one = make_scores(base.tolist(), clusters=clusters)
    found = compare_task(one, make_scores(adapted.tolist()))
    stderr, groups = clustered_error(adapted - base - (adapted - base).mean(), clusters)
    by_t = t_interval(float((adapted - base).mean()), stderr, 39)
    assert found.stderr == pytest.approx(stderr)
    assert found.low is not None
    assert found.low < by_t.low  # each cluster is lost whole or kept: t is too sure
    assert (found.test, found.clusters, groups) == ("score over clusters", 40, 40)
    plain = compare_task(make_scores(base.tolist()), make_scores(adapted.tolist()))
    assert (found.high or 0) - (found.low or 0) > 1.5 * ((plain.high or 0) - (plain.low or 0))
    assert found.lost == plain.lost


def test_few_clusters_are_said_and_one_cluster_decides_nothing() -> None:
    base, adapted = binary(20, 5)
    few = compare_task(make_scores(base, clusters=np.arange(400) % 7), make_scores(adapted))
    assert "only 7 clusters" in few.blind_spots
    one = compare_task(make_scores(base, clusters=np.zeros(400, dtype=np.int64)), make_scores(adapted))
    assert (one.low, one.p_value, one.test) == (None, None, "none")


def test_transitions_stand_beside_the_guessing_bracket_and_the_floor() -> None:
    base, adapted = binary(100, 80, 1000, 650)
    again = binary(30, 30, 1000, 650)[1]
    found = compare_task(make_scores(base, chance=0.25), make_scores(adapted), make_scores(again))
    assert found.chance is not None
    assert found.chance.lost_adjusted == pytest.approx(0.0568333, abs=1e-6)
    assert found.floor is not None
    assert (found.floor.lost, found.floor.net_lost) == pytest.approx((0.03, 0.07))
    assert compare_task(make_scores(base), make_scores(adapted)).floor is None


def test_agreement_and_parse_failures_are_counted_apart() -> None:
    nothing = np.zeros(4, dtype=bool)
    base = make_scores([1, 0, 0, 1], answers=np.array([1, 2, 3, 4]), invalid=nothing)
    adapted = make_scores([1, 0, 0, 0], answers=np.array([1, 2, 5, 6]), invalid=np.array([False, False, True, True]))
    found = compare_task(base, adapted)
    assert (found.agreement, found.invalid_base, found.invalid_adapted) == (0.5, 0, 2)
    assert compare_task(make_scores([1, 0]), make_scores([1, 0])).agreement is None


def test_two_right_answers_agree_however_they_are_written() -> None:
    texts = [
        ("False", "False."),
        ("42", "'42'"),
        ("(B)", "the answer is (B)"),
        ("no", "yes"),
        ("1.5", "15"),
        ("", "..."),
    ]
    base, adapted = (np.array([identify_answer(text) for text in side]) for side in zip(*texts, strict=True))
    assert (base == adapted).tolist() == [True, True, False, False, False, False]
    right = [1, 1, 1, 0, 0, 0]
    found = compare_task(make_scores(right, answers=base), make_scores(right, answers=adapted))
    assert found.agreement == 0.5


def test_confidence_that_no_longer_fits_is_a_drift() -> None:
    base, adapted = binary(100, 0)
    sure = np.full(400, 0.9)
    found = compare_task(make_scores(base, confidence=sure), make_scores(adapted, confidence=sure)).calibration
    assert found is not None
    assert found.brier_drift == pytest.approx(0.25 * (0.81 - 0.01))
    assert (found.brier_low or 0) > 0
    assert found.ece_drift == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("right", "chance", "spots"),
    [(400, 0.5, ("at ceiling",)), (52, 0.5, ("below chance",)), (203, 0.5, ("at chance",))],
)
def test_tasks_that_cannot_show_forgetting_say_so(right: int, chance: float, spots: tuple[str, ...]) -> None:
    base, adapted = binary(5, 0, 400, right)
    assert compare_task(make_scores(base, chance=chance), make_scores(adapted)).blind_spots == spots


def formats(*tables: tuple[int, int]) -> list[str | None]:
    pairs = [binary(*counts) for counts in tables]
    names = [f"f{i}" for i in range(len(tables))]
    base, adapted = (
        [make_scores(p[side], task=n, format_of=None if n == "f0" else "f0") for p, n in zip(pairs, names, strict=True)]
        for side in (0, 1)
    )
    return [c.format_loss for c in compare_tasks(base, adapted)]


def test_forgetting_that_vanishes_in_one_format_is_a_loss_of_format() -> None:
    assert formats((120, 5), (20, 21)) == ["format loss: no loss in f1", None]
    assert formats((120, 5), (100, 5)) == ["lost in every format", "lost in every format"]
    assert formats((40, 20), (30, 21)) == ["undecided: no other format has a significantly smaller loss", None]
    assert formats((120, 5)) == [None]


def test_scores_by_different_metrics_are_not_compared() -> None:
    with pytest.raises(EvidenceError, match=r"scored by acc \(none\) and acc_norm \(none\)"):
        compare_task(make_scores([1, 0]), make_scores([1, 0], metric="acc_norm"))


def test_holm_keeps_ten_unchanged_suites_from_crying_wolf() -> None:
    """500 items, 10 % change either way: uncorrected tests flag a third of the releases, Holm 2.9 %."""
    rng = np.random.default_rng(0)
    alarms = np.zeros(2)
    runs = 150
    for _ in range(runs):
        counts = rng.multinomial(500, [0.05, 0.05, 0.90], size=10)
        pairs = [binary(int(lost), int(gained), 500, 300) for lost, gained, _ in counts]
        base, adapted = ([make_scores(p[side], task=str(i)) for i, p in enumerate(pairs)] for side in (0, 1))
        found = compare_tasks(base, adapted)
        alarms += any((c.p_value or 0) <= 0.05 for c in found), any(c.moved for c in found)
    assert alarms[0] / runs > 0.2
    assert alarms[1] / runs <= 0.05
