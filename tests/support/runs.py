"""Tiny models scored through the same door as everybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalsvc.scoring.submission import Source, Submission
from evalsvc.scoring.submit import submit
from evalsvc.settings import Compute
from evalsvc.store.store import Store


def submit_tiny(
    db: Path, models: Path, suites: tuple[str, ...], source: str = "run", workers: int = 0, *, rerun: bool = False
) -> Any:
    """Score a model of the folder `models`, and its base, on suites; return the jobs."""
    submission = Submission(
        sources=(Source(str(models / source)),),
        base=str(models / "base"),
        suites=suites,
        compute=Compute(workers=workers),
        rerun=rerun,
    )
    return submit(Store(db), submission, lambda done, total: None, lambda text: None)
