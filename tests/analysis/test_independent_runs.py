"""Independent runs, against all partitions by brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from evalsvc.analysis.independent_runs import RunIdentity, merge_dependent_runs


def identify(label: str, values: dict[int, float], seed: int | None = None, method: str = "lora") -> RunIdentity:
    samples = np.array(sorted(values), dtype=np.int64)
    scores = {("s", "t"): (samples, np.array([values[sample] for sample in sorted(values)]))} if values else {}
    return RunIdentity(label=label, method=method, seed=seed, scores=scores)


def test_a_copy_with_fewer_items_is_the_same_run() -> None:
    whole = {0: 1.0, 1: 0.0, 2: 0.5}
    merged = merge_dependent_runs(
        [identify("a", whole), identify("b", {1: 0.0, 2: 0.5}), identify("c", {1: 1.0, 2: 0.5})]
    )
    assert [run.members for run in merged] == [(0, 1), (2,)]
    assert merged[0].reasons == ("b counts as one run with a: equal scores on all 2 items that both have",)


def test_runs_without_an_item_in_common_are_not_called_equal() -> None:
    assert len(merge_dependent_runs([identify("a", {0: 1.0}), identify("b", {1: 1.0}), identify("c", {})])) == 3


def test_steps_in_one_folder_are_one_run_whatever_seeds_they_have() -> None:
    runs = [replace(identify(f"lora@{seed}", {}, seed), folder="/runs/lora") for seed in (1, 2)]
    other = replace(identify("lora@3", {}, 3), folder="/again/lora")
    merged = merge_dependent_runs([*runs, other])
    assert [run.members for run in merged] == [(0, 1), (2,)]
    assert merged[0].reasons == ("lora@2 counts as one run with lora@1: both are steps of the run in /runs/lora",)


def test_seeds_count_within_a_method() -> None:
    runs = [
        identify("a", {}, 1),
        identify("b", {}, 1, "full"),
        identify("c", {}, 1),
        identify("d", {}),
        identify("e", {}),
    ]
    assert [run.members for run in merge_dependent_runs(runs)] == [(0, 2), (1,), (3,), (4,)]


@pytest.mark.parametrize("seed", range(20))
def test_the_runs_are_the_connected_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = [
        identify(
            f"r{i}",
            {item: float(rng.integers(2)) for item in range(3) if rng.random() < 0.7},
            int(rng.integers(4)) if rng.random() < 0.5 else None,
        )
        for i in range(7)
    ]

    def is_same(a: RunIdentity, b: RunIdentity) -> bool:
        first, second = (
            dict(zip(*(column.tolist() for column in run.scores.get(("s", "t"), (np.array([]),) * 2)), strict=True))
            for run in (a, b)
        )
        common = first.keys() & second.keys()
        return (a.seed is not None and a.seed == b.seed) or (
            bool(common) and all(first[item] == second[item] for item in common)
        )

    # Warshall's closure of the relation.
    linked = np.eye(7, dtype=bool)
    for i, j in combinations(range(7), 2):
        linked[i, j] = linked[j, i] = is_same(runs[i], runs[j])
    for k in range(7):
        linked |= linked[:, [k]] & linked[[k], :]
    expected = sorted({tuple(np.flatnonzero(row).tolist()) for row in linked})
    merged = merge_dependent_runs(runs)
    assert sorted(run.members for run in merged) == expected
    assert all(len(run.reasons) == len(run.members) - 1 for run in merged)
