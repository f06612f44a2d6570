"""Matrices of tasks learned one after the other: the forgetting that their authors print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evalsvc.errors import UsageError
from evalsvc.interchange.matrices import read_matrix
from evalsvc.store.store import Store
from tests.support.commands import Run

MATRICES: Callable[[Path], list[Path]] = lambda data: sorted((data / "results" / "sequential").glob("*.json"))  # noqa: E731


def test_real_matrices_give_the_forgetting_that_their_authors_print(data: Path) -> None:
    for path in MATRICES(data):
        stated = json.loads(path.read_text())["forgetting_metrics"]
        found = read_matrix(path).summary
        assert found.bwt is not None
        # "avg_forgetting" there is first minus last over T - 1: backward transfer with the other sign.
        assert found.bwt.value == pytest.approx(-stated["avg_forgetting"], abs=1e-4)
        assert found.acc.value == pytest.approx(stated["final_avg_accuracy"], abs=1e-4)
        assert found.la.value == pytest.approx(stated["initial_avg_accuracy"], abs=1e-4)
        assert found.forgetting is not None
        assert found.forgetting.value >= -found.bwt.value
        assert found.fwt is None


def test_matrices_are_kept_and_come_back(data: Path, db: Path, evalsvc: Run) -> None:
    done = evalsvc("import", "matrix", *MATRICES(data), "--db", db)
    assert done.code == 0, done.err
    found = Store(db).matrices()
    assert sorted((m.method, m.seed) for m in found) == [(m, s) for m in ("full", "lora") for s in (45, 46, 47)]
    again = read_matrix(MATRICES(data)[0])
    assert np.array_equal(found[0].scores, again.scores, equal_nan=True)
    assert found[0].summary == again.summary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"bwt": -0.4725}', "has bwt without the matrix, so the divisor"),
        ('{"tasks": ["a"], "scores": [[1, 2]]}', "1 tasks and scores of shape"),
        ('{"tasks": ["a", "b"], "scores": [[1, null], [null, 1]]}', "lacks scores on or below its diagonal"),
        ('{"tasks": ["a"], "scores": [[1]], "joint": [1, 2]}', "2 reference scores for 1 tasks"),
        ("[]", "contains a list"),
        ("{", "is not valid JSON"),
    ],
)
def test_what_is_no_matrix_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_matrix(tmp_path / "m.json")


def test_an_import_counts_its_matrices(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        paths.append(tmp_path / f"{seed}.json")
        paths[-1].write_text(json.dumps({"name": f"lora seed {seed}", "tasks": ["a"], "scores": [[1.0]]}))
    assert evalsvc("import", "matrix", paths[0], "--db", db).out == "1 matrix: lora seed 1\n"
    assert evalsvc("import", "matrix", *paths, "--db", db).out == "2 matrices: lora seed 1, lora seed 2\n"
