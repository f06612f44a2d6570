"""The engine's numbers on a GPU are those of float64 on a CPU; skipped where there is no CUDA device."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks.gpu import accuracy, shapes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("name", shapes.ARCHITECTURES)
def test_log_likelihoods_in_float32_are_those_of_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    found = accuracy.parity_of(name, shapes.FULL)
    assert not found["limit_hit"]
    assert not found["full_score_matrix"]
    assert found["ours"]["not_finite"] == 0
    # Transformers itself is the measure of what float32 gives; sums of four tokens.
    assert found["ours"]["max"] <= max(1e-4, 4 * found["plain"]["max"])
