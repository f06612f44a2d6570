"""Two arms compared: per task and per role. Frozen, typed, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from evalsvc.records.direction import orient
from evalsvc.records.serialise import build_record
from evalsvc.records.vocabulary import Role
from evalsvc.stats.calibration import CalibrationDrift
from evalsvc.stats.transitions import ChanceBracket, Floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Paired estimate of adapted minus base on one task, in the metric's unit.

    Attributes:
        difference: Adapted minus base.
        low, high: Ends of the interval of `difference`; None where the metric has no paired interval.
        lost, gained: Items that went 1 -> 0 and 0 -> 1; None for metrics that are not binary.
        test: Name of the procedure behind the interval.
        unit: "score" for metrics in [0, 1], else the metric's name.
        coverage: Share of the base's samples that both arms have.
        clusters: Clusters of samples that the interval takes as the unit; None where samples are independent.
        p_value: Two-sided, of no difference: McNemar's exact test for binary items, else that of `test`.
    """

    suite: str
    role: Role
    task: str
    metric: str
    filter: str
    n: int
    base: float
    adapted: float
    difference: float
    low: float | None
    high: float | None
    lost: int | None
    gained: int | None
    test: str
    unit: str
    higher_is_better: bool
    weight: float
    stderr: float | None
    coverage: float = 1.0
    clusters: int | None = None
    p_value: float | None = None

    @property
    def gain(self) -> float:
        """The difference with better counted positive."""
        return orient(self.difference, self.higher_is_better)

    @property
    def gain_interval(self) -> tuple[float | None, float | None]:
        """Ends of the gain's interval."""
        if self.higher_is_better:
            return self.low, self.high
        low, high = (None if end is None else 0.0 - end for end in (self.high, self.low))
        return low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class FullComparison(Comparison):
    """A comparison with all that people look at beside it, and no test takes.

    Attributes:
        p_holm: `p_value` adjusted for all tasks of the comparison (Holm): which tasks moved.
        q_value: `p_value` adjusted by Benjamini and Hochberg, for exploring.
        moved: "worse" or "better" where p_holm is at most 5 %.
        agreement: Share of samples that both arms answer alike, right or wrong.
        invalid_base, invalid_adapted: Answers that could not be parsed; they count as wrong, and are counted here.
        chance: lost and gained with the guesses taken off: the other end of a bracket, never a verdict.
        floor: lost and gained between two runs of the base itself.
        blind_spots: What the base's level keeps the task from showing.
        format_loss: What the same items in other prompt formats say about a loss.
    """

    p_holm: float | None = None
    q_value: float | None = None
    moved: Literal["worse", "better"] | None = None
    agreement: float | None = None
    invalid_base: int | None = None
    invalid_adapted: int | None = None
    chance: ChanceBracket | None = None
    floor: Floor | None = None
    calibration: CalibrationDrift | None = None
    blind_spots: tuple[str, ...] = ()
    format_loss: str | None = None

    @classmethod
    def of(cls, comparison: Comparison) -> FullComparison:
        """Return a comparison without anything beside it yet."""
        return build_record(cls, {field.name: getattr(comparison, field.name) for field in fields(comparison)})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleTotal:
    """Unweighted mean over a role's suites of the difference, better counted positive."""

    role: Role
    unit: str
    suites: int
    tasks: int
    difference: float
    low: float | None
    high: float | None
    worst_task: str
    worst_difference: float
    stderr: float | None = None
