"""Which way a metric is better."""

from __future__ import annotations

import numpy as np

from evalsvc.records.direction import arrow, is_higher_better, orient


def test_what_is_declared_counts_and_else_the_name() -> None:
    assert is_higher_better("acc")
    assert not is_higher_better("word_perplexity")
    assert is_higher_better("word_perplexity", True)
    assert not is_higher_better("acc", False)


def test_a_difference_is_turned_so_that_better_is_positive() -> None:
    assert (orient(0.2, True), orient(0.2, False)) == (0.2, -0.2)
    assert orient(np.array([1.0, -2.0]), False).tolist() == [-1.0, 2.0]
    assert (arrow(True), arrow(False)) == ("↑", "↓")
