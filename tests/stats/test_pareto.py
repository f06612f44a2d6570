"""Frontier and hypervolume against published tables."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from evalsvc.stats.pareto import dominates, find_dominators, hypervolume, non_dominated, rank_densely, read_off
from tests.support.published import CPT_GENERAL, CPT_HUMAN_EVAL, GENERAL, HUMAN_EVAL, Table


def points(x: Table, y: Table, methods: list[str]) -> np.ndarray:
    return np.array([pair for m in methods for pair in zip(x[m], y[m], strict=True)])


def names(x: Table, epochs: list[str]) -> list[str]:
    return [f"{method}@{epoch}" for method in x for epoch in epochs]


def test_frontier_of_code_ift() -> None:
    found = non_dominated(points(HUMAN_EVAL, GENERAL, list(HUMAN_EVAL)))
    labels = names(HUMAN_EVAL, ["1", "2", "4", "8", "16"])
    assert {label for label, on in zip(labels, found, strict=True) if on} == {"r256@2", "r64@4", "r256@4"}


def test_frontier_of_code_cpt() -> None:
    found = non_dominated(points(CPT_HUMAN_EVAL, CPT_GENERAL, list(CPT_HUMAN_EVAL)))
    labels = names(CPT_HUMAN_EVAL, ["0.25", "0.5", "1", "2", "4", "8", "16", "20"])
    assert {label for label, on in zip(labels, found, strict=True) if on} == {
        *("r64@2", "r16@4", "r16@8", "r16@16", "r64@8"),
        *("r256@8", "r256@16", "r256@20", "full@8", "full@20"),
    }


@pytest.mark.parametrize(
    ("methods", "reference", "area"),
    [
        (["r16", "r64", "r256", "full"], (0, 0), 0.325050),
        (["r16"], (0, 0), 0.233613),
        (["r64"], (0, 0), 0.270234),
        (["r256"], (0, 0), 0.325018),
        (["full"], (0, 0), 0.288602),
        (["r16", "r64", "r256", "full"], (0.138, 0.400), 0.090108),
        (["r256"], (0.138, 0.400), 0.090076),
        (["full"], (0.138, 0.400), 0.062892),
    ],
)
def test_hypervolume_of_code_ift(methods: list[str], reference: tuple[float, float], area: float) -> None:
    assert hypervolume(points(HUMAN_EVAL, GENERAL, methods), reference) == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize(
    ("methods", "area"), [(["r16", "r64", "r256", "full"], 0.166054), (["full"], 0.161252), (["r256"], 0.143208)]
)
def test_hypervolume_of_code_cpt(methods: list[str], area: float) -> None:
    assert hypervolume(points(CPT_HUMAN_EVAL, CPT_GENERAL, methods), (0, 0)) == pytest.approx(area, abs=1e-6)


def test_hypervolume_of_moocores_example() -> None:
    corners = np.array([(5.0, 5), (4, 6), (2, 7), (7, 4)])
    assert hypervolume(corners, (0, 0)) == 39
    assert hypervolume(-corners, (-10, -10)) == 38  # minimised against (10, 10)
    assert hypervolume(np.array([(-2.0, -2)]), (-4, -4)) == 4
    assert hypervolume(np.array([(-3.0, -1)]), (-4, -4)) == 3
    with_dominated = np.vstack([corners, [(1.0, 1), (4, 5)]])
    assert hypervolume(with_dominated, (0, 0)) == 39


def test_equal_points_do_not_dominate_each_other() -> None:
    assert non_dominated(np.array([(1.0, 1), (1, 1), (0, 1)])).tolist() == [True, True, False]


def test_leading_axes_are_independent_sets() -> None:
    sets = np.array([[(0.0, 0), (1, 1)], [(1, 1), (0, 0)]])
    assert non_dominated(sets).tolist() == [[False, True], [True, False]]


def test_hypervolume_in_three_dimensions() -> None:
    corners = np.array([(1.0, 0, 1), (0, 1, 0)])
    assert hypervolume(-corners, (-2, -2, -2)) == 5  # moocore: minimised against (2, 2, 2)
    rng = np.random.default_rng(0)
    points = rng.random((12, 3))
    drawn = rng.random((40_000, 3))
    covered = np.mean([(row <= points).all(axis=1).any() for row in drawn])
    assert hypervolume(points, (0, 0, 0)) == pytest.approx(covered, abs=0.005)
    assert hypervolume(np.array([(3.0,), (5,)]), (1,)) == 4
    assert hypervolume(np.empty((0, 2)), (0, 0)) == 0


def in_ranks(sets: np.ndarray) -> np.ndarray:
    """The ranks of points [sets, arms, axes] on each axis."""
    return np.stack([rank_densely(sets[..., axis]) for axis in range(sets.shape[-1])], axis=-1)


def in_full(sets: np.ndarray) -> np.ndarray:
    """Whether the first arm dominates the second, [sets, arms, arms], all pairs at once."""
    first, second = sets[:, :, None], sets[:, None]
    return np.asarray((first >= second).all(axis=-1) & (first > second).any(axis=-1))


@pytest.mark.parametrize("axes", [2, 3])
def test_sweep_and_sums_equal_all_pairs_at_once(axes: int) -> None:
    rng = np.random.default_rng(3)
    sets = np.concatenate([rng.integers(0, 5, (200, 12, axes)), rng.integers(0, 40, (200, 12, axes))]).astype(float)
    everything = in_full(sets)
    np.testing.assert_array_equal(non_dominated(sets), ~everything.any(axis=1))
    np.testing.assert_array_equal(non_dominated(in_ranks(sets)), ~everything.any(axis=1))
    for one, whole in zip(in_ranks(sets), everything, strict=True):
        np.testing.assert_array_equal(dominates(one, one), whole)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("level", [0.6, 0.9, 0.995, 1.0])
def test_who_dominates_for_certain_is_found_by_asking_the_best_first(axes: int, level: float) -> None:
    rng = np.random.default_rng(7)
    where = rng.normal(size=(40, axes))
    sets = (where + rng.normal(size=(600, 40, axes)) * rng.choice([0.05, 0.6], size=(40, 1))).round(1)
    ranks, best, shares = in_ranks(sets), non_dominated(where), in_full(sets).mean(axis=0)
    found = find_dominators(ranks, best, level)
    np.testing.assert_array_equal(found >= 0, shares.max(axis=0) >= level)
    for arm, by in enumerate(found):
        if by >= 0:
            asked = shares[best, arm] if shares[best, arm].max() >= level else shares[:, arm]
            assert shares[by, arm] == asked.max()
    assert 0 < (found >= 0).sum() < 40


def test_a_thousand_arms_take_megabytes() -> None:
    sets = np.random.default_rng(5).normal(size=(2000, 1000, 2))
    tracemalloc.start()
    ranks = in_ranks(sets)
    often = non_dominated(ranks).mean(axis=0)
    found = find_dominators(ranks, non_dominated(sets[0]), 0.2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400e6  # all pairs of all sets at once would take 2e9
    assert (found >= 0).all()  # independent axes: a quarter of the arms dominates each in a quarter of the sets
    assert often.mean() * 1000 == pytest.approx(np.sum(1 / np.arange(1, 1001)), rel=0.02)  # records of a random order


def test_ranks_of_some_of_the_arms_will_do() -> None:
    sets = np.random.default_rng(4).normal(size=(50, 300, 2))
    some = np.arange(0, 300, 60)
    np.testing.assert_array_equal(non_dominated(in_ranks(sets)[:, some]), non_dominated(sets[:, some]))


def test_domination_says_who() -> None:
    points = np.array([(2.0, 2, 2), (1, 2, 2), (3, 0, 0)])
    found = dominates(points, points)
    assert found.tolist() == [[False, True, False], [False] * 3, [False] * 3]


def test_reading_off_a_frontier() -> None:
    x, y = np.array([(0.0, 0.0), (0.2, -0.1), (0.4, -0.3), (0.3, -0.5)]).T
    assert read_off(x, y, 0.3) == pytest.approx(-0.2)  # between the second and third; the fourth is dominated
    assert read_off(x, y, -1) == 0.0
    assert read_off(x, y, 0.2) == pytest.approx(-0.1)
    assert np.isnan(read_off(x, y, 0.5))
    sets = np.random.default_rng(1).integers(0, 6, (300, 5, 2)).astype(float)
    for at in (-1.0, 0.0, 2.5, 3.0, 6.0):
        expected = []
        for one in sets:
            curve = np.unique(one[non_dominated(one)], axis=0)
            expected.append(np.interp(at, curve[:, 0], curve[:, 1], right=np.nan))
        np.testing.assert_allclose(read_off(sets[..., 0], sets[..., 1], at), expected)


@pytest.mark.parametrize(("x", "y"), [(HUMAN_EVAL, GENERAL), (CPT_HUMAN_EVAL, CPT_GENERAL)])
def test_both_tables_lie_where_the_figures_base_lines_say(x: Table, y: Table) -> None:
    """The base is at HumanEval .138 and general .671: nothing forgot less than nothing, and full forgets most."""
    found = points(x, y, list(x))
    assert (found[:, 0] >= 0.138).all()
    assert (found[:, 1] <= 0.671).all()
    assert min(y["full"]) == found[:, 1].min()


def test_full_learns_more_and_forgets_more_at_20_billion_tokens() -> None:
    assert (CPT_GENERAL["full"][-1], CPT_GENERAL["r256"][-1]) == (0.545, 0.617)
    last = points(CPT_HUMAN_EVAL, CPT_GENERAL, ["full", "r256"])[[7, 15]]
    assert dominates(last, last).sum() == 0
