"""Levels on resampled documents: those of a loop over the same documents with sacrebleu, sklearn and numpy alone."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import sacrebleu
from lm_eval.api.registry import AGGREGATION_REGISTRY
from sklearn.metrics import f1_score, matthews_corrcoef

from evalsvc.harness import resample
from evalsvc.harness.resample import resample_level
from evalsvc.records.digests import number_document
from evalsvc.records.plans import Sample
from evalsvc.records.scores import Resamples
from evalsvc.stats.bootstrap import draw_units, number_units

WORDS = "the cat dog sat ran on over mat hill red hot cold house sun moon".split()


def make_items(documents: Sequence[int], clusters: Sequence[int] | None = None) -> list[Sample]:
    return [
        Sample(
            digest=f"{i}",
            doc_id=i,
            doc=f'{{"text": {document}}}',
            target="",
            requests=(),
            cluster=None if clusters is None else str(clusters[i]),
        )
        for i, document in enumerate(documents)
    ]


def resample_by_hand(oracle: Callable[[list[Any]], float], values: list[Any], units: Sequence[int]) -> list[float]:
    """Return the level of each resample, by a loop over the units that `draw_units` draws."""
    count = max(units) + 1
    of_unit = {unit: [value for value, own in zip(values, units, strict=True) if own == unit] for unit in units}
    return [oracle([value for unit in drawn for value in of_unit[int(unit)]]) for drawn in draw_some(count)]


def draw_some(count: int) -> list[np.ndarray[Any, Any]]:
    return list(itertools.islice(draw_units(count, KEY), 25))


KEY = 7


@pytest.fixture(autouse=True)
def _known_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "draw_units", lambda count, key: draw_units(count, KEY))


def make_pairs(n: int) -> list[Any]:
    rng = np.random.default_rng(1)
    return [[int(gold), int(gold ^ (rng.random() < 0.2))] for gold in rng.random(n) < 0.4]


def make_texts(n: int) -> list[Any]:
    """Return [references, answer] pairs; answers have some of a reference's words in its order."""
    rng = np.random.default_rng(2)
    pairs = []
    for _ in range(n):
        references = [" ".join(rng.choice(WORDS, 8)) for _ in range(2)]
        words = references[0].split()
        answer = " ".join(word for word in words if rng.random() < 0.8)
        pairs.append([references, [answer]])
    return pairs


def score_texts(name: str, **options: Any) -> Callable[[list[Any]], float]:
    function = getattr(sacrebleu, f"corpus_{name}")

    def score(pairs: list[Any]) -> float:
        streams = [[pair[0][i] for pair in pairs] for i in range(2)]
        return float(function([pair[1][0] for pair in pairs], streams, **options).score)

    return score


ORACLES: dict[str, tuple[Callable[[int], list[Any]], Callable[[list[Any]], float]]] = {
    "f1": (make_pairs, lambda pairs: float(f1_score(*zip(*pairs, strict=True)))),
    "matthews_corrcoef": (make_pairs, lambda pairs: float(matthews_corrcoef(*zip(*pairs, strict=True)))),
    "median": (
        lambda n: np.random.default_rng(3).lognormal(size=n).tolist(),
        lambda values: statistics.median_high(values),  # lm-eval takes the upper of two
    ),
    "bleu": (make_texts, score_texts("bleu")),
    "chrf": (make_texts, score_texts("chrf")),
    "chrf++": (make_texts, score_texts("chrf", word_order=2)),
    "ter": (make_texts, score_texts("ter")),
}


@pytest.mark.parametrize("name", ORACLES)
def test_levels_are_those_of_a_loop_over_the_same_documents(name: str) -> None:
    make, oracle = ORACLES[name]
    values = make(40)
    resamples = resample_level(AGGREGATION_REGISTRY[name], values, "t", make_items(range(40)))
    assert resamples is not None
    assert len(resamples.levels) == 1000
    expected = resample_by_hand(oracle, values, find_units(list(range(40))))
    assert resamples.levels[:25] == pytest.approx(expected, rel=1e-12)
    assert len(set(resamples.levels)) > 10
    assert (resamples.units, resamples.effective, resamples.has_clusters) == (40, 40, False)


