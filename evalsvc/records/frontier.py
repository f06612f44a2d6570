"""Records of the frontier: points, methods, comparisons at equal levels."""

from __future__ import annotations

from dataclasses import dataclass

from evalsvc.records.arms import Cost
from evalsvc.records.comparisons import Missing


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Joint 90 % region of a point's learning and forgetting.

    Attributes:
        major, minor: Semi-axes, in the units of learning and forgetting.
        angle: Degrees from the learning axis to the major axis, counter-clockwise, with forgetting on the y axis.
    """

    major: float
    minor: float
    angle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One arm's learning and forgetting. Positive forgetting is always worse.

    Attributes:
        learning_low, learning_high, forgetting_low, forgetting_high: Ends of the 90 % intervals; None for published
            levels without standard errors.
        p_on_frontier: Share of bootstrap resamples in which no other arm dominates it; None where the uncertainty of an
            arm is not known.
        on_method_frontier: Whether no arm of the same method dominates it.
        dominated_by: An arm that dominates it significantly: in at least 95 % of the resamples, after Bonferroni's
            correction for the number of arms.
        exchange, exchange_low, exchange_high: Forgetting per unit of learning, with its interval; None if learning is
            not significantly above 0.
    """

    arm: str
    digest: str
    method: str
    step: int | None
    trajectory: str | None
    learning: float
    learning_low: float | None
    learning_high: float | None
    forgetting: float
    forgetting_low: float | None
    forgetting_high: float | None
    on_frontier: bool
    p_on_frontier: float | None
    cost: Cost
    on_method_frontier: bool = False
    dominated_by: str | None = None
    ellipse: Ellipse | None = None
    exchange: float | None = None
    exchange_low: float | None = None
    exchange_high: float | None = None


@dataclass(frozen=True, slots=True)
class MethodFrontier:
    """The frontier of one method's arms; its hypervolume has the same reference point as that of all arms."""

    method: str
    arms: tuple[str, ...]
    hypervolume: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodValue:
    """One method's value at a level, by linear interpolation on its frontier, base included.

    Attributes:
        value: None where the method does not reach the level.
        low, high: Interval over the resamples in which it does; None where it does not, or fewer than half of them do.
        reached: Share of resamples in which it does; None where the uncertainty of an arm is not known.
    """

    method: str
    value: float | None
    low: float | None
    high: float | None
    reached: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodDifference:
    """The first method's value minus the second's, where both reach the level."""

    first: str
    second: str
    value: float | None
    low: float | None
    high: float | None
    reached: float | None


@dataclass(frozen=True, slots=True)
class LevelComparison:
    """Methods compared in forgetting at one level of learning, or in learning at one level of forgetting.

    Attributes:
        at: The level.
    """

    at: float
    methods: tuple[MethodValue, ...]
    gaps: tuple[MethodDifference, ...]


@dataclass(frozen=True, slots=True)
class EqualLevels:
    """Methods compared at equal levels; None if no method learned anything, or an axis is missing.

    Attributes:
        learning: Forgetting of every method at the same learning; None too if there is no learning that all methods
            reach in 95 % of the resamples.
        forgetting: Learning of every method at the same forgetting.
    """

    learning: LevelComparison | None = None
    forgetting: LevelComparison | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The points of all arms of one base, and the hypervolume of the non-dominated ones.

    Attributes:
        axes: Axes of dominance: learning, forgetting, and any fields of `Cost`.
        learning_unit, forgetting_unit: Unit of each axis: "score", or a metric's name.
        hypervolume: Volume dominated by the frontier, in the product of the axes' units.
        reference: Reference point of `hypervolume`, one value per axis.
        suites: The suites of learning and of forgetting.
        unshared: Suites of the base that are not on the axes, because most of the arms do not share them.
        left_out: Tasks whose unit differs from that of their axis, or whose metric is not a mean over items.
        missing: Arms that are not placed, with the suites of the axes and the costs that they lack.
    """

    base: str
    points: tuple[Point, ...]
    learning_unit: str
    forgetting_unit: str
    hypervolume: float
    reference: tuple[float, ...]
    suites: tuple[str, ...]
    unshared: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[Missing, ...]
    axes: tuple[str, ...] = ("learning", "forgetting")
    methods: tuple[MethodFrontier, ...] = ()
