"""Placing arms: signs, pairing, uncertainty."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from evalsvc.analysis.frontier import (
    ROLES,
    ArmPositions,
    FrontierOptions,
    build_axis,
    build_positions,
    compare_methods,
    find_frontier,
)
from evalsvc.analysis.suite_gains import Candidate, measure_gains
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.arms import Cost
from evalsvc.records.comparisons import Missing
from evalsvc.records.frontier import EqualLevels, Frontier, MethodDifference
from evalsvc.records.scores import TaskScores
from evalsvc.reports.frontier import FrontierReport
from tests.support.fakes import make_checkpoint
from tests.support.scores import known, make_scores, make_text_scores

BASE = make_checkpoint(1)
RNG = np.random.default_rng(11)


def task(role: Literal["domain", "general"], values: np.ndarray) -> TaskScores:
    return make_scores(values.tolist(), suite=role, role=role, task=role)


def measured(base: Candidate, arms: list[Candidate]) -> ArmPositions:
    found = measure_gains(base, arms)
    return build_positions(found, *(build_axis(found, role) for role in ROLES))


def frontier(base: Candidate, arms: list[Candidate], *wish: FrontierOptions) -> Frontier:
    return find_frontier(measured(base, arms), *wish)


def compared(base: Candidate, arms: list[Candidate], *wish: FrontierOptions) -> EqualLevels:
    return compare_methods(measured(base, arms), *wish)


def candidate(number: int, domain: np.ndarray, general: np.ndarray) -> Candidate:
    of = BASE if number == 1 else make_checkpoint(number, parent=BASE)
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
        assert known(point.learning_low) <= point.learning <= known(point.learning_high)
        assert known(point.forgetting_low) <= point.forgetting <= known(point.forgetting_high)


def test_intervals_are_those_of_the_paired_difference() -> None:
    domain, general = RNG.integers(0, 2, 400).astype(float), RNG.integers(0, 2, 400).astype(float)
    changed = general.copy()
    changed[:20] = 1 - changed[:20]
    found = frontier(candidate(1, domain, general), [candidate(2, domain, changed)])
    width = known(found.points[1].forgetting_high) - known(found.points[1].forgetting_low)
    paired = 2 * 1.645 * (changed - general).std() / 20
    assert width == pytest.approx(paired, rel=0.1)
    # Nothing changed in 400 items: Tango's bound of 0 losses, z^2 / (n + z^2), not an interval without width.
    unseen = 1.6449**2 / (400 + 1.6449**2)
    assert found.points[1].learning_high == pytest.approx(unseen, rel=0.01)
    assert found.points[1].learning_low == pytest.approx(-unseen, rel=0.01)


def test_what_was_forgotten_per_unit_learned_is_told_where_something_was_learned() -> None:
    base = candidate(1, binary(0.2, 2000), binary(0.8, 2000))
    arms = [candidate(2, binary(0.6, 2000), binary(0.7, 2000)), candidate(3, binary(0.2, 2000), binary(0.7, 2000))]
    point, nothing = frontier(base, arms).points[1:]
    assert point.exchange == pytest.approx(0.1 / 0.4)
    assert (nothing.exchange, nothing.exchange_low, nothing.exchange_high) == (None, None, None)
    # The delta method: with independent axes the relative variances of a ratio's ends add up.
    relative = np.sqrt(0.9 / 0.1 / 2000 + 0.6 / 0.4 / 2000)
    assert point.exchange_low == pytest.approx(0.25 * (1 - 1.645 * relative), rel=0.03)
    assert point.exchange_high == pytest.approx(0.25 * (1 + 1.645 * relative), rel=0.03)


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
    often = [known(point.p_on_frontier) for point in found.points[1:]]
    assert all(0.02 < p < 0.98 for p in often)
    assert sum(often) >= 1


def test_tasks_in_other_units_and_incomplete_arms_are_named() -> None:
    extra = [make_text_scores([-3.0] * 9), make_scores([1.0] * 9, task="more")]
    base = Candidate("b", BASE, [task("domain", binary(0.2)), task("general", binary(0.8)), *extra])
    whole = Candidate("w", make_checkpoint(2, parent=BASE), base.scores)
    part = Candidate("p", make_checkpoint(3, parent=BASE), base.scores[:1])
    found = frontier(base, [whole, part])
    assert found.left_out == ("s/t",)
    assert found.missing == (Missing("p", ("general", "s")),)
    assert [point.arm for point in found.points] == ["b", "w"]


def test_an_axis_without_scores_is_no_evidence() -> None:
    with pytest.raises(EvidenceError, match="b has no scores on any general suite"):
        frontier(Candidate("b", BASE, [task("domain", binary(0.2))]), [])


def test_an_arm_with_other_samples_than_the_bases_is_not_placed() -> None:
    base = candidate(1, binary(0.2), binary(0.8))
    moved = Candidate(
        "m", make_checkpoint(2, parent=BASE), [task("domain", binary(0.2, 399)), task("general", binary(0.8))]
    )
    found = frontier(base, [moved])
    assert ([point.arm for point in found.points], found.missing) == (["c1"], (Missing("m", ("domain",)),))


def test_the_same_scores_give_the_same_frontier() -> None:
    base = candidate(1, binary(0.2), binary(0.8))
    arms = [candidate(2, binary(0.6), binary(0.7))]
    assert frontier(base, arms) == frontier(base, arms)


# ------------------------------------------------------------------------------------------- methods, axes, uncertainty


def method_arm(number: int, method: str, learning: float, forgetting: float, cost: Cost | None = None) -> Candidate:
    """Make an arm of a base that knows 20 % of the domain and 80 % of the general items, 1,000 of each."""
    made = candidate(number, binary(0.2 + learning, 1000), binary(0.8 - forgetting, 1000))
    of = replace(made.checkpoint, method=method, cost=cost or Cost())
    return Candidate(made.label, of, made.scores)


KNOWN = candidate(1, binary(0.2, 1000), binary(0.8, 1000))


def test_methods_are_compared_at_equal_learning_and_at_equal_forgetting() -> None:
    arms = [
        *(method_arm(2, "full", 0.2, 0.10), method_arm(3, "full", 0.4, 0.30)),
        *(method_arm(4, "lora", 0.2, 0.02), method_arm(5, "lora", 0.3, 0.06), method_arm(6, "lora", 0.25, 0.2)),
    ]
    equal = compared(KNOWN, arms, FrontierOptions(at_learning=0.25, at_forgetting=0.05))
    assert equal.learning is not None
    assert {read.method: read.value for read in equal.learning.methods} == pytest.approx({"full": 0.15, "lora": 0.04})
    (gap,) = equal.learning.gaps
    assert (gap.first, gap.second) == ("full", "lora")
    assert gap.value == pytest.approx(0.11)
    assert (gap.low or 0) > 0.05
    assert equal.forgetting is not None
    assert {read.method: read.value for read in equal.forgetting.methods} == pytest.approx({"full": 0.1, "lora": 0.275})
    found = frontier(KNOWN, arms)
    by_method = {method.method: method for method in found.methods}
    assert by_method["lora"].arms == ("c4", "c5")
    assert by_method["full"].hypervolume == pytest.approx(0.4 * 0.5 + 0.2 * 0.2)
    assert [point.arm for point in found.points if not point.on_method_frontier] == ["c1", "c6"]


def test_what_a_method_does_not_reach_is_not_read_off() -> None:
    arms = [method_arm(2, "full", 0.4, 0.30), method_arm(3, "lora", 0.2, 0.02)]
    found = compared(KNOWN, arms, FrontierOptions(at_learning=0.35)).learning
    assert found is not None
    reads = {read.method: read for read in found.methods}
    assert reads["full"].value == pytest.approx(0.3 * 0.35 / 0.4)
    assert (reads["lora"].value, reads["lora"].reached) == (None, 0.0)
    assert found.gaps == (MethodDifference(first="full", second="lora", value=None, low=None, high=None, reached=0.0),)
    everywhere = compared(KNOWN, arms).learning
    assert everywhere is not None
    assert 0.15 < everywhere.at < 0.2
    assert all(known(read.reached) >= 0.95 for read in everywhere.methods)


def test_the_level_that_an_arm_has_is_reached_in_spite_of_round_off() -> None:
    arms = [method_arm(2, "full", 0.4, 0.30), method_arm(3, "lora", 0.155, 0.02)]
    plane = measured(KNOWN, arms)
    best = plane.learning.gain[2]
    assert best == pytest.approx(0.155)
    for at in (0.155, best - 1e-12, best + 1e-12):
        equal = compare_methods(plane, FrontierOptions(at_learning=at)).learning
        assert equal is not None
        assert equal.methods[1].value == pytest.approx(0.02)


def test_a_level_that_few_resamples_reach_has_no_interval() -> None:
    """The share is that of a normal distribution with the gain's standard error; 200 of 1,000 items are gained."""
    arms = [method_arm(2, "full", 0.4, 0.30), method_arm(3, "lora", 0.2, 0.02)]
    error = (0.2 * 0.8 / 1000) ** 0.5
    for at, has_interval in ((0.19, True), (0.2 + 1.5 * error, False), (0.2 + 3.2 * error, False)):
        equal = compared(KNOWN, arms, FrontierOptions(at_learning=at)).learning
        assert equal is not None
        for read in (equal.methods[1], equal.gaps[0]):
            assert read.reached == pytest.approx(stats.norm.sf((at - 0.2) / error), abs=0.02)
            assert (read.low is not None, read.high is not None) == (has_interval, has_interval)
            assert (read.value is not None) == has_interval
        assert equal.methods[0].low is not None


