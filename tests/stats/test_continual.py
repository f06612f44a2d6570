"""The continual-learning family on the published matrix, and on real ones."""

from __future__ import annotations

import numpy as np
import pytest

from evalsvc.stats.continual import Figure, continual

MATRIX = np.array(
    [
        [0.98, 0.5, 0.5, 0.5, 0.5],
        [0.51, 0.97, 0.5, 0.5, 0.5],
        [0.5, 0.52, 0.96, 0.5, 0.5],
        [0.49, 0.5, 0.51, 0.98, 0.5],
        [0.5, 0.5, 0.5, 0.5, 0.99],
    ]
)


def figure(found: Figure | None) -> tuple[float, str]:
    assert found is not None
    return round(found.value, 9) + 0.0, found.divisor


def test_published_matrix() -> None:
    found = continual(MATRIX, untrained=np.full(5, 0.5), joint=np.full(5, 0.986))
    assert figure(found.acc) == (0.598, "T = 5")
    assert found.la.value == pytest.approx(0.976)
    assert figure(found.bwt) == (-0.4725, "T - 1 = 4")
    assert figure(found.bwt_over_t) == (-0.378, "T = 5")
    assert figure(found.forgetting) == (0.4725, "T - 1 = 4")
    assert figure(found.fwt) == (0.0, "T - 1 = 4")
    assert figure(found.bwt_all_pairs) == (-0.470, "T (T - 1) / 2 = 10")
    assert found.remembering == pytest.approx(0.530)
    assert figure(found.intransigence) == (0.01, "T = 5")


def test_no_untrained_scores_no_forward_transfer() -> None:
    assert continual(MATRIX).fwt is None
    lower = np.where(np.tri(5, dtype=bool), MATRIX, np.nan)
    found = continual(lower, untrained=np.full(5, 0.5))
    assert found.fwt is None
    assert figure(found.bwt) == (-0.4725, "T - 1 = 4")


def test_forgetting_is_from_the_best_and_never_less_than_backward_transfer() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = continual(rng.random((4, 4)))
        assert found.forgetting is not None
        assert found.bwt is not None
        assert found.forgetting.value >= -found.bwt.value - 1e-12
    rises = np.array([[0.5, 0.0], [0.9, 0.7]])
    assert figure(continual(rises).forgetting) == (-0.4, "T - 1 = 1")  # got better: negative forgetting


@pytest.mark.parametrize(
    ("scores", "message"),
    [(np.zeros((2, 3)), "must be square"), (np.array([[1.0, np.nan], [np.nan, 1.0]]), "lacks scores")],
)
def test_what_is_no_matrix_of_stages_is_refused(scores: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        continual(scores)


def test_one_task_has_nothing_to_forget() -> None:
    found = continual(np.array([[0.7]]))
    assert (found.acc.value, found.bwt, found.forgetting) == (0.7, None, None)
