"""`Matrix`: scores of tasks that were learned one after the other. Its metrics are computed, never imported."""

from __future__ import annotations

from dataclasses import dataclass

from evalsvc.records.vocabulary import Floats
from evalsvc.stats.continual import Continual, continual

FIGURES = ("bwt", "fwt", "forgetting", "avg_forgetting", "average_forgetting", "forgetting_metrics")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Matrix:
    """Scores of T tasks after each of T stages, each of which trains one task.

    Attributes:
        name: Name of the run; unique in the store.
        scores: [T, T], row i after stage i; nan where a task was not scored.
        untrained, joint: [T] scores before the first stage, and of a reference trained on all tasks jointly.
    """

    name: str
    method: str
    seed: int | None
    source: str
    tasks: tuple[str, ...]
    scores: Floats
    untrained: Floats | None = None
    joint: Floats | None = None

    @property
    def summary(self) -> Continual:
        """The continual-learning metrics."""
        return continual(self.scores, self.untrained, self.joint)