def test_methods_of_which_one_hardly_learned_are_not_compared_at_no_learning() -> None:
    """At learning 0 every method would be read off at the base: equal, without any uncertainty."""
    arms = [method_arm(2, "full", 0.05, 0.1), method_arm(3, "lora", 0.002, 0.02)]
    plane = measured(KNOWN, arms)
    assert compare_methods(plane).learning is None
    named = compare_methods(plane, FrontierOptions(at_learning=0.002)).learning
    assert named is not None
    assert [read.value for read in named.methods] == pytest.approx([0.1 * 0.002 / 0.05, 0.02])
    report = FrontierReport(find_frontier(plane), compare_methods(plane))
    assert "Not compared at equal learning" in str(report)


def test_the_gap_at_equal_learning_covers_at_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods that forget .08 and .04 where both learned .2: the interval holds .04 in 90 % of the runs."""
    monkeypatch.setattr("evalsvc.analysis.suite_gains.REPLICATES", 400)
    rng = np.random.default_rng(5)
    n, covered, runs = 300, 0, 100

    def arm(number: int, method: str, learned: float, forgot: float) -> Candidate:
        domain = np.where(rng.random(n) < learned, 1.0, 0.0)
        general = np.where(rng.random(n) < forgot, 0.0, 1.0)
        made = candidate(number, domain, general)
        return Candidate(made.label, replace(made.checkpoint, method=method), made.scores)

    base = candidate(1, np.zeros(n), np.ones(n))
    for _ in range(runs):
        arms = [arm(2, "full", 0.4, 0.16), arm(3, "lora", 0.4, 0.08)]
        found = compared(base, arms, FrontierOptions(at_learning=0.2)).learning
        assert found is not None
        covered += (found.gaps[0].low or 0) <= 0.04 <= (found.gaps[0].high or 0)
    assert covered / runs == pytest.approx(0.90, abs=0.08)


def test_costs_are_axes_and_the_base_cost_nothing() -> None:
    arms = [
        method_arm(2, "full", 0.4, 0.10, Cost(gpu_hours=8.0)),
        method_arm(3, "lora", 0.3, 0.12, Cost(gpu_hours=1.0)),
        method_arm(4, "ia3", 0.2, 0.15),
    ]
    plain = {point.arm: point.on_frontier for point in frontier(KNOWN, arms).points}
    assert plain == {"c1": True, "c2": True, "c3": False, "c4": False}
    found = frontier(KNOWN, arms, FrontierOptions(axes=("learning", "forgetting", "gpu_hours")))
    assert {point.arm: point.on_frontier for point in found.points} == {"c1": True, "c2": True, "c3": True}
    assert found.missing == (Missing("c4", ("gpu_hours",)),)
    assert found.reference == pytest.approx((0, 0.8, 8.8))
    boxes = 0.4 * 0.7 * 0.8 + 0.3 * 0.68 * 7.0  # full's, and lora's beyond the hours that full needs
    assert found.hypervolume == pytest.approx(boxes)
    assert compared(KNOWN, arms, FrontierOptions(axes=("learning", "gpu_hours"))) == EqualLevels()
    with pytest.raises(UsageError, match="must be two or more of learning, forgetting, gpu_hours"):
        frontier(KNOWN, arms, FrontierOptions(axes=("learning", "speed")))


def test_arms_whose_cost_is_not_known_change_nothing_for_the_others() -> None:
    rng = np.random.default_rng(2)
    shares = rng.random((30, 2))
    arms = [
        method_arm(2 + i, "lora", x - 0.2, 0.8 - y, Cost(gpu_hours=1.0 + i) if i % 5 == 0 else None)
        for i, (x, y) in enumerate(shares)
    ]
    wish = FrontierOptions(axes=("learning", "forgetting", "gpu_hours"))
    without = frontier(KNOWN, [arm for arm in arms if arm.checkpoint.cost.gpu_hours], wish)
    found = frontier(KNOWN, arms, wish)
    assert len(found.missing) == 24
    for one, other in zip(found.points, without.points, strict=True):
        assert (one.arm, one.p_on_frontier, one.dominated_by) == (other.arm, other.p_on_frontier, other.dominated_by)


def test_only_what_is_beyond_doubt_is_called_beaten() -> None:
    arms = [method_arm(2, "full", 0.40, 0.10), method_arm(3, "lora", 0.39, 0.11), method_arm(4, "ia3", 0.1, 0.3)]
    found = {point.arm: point for point in frontier(KNOWN, arms).points}
    assert found["c4"].dominated_by in {"c2", "c3"}
    assert found["c2"].dominated_by is None
    rng = np.random.default_rng(0)
    noisy = candidate(5, (rng.random(1000) < 0.6).astype(float), (rng.random(1000) < 0.69).astype(float))
    close = {point.arm: point for point in frontier(KNOWN, [*arms, noisy]).points}
    assert close["c5"].dominated_by is None


def test_dominated_is_corrected_for_the_number_of_arms() -> None:
    rng = np.random.default_rng(17)
    base = candidate(1, np.zeros(300), np.ones(300))
    better = candidate(2, (rng.random(300) < 0.60).astype(float), (rng.random(300) < 0.85).astype(float))
    worse = candidate(3, (rng.random(300) < 0.51).astype(float), (rng.random(300) < 0.77).astype(float))
    plane = measured(base, [better, worse])
    learned, kept = plane.learning.resampled, plane.forgetting.resampled
    share = float(((learned[:, 1] > learned[:, 2]) & (kept[:, 1] > kept[:, 2])).mean())
    assert 1 - 0.05 / 2 < share < 1 - 0.05 / 12  # Bonferroni over two arms, and over twelve
    others = [candidate(i, np.zeros(300), np.zeros(300)) for i in range(4, 14)]
    few, many = (
        {point.arm: point for point in frontier(base, arms).points}
        for arms in ([better, worse], [better, worse, *others])
    )
    assert few["c3"].dominated_by == "c2"
    assert many["c3"].dominated_by is None


def test_nothing_is_beaten_beyond_doubt_among_equals() -> None:
    """Eight arms with one truth: in at least 95 % of the runs none is said to be dominated."""
    rng = np.random.default_rng(9)
    wrong = 0
    for _ in range(40):
        base = candidate(1, np.zeros(200), np.ones(200))
        arms = [
            candidate(i, (rng.random(200) < 0.5).astype(float), (rng.random(200) < 0.8).astype(float))
            for i in range(2, 10)
        ]
        wrong += any(point.dominated_by for point in frontier(base, arms).points[1:])
    assert wrong <= 5


def test_ellipses_are_those_of_the_intervals() -> None:
    rng = np.random.default_rng(1)
    base = candidate(1, np.zeros(400), np.ones(400))
    other = candidate(2, (rng.random(400) < 0.5).astype(float), (rng.random(400) < 0.9).astype(float))
    point = frontier(base, [other]).points[1]
    assert point.ellipse is not None
    # Half-axes of the joint 90 % region are sqrt(4.605) standard errors, of the 90 % intervals 1.645.
    learned, forgot = (
        known(high) - known(low)
        for low, high in (
            (point.learning_low, point.learning_high),
            (point.forgetting_low, point.forgetting_high),
        )
    )
    assert point.ellipse.major == pytest.approx(learned / 2 * 1.304, rel=0.05)
    assert point.ellipse.minor == pytest.approx(forgot / 2 * 1.304, rel=0.05)
    assert min(point.ellipse.angle, 180 - point.ellipse.angle) < 10


def test_clusters_are_resampled_as_one() -> None:
    rng = np.random.default_rng(2)
    base = candidate(1, binary(0.2), np.ones(400))
    flips = np.repeat(rng.random(40) < 0.2, 10)
    other = candidate(2, binary(0.4), np.where(flips, 0.0, 1.0))

    def width(clusters: np.ndarray | None) -> float:
        arms = [
            Candidate(c.label, c.checkpoint, [replace(s, clusters=clusters) for s in c.scores]) for c in (base, other)
        ]
        point = frontier(arms[0], arms[1:]).points[1]
        return known(point.forgetting_high) - known(point.forgetting_low)

    assert width(np.repeat(np.arange(40), 10)) > 2.5 * width(None)


def test_memory_does_not_grow_with_arms_times_resamples_times_items() -> None:
    def peak(count: int, items: int = 1000) -> int:
        arms = []
        for i in range(count + 1):
            domain, general = (RNG.random(items) < 0.2 + i / 40, RNG.random(items) < 0.9 - i / 40)
            arms.append(candidate(i + 1, domain.astype(float), general.astype(float)))
        tracemalloc.start()
        try:
            assert len(frontier(arms[0], arms[1:]).points) == count + 1
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(16) < 1.5 * peak(4)
