"""What arms gained on each suite: in any selection, whoever has done it."""

from __future__ import annotations

import numpy as np
import pytest

from evalsvc.analysis.frontier import ROLES, ArmPositions, build_axis, build_positions, find_frontier
from evalsvc.analysis.suite_gains import Candidate, Gains, measure_gains
from evalsvc.errors import EvidenceError
from evalsvc.records.comparisons import Missing
from evalsvc.records.scores import TaskScores
from tests.support.fakes import make_checkpoint
from tests.support.scores import make_scores

BASE = make_checkpoint(1)
RNG = np.random.default_rng(5)
SUITES = ("clinic", "law", "mmlu", "commands")


def suite(name: str, share: float, weight: float = 1.0, task: str = "one") -> TaskScores:
    role = "domain" if name in {"clinic", "law"} else "general"
    values = (RNG.random(300) < share).astype(float).tolist()
    return make_scores(values, suite=name, role=role, task=task, weight=weight)


def candidate(number: int, *found: TaskScores) -> Candidate:
    return Candidate(f"c{number}", make_checkpoint(number, parent=BASE if number > 1 else None), found)


ARMS = [candidate(i, *(suite(name, 0.3 + 0.05 * i) for name in SUITES)) for i in range(1, 6)]


def on(measured: Gains, *suites: str) -> ArmPositions:
    return build_positions(measured, *(build_axis(measured, role, suites) for role in ROLES))


def test_suites_add_up_in_any_selection_as_if_there_were_no_others() -> None:
    whole = measure_gains(ARMS[0], ARMS[1:])
    for chosen in (("clinic", "mmlu"), ("clinic", "law", "commands"), SUITES):
        some = [Candidate(a.label, a.checkpoint, [s for s in a.scores if s.suite in chosen]) for a in ARMS]
        alone = measure_gains(some[0], some[1:])
        assert find_frontier(on(whole, *chosen)) == find_frontier(on(alone, *SUITES))
    one, two, both = (on(whole, *domain, "mmlu").learning for domain in (("clinic",), ("law",), ("clinic", "law")))
    np.testing.assert_allclose(both.resampled, (one.resampled + two.resampled) / 2)
    assert abs(np.corrcoef(one.resampled[:, 1], two.resampled[:, 1])[0, 1]) < 0.1


def test_tasks_count_by_weight_and_suites_all_the_same() -> None:
    base = candidate(1, suite("clinic", 0.5, 3.0), suite("clinic", 0.5, 1.0, "two"), suite("law", 0.5))
    arm = candidate(2, suite("clinic", 0.7, 3.0), suite("clinic", 0.5, 1.0, "two"), suite("law", 0.6))
    first, second, law = (a.values.mean() - b.values.mean() for a, b in zip(arm.scores, base.scores, strict=True))
    found = build_axis(measure_gains(base, [arm]), "domain")
    assert found.gain.tolist() == pytest.approx([0, (0.75 * first + 0.25 * second) / 2 + law / 2])
    low, high = found.ends[:, 1]
    assert low < found.gain[1] < high
    assert found.resampled[:, 1].mean() == pytest.approx(found.gain[1], abs=0.002)


def test_an_arm_is_placed_where_it_has_all_of_the_chosen_suites() -> None:
    late = Candidate("late", make_checkpoint(9, parent=BASE), [s for s in ARMS[3].scores if s.suite != "law"])
    measured = measure_gains(ARMS[0], [ARMS[1], late, ARMS[2]])
    assert on(measured, "law", "mmlu").missing == on(measured, *SUITES).missing == (Missing("late", ("law",)),)
    found = on(measured, "clinic", "mmlu")
    assert ([arm.label for arm in found.arms], found.missing) == (["c1", "c2", "late", "c3"], ())
    with_late, without = (find_frontier(on(m, *SUITES)) for m in (measured, measure_gains(ARMS[0], ARMS[1:3])))
    for one, other in zip(with_late.points, without.points, strict=True):
        assert (one.arm, one.p_on_frontier, one.dominated_by) == (other.arm, other.p_on_frontier, other.dominated_by)
        assert [one.learning_low, one.forgetting_high] == pytest.approx([other.learning_low, other.forgetting_high])


def test_suites_that_the_base_has_not_done_are_no_evidence() -> None:
    measured = measure_gains(ARMS[0], ARMS[1:])
    with pytest.raises(EvidenceError, match="c1 has no scores on any general suite"):
        build_axis(measured, "general", ("clinic",))
