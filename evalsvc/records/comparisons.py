"""Comparisons of two arms, per task and per role."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from evalsvc.records.direction import orient
from evalsvc.records.serialise import INTERNAL, build_record
from evalsvc.records.vocabulary import Floats, Ints, Role
from evalsvc.stats.bootstrap import ResampledError, resampled_error
from evalsvc.stats.calibration import CalibrationDrift
from evalsvc.stats.transitions import ChanceBracket, Floor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ItemGains:
    """Gains of the items of one task.

    Attributes:
        gains: float64 [n], whose mean is the comparison's gain: differences of scores; for other metrics than means the
            difference of the levels plus each item's influence on it.
        documents: int64 [n], the number of each item's document.
        clusters: int64 [n], equal for items of one cluster, in all tasks of a suite; None where it declares none.
        is_bounded: Whether every gain lies in [-1, 1].
    """

    gains: Floats
    documents: Ints
    clusters: Ints | None = None
    is_bounded: bool = True


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ResampledGains:
    """Gains of one task on resampled units: differences of both arms' levels on the same units.

    Attributes:
        gains: float64 [resamples].
        draws: Digest of the items and their units; tasks with the same have the same resamples.
        units: Number of units: documents, or clusters of them.
        effective: Their effective number.
        has_clusters: Whether the suite declares clusters.
    """

    gains: Floats
    draws: str
    units: int
    effective: float
    has_clusters: bool

    def find_error(self) -> ResampledError | None:
        """Return the standard error of the gain; None if hardly any unit makes a difference."""
        return resampled_error(self.gains, self.units, self.effective)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Paired estimate of adapted minus base on one task, in the metric's unit.

    Attributes:
        difference: Adapted minus base.
        low, high: Ends of the 90 % interval of `difference`; None if the metric has no paired interval.
        lost, gained: Number of items that went 1 -> 0 and 0 -> 1; None for metrics that are not binary.
        test: Name of the procedure that gives the interval.
        unit: "score" for metrics in [0, 1], else the metric's name.
        coverage: Share of the base's samples that both arms have.
        units: Number of independent units of evidence: documents, or clusters of them; None for levels alone.
        clusters: Number of units, if the suite declares clusters; None where documents are independent.
        p_value: Two-sided, of H0: no difference; McNemar's exact test for binary items, else that of `test`.
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
    units: int | None = None
    clusters: int | None = None
    p_value: float | None = None
    items: ItemGains | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)
    resampled: ResampledGains | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)

    @property
    def gain(self) -> float:
        """The difference; positive is better, whatever the metric."""
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
    """A comparison with figures for inspection, which no gate rule uses.

    Attributes:
        p_holm: `p_value` adjusted for all tasks of the comparison (Holm); decides `moved`.
        q_value: `p_value` adjusted by Benjamini and Hochberg, for exploration.
        moved: "worse" or "better" where p_holm is at most 5 %.
        agreement: Share of samples with the same answer in both arms, right or wrong.
        invalid_base, invalid_adapted: Number of answers that could not be parsed; they count as wrong.
        chance: lost and gained adjusted for guessing, an upper bound on the effect of guessing; not a verdict.
        floor: lost and gained between two runs of the base itself (A/A).
        blind_spots: Changes that the task cannot show because of the base's level.
        format_loss: Whether a loss occurs in all prompt formats of the same items.
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
        """Return a comparison whose further figures are not filled in yet."""
        return build_record(cls, {entry.name: getattr(comparison, entry.name) for entry in fields(comparison)})


@dataclass(frozen=True, slots=True)
class Missing:
    """What an arm lacks to be compared with others, which are compared without it.

    Attributes:
        lacks: Suites, tasks as SUITE/TASK, or costs.
        outdated: Those of these suites on which it has scores, but on another version than the base's newest.
    """

    arm: str
    lacks: tuple[str, ...]
    outdated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleTotal:
    """Unweighted mean of the difference over a role's suites; positive is better.

    Attributes:
        worst_suite: The suite of `worst_task`.
    """

    role: Role
    unit: str
    suites: int
    tasks: int
    difference: float
    low: float | None
    high: float | None
    worst_suite: str
    worst_task: str
    worst_difference: float
    stderr: float | None = None
