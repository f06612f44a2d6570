"""Where arms lie: the nouns of the frontier. Frozen, typed, without I/O."""

from __future__ import annotations

from dataclasses import dataclass

from evalsvc.records.arms import Cost


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Where a point lies with 90 % probability, both axes together.

    Attributes:
        major, minor: Half-axes, in the units of the plane.
        angle: Degrees from the learning axis to the major one, counter-clockwise with forgetting pointing up.
    """

    major: float
    minor: float
    angle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One arm on the plane of learning and forgetting. Positive forgetting is always worse.

    Attributes:
        p_on_frontier: Share of resamples of the items in which no other arm dominates it.
        on_method_frontier: Whether no arm of its own method dominates it.
        dominated_by: An arm that dominates it in at least 95 % of the resamples, after Bonferroni's correction for the
            number of arms.
        exchange, exchange_low, exchange_high: Forgetting per unit of learning, with its interval; None where it is not
            significant that anything was learned.
    """

    arm: str
    digest: str
    method: str
    step: int | None
    trajectory: str | None
    learning: float
    learning_low: float
    learning_high: float
    forgetting: float
    forgetting_low: float
    forgetting_high: float
    on_frontier: bool
    p_on_frontier: float
    cost: Cost
    on_method_frontier: bool = False
    dominated_by: str | None = None
    ellipse: Ellipse | None = None
    exchange: float | None = None
    exchange_low: float | None = None
    exchange_high: float | None = None


@dataclass(frozen=True, slots=True)
class MethodFrontier:
    """The frontier of one method's arms alone; its volume is measured from the same corner as the pooled one."""

    method: str
    arms: tuple[str, ...]
    hypervolume: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One method's value read off its frontier, base included, by linear interpolation.

    Attributes:
        value: None where the method does not get there.
        low, high: Over resamples of the items in which it does.
        reached: Share of those.
    """

    method: str
    value: float | None
    low: float | None
    high: float | None
    reached: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The first method's value less the second's, where both get there."""

    first: str
    second: str
    value: float | None
    low: float | None
    high: float | None
    reached: float


@dataclass(frozen=True, slots=True)
class Matched:
    """Methods compared at one level of what they are not compared by.

    Attributes:
        at: The level: of learning where forgetting is compared, of forgetting where learning is.
    """

    at: float
    methods: tuple[Read, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class EqualLevels:
    """Methods compared where they get equally far; None where no method learned anything, or an axis is missing.

    Attributes:
        learning: Forgetting of every method at the same learning.
        forgetting: Learning of every method at the same forgetting.
    """

    learning: Matched | None = None
    forgetting: Matched | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The points of all arms of one base, and how good the non-dominated ones are together.

    Attributes:
        axes: What dominance is about: learning, forgetting, and any fields of `Cost`.
        learning_unit, forgetting_unit: Unit of each axis: "score", or a metric's name.
        hypervolume: Volume dominated by the frontier, in the product of the axes' units.
        reference: The corner that `hypervolume` is measured from, one value per axis.
        left_out: Tasks whose unit is not that of their axis.
        incomplete: Arms without scores on some task of the axes, or without a cost that is an axis.
    """

    base: str
    points: tuple[Point, ...]
    learning_unit: str
    forgetting_unit: str
    hypervolume: float
    reference: tuple[float, ...]
    left_out: tuple[str, ...]
    incomplete: tuple[str, ...]
    axes: tuple[str, ...] = ("learning", "forgetting")
    methods: tuple[MethodFrontier, ...] = ()