def find_units(documents: Sequence[int], clusters: Sequence[int] | None = None) -> list[int]:
    """Return the unit of each item, in the order of the documents' numbers, by joining sets until nothing changes."""
    numbers = [number_document("t", f'{{"text": {document}}}') for document in documents]
    groups = [{i} for i in range(len(documents))]
    tied = [
        {i, j}
        for i, j in itertools.combinations(range(len(documents)), 2)
        if numbers[i] == numbers[j] or (clusters is not None and clusters[i] == clusters[j])
    ]
    for pair in tied:
        joined = set().union(*(group for group in groups if group & pair))
        groups = [group for group in groups if not group & pair] + [joined]
    groups.sort(key=lambda group: min(numbers[i] for i in group))
    return [next(unit for unit, group in enumerate(groups) if i in group) for i in range(len(documents))]


@pytest.mark.parametrize("name", ["f1", "bleu"])
def test_documents_and_clusters_are_drawn_whole(name: str) -> None:
    make, oracle = ORACLES[name]
    documents = [i // 2 for i in range(60)]  # two questions about each
    clusters = [i // 6 for i in range(60)]
    clusters[0] = clusters[30]  # a document in two clusters joins them
    values = make(60)
    for declared, count, sizes in ((None, 30, [2] * 30), (clusters, 9, [12, *[6] * 8])):
        resamples = resample_level(AGGREGATION_REGISTRY[name], values, "t", make_items(documents, declared))
        assert resamples is not None
        assert (resamples.units, resamples.has_clusters) == (count, declared is not None)
        assert resamples.effective == pytest.approx(sum(sizes) ** 2 / sum(size**2 for size in sizes))
        units = find_units(documents, declared)
        assert resamples.levels[:25] == pytest.approx(resample_by_hand(oracle, values, units), rel=1e-12)


def test_draws_depend_on_the_items_alone() -> None:
    def draw(values: list[Any], items: list[Sample]) -> Resamples:
        resamples = resample_level(AGGREGATION_REGISTRY["f1"], values, "t", items)
        assert resamples is not None
        return resamples

    values, others = make_pairs(40), make_pairs(41)[1:]
    same = draw(values, make_items(range(40))), draw(others, make_items(range(40)))
    assert same[0].draws == same[1].draws
    for items in (
        make_items(range(1, 41)),
        make_items([0, *range(39)]),
        make_items(range(40), [i // 4 for i in range(40)]),
    ):
        assert draw(values, items).draws != same[0].draws


def test_units_are_drawn_evenly_and_the_same_again() -> None:
    draws = np.array(list(itertools.islice(draw_units(50, 2**127 + 3), 4000)))
    assert draws.min() == 0
    assert draws.max() == 49
    counts = np.bincount(draws.ravel(), minlength=50)
    expected = draws.size / 50
    assert ((counts - expected) ** 2 / expected).sum() < 85.4  # 99.9 % of chi-squared with 49 degrees of freedom
    assert np.array_equal(draws[:9], list(itertools.islice(draw_units(50, 2**127 + 3), 9)))
    assert not np.array_equal(draws[0], next(draw_units(50, 2**127 + 4)))


def test_units_are_the_connected_documents_and_clusters() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        documents, clusters = rng.integers(0, 25, 30), rng.integers(0, 25, 30)
        units = number_units(documents, clusters)
        together = (documents[:, None] == documents) | (clusters[:, None] == clusters)
        for _ in range(5):
            together = together @ together
        assert np.array_equal(units[:, None] == units, together)
    assert number_units(np.array([9, 4, 9]), None).tolist() == [1, 0, 1]


def test_what_cannot_be_resampled_has_no_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    items = make_items(range(40))

    def refuse(values: Sequence[Any]) -> float:
        return float(np.corrcoef(values, values)[0, 1])  # undefined for equal values

    def demand_all(values: Sequence[Any]) -> float:
        if len(set(values)) < 40:
            raise ValueError("some are missing")
        return 1.0

    assert resample_level(refuse, [0.0] * 39 + [1.0], "t", items) is None
    assert resample_level(demand_all, list(range(40)), "t", items) is None
    assert resample_level(max, [1.0, 2.0], "t", make_items([5, 5])) is None
    monkeypatch.setattr(resample, "SECONDS", -1.0)
    assert resample_level(max, list(range(40)), "t", items) is None
