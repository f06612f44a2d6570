"""The frontier of learning and forgetting of the arms of one base. Pure: no I/O, no database.

Learning is the mean gain over domain suites, forgetting the mean loss over general suites: positive forgetting is
always worse. The intervals of both are those of a comparison's totals; what depends on several arms or on both axes
(P(frontier), dominance, ellipse) comes from the bootstrap of `suite_gains`, which all arms share.
Internally, positive is better on every axis.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, combinations

import numpy as np

from evalsvc.analysis.shared import find_shared
from evalsvc.analysis.suite_gains import Candidate, Gains, bound_mean_gains
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.arms import COSTS
from evalsvc.records.comparisons import Missing
from evalsvc.records.frontier import (
    Ellipse,
    EqualLevels,
    Frontier,
    LevelComparison,
    MethodDifference,
    MethodFrontier,
    MethodValue,
    Point,
)
from evalsvc.records.vocabulary import Floats, Role
from evalsvc.stats.margins import Ends, bound_ratio, z_of
from evalsvc.stats.multiplicity import bonferroni
from evalsvc.stats.paired import LEVEL
from evalsvc.stats.pareto import (
    THREADS,
    Bools,
    Indices,
    Ranks,
    find_dominators,
    hypervolume,
    non_dominated,
    rank_densely,
    read_off,
)

ALPHA = 0.05
ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
DEFAULT_AXES = ("learning", "forgetting")
ROLES: tuple[Role, Role] = ("domain", "general")
REACHED = 0.95
"""Share of the resamples in which all methods reach the default level of learning, so that it has an interval."""
FEWEST_REACHED = 0.5
"""Share of the resamples that must reach a level for an interval; fewer would be a selection."""
_ROUND_OFF = 1e-9
_ARMS = 64


@dataclass(frozen=True, slots=True)
class FrontierOptions:
    """Options of a frontier.

    Attributes:
        axes: Two or more of learning, forgetting and the fields of `Cost`.
        at_learning, at_forgetting: Levels at which methods are compared; None for the highest that all methods reach,
            which for learning is in 95 % of the resamples.
    """

    axes: tuple[str, ...] = DEFAULT_AXES
    at_learning: float | None = None
    at_forgetting: float | None = None

    def __post_init__(self) -> None:
        """Check the axes and levels.

        Raises:
            UsageError: An axis is unknown, there are fewer than two, or a level is not a finite number.
        """
        for name, level in (("at_learning", self.at_learning), ("at_forgetting", self.at_forgetting)):
            if level is not None and not math.isfinite(level):
                raise UsageError(f"{name} {level}: must be a finite number")
        unknown = [name for name in self.axes if name not in (*DEFAULT_AXES, *COSTS)]
        if unknown or len(set(self.axes)) < 2:
            raise UsageError(f"axes {','.join(self.axes)}: must be two or more of {', '.join((*DEFAULT_AXES, *COSTS))}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AxisGains:
    """Gains over the base along one axis, of the arms that have scores on it.

    Attributes:
        arms: [arms], their indices among all arms.
        gain: [arms].
        resampled: [replicates, arms].
        ranks: [replicates, arms], dense ranks of `resampled` within each replicate.
        ends: [2, arms], ends of the gains' intervals.
        is_exact: [arms], whether nothing is known of a gain's uncertainty.
        reference: Value of the hypervolume's reference point on this axis.
        suites: The suites that it is the mean of.
        unshared: Other suites of the role, which most arms do not share.
        lacks: Arm index to the suites that it lacks, for arms that are not on the axis.
    """

    unit: str
    reference: float
    arms: Indices
    gain: Floats
    resampled: Floats
    ranks: Ranks
    ends: Floats
    is_exact: Bools
    left_out: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    unshared: tuple[str, ...] = ()
    lacks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def of(self, arms: Indices) -> AxisGains:
        """Return the axis for some of its arms, given by their indices."""
        if len(arms) == len(self.arms):
            return self
        kept = np.searchsorted(self.arms, arms)
        return replace(
            self,
            arms=arms,
            gain=self.gain[kept],
            resampled=self.resampled[:, kept],
            ranks=self.ranks[:, kept],
            ends=self.ends[:, kept],
            is_exact=self.is_exact[kept],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """Intervals of an arm's learning, forgetting and exchange rate, and their ellipse; see `Point`."""

    learning_low: float | None = None
    learning_high: float | None = None
    forgetting_low: float | None = None
    forgetting_high: float | None = None
    ellipse: Ellipse | None = None
    exchange: float | None = None
    exchange_low: float | None = None
    exchange_high: float | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ArmPositions:
    """Learning and forgetting of all arms: the expensive part of a frontier, which is the same for all axes.

    Attributes:
        arms: The base, and the arms that have scores on all of its tasks.
        missing: The other arms, with what they lack.
        uncertainty: One entry per arm.
    """

    arms: tuple[Candidate, ...]
    missing: tuple[Missing, ...]
    learning: AxisGains
    forgetting: AxisGains
    uncertainty: tuple[Uncertainty, ...]

    def with_known_costs(self, axes: Sequence[str]) -> ArmPositions:
        """Return the base and the arms with known costs on all cost axes; the others become missing."""
        costs = [name for name in axes if name in COSTS]
        lacking = [tuple(n for n in costs if getattr(arm.checkpoint.cost, n) is None) for arm in self.arms[1:]]
        if not any(lacking):
            return self
        kept = np.flatnonzero([True, *(not names for names in lacking)])
        late = (Missing(arm.label, names) for arm, names in zip(self.arms[1:], lacking, strict=True) if names)
        return ArmPositions(
            arms=tuple(self.arms[i] for i in kept),
            missing=(*self.missing, *late),
            learning=self.learning.of(self.learning.arms[kept]),
            forgetting=self.forgetting.of(self.forgetting.arms[kept]),
            uncertainty=tuple(self.uncertainty[i] for i in kept),
        )


def build_positions(gains: Gains, learning: AxisGains, forgetting: AxisGains) -> ArmPositions:
    """Combine both axes for the arms that are on both."""
    both = np.intersect1d(learning.arms, forgetting.arms)
    lacks_learning, lacks_forgetting = learning.lacks, forgetting.lacks
    learning, forgetting = learning.of(both), forgetting.of(both)
    with ThreadPoolExecutor(THREADS) as pool:
        uncertainty = pool.map(lambda arms: list(_compute_uncertainty(learning, forgetting, arms)), _blocks(len(both)))
    on_both = set(both)
    return ArmPositions(
        arms=tuple(arm for i, arm in enumerate(gains.arms) if i in on_both),
        missing=tuple(
            Missing(arm.label, (*lacks_learning.get(i, ()), *lacks_forgetting.get(i, ())))
            for i, arm in enumerate(gains.arms)
            if i not in on_both
        ),
        learning=learning,
        forgetting=forgetting,
        uncertainty=tuple(chain.from_iterable(uncertainty)),
    )


def find_frontier(positions: ArmPositions, options: FrontierOptions = FrontierOptions()) -> Frontier:
    """Find the frontier.

    Arms that lack a cost on one of the axes are reported as missing, as are those without all scores.

    Raises:
        EvidenceError: `tokens_per_query` is an axis and was not measured for the base.
    """
    positions = positions.with_known_costs(options.axes)
    arms, learning, forgetting = positions.arms, positions.learning, positions.forgetting
    axes = {"learning": learning, "forgetting": forgetting}
    axes |= {name: _cost_axis(name, arms, learning) for name in options.axes if name in COSTS}
    chosen = [axes[name] for name in options.axes]
    points = np.stack([axis.gain for axis in chosen], axis=-1)
    ranks = np.moveaxis(np.stack([axis.ranks for axis in chosen]), 0, -1)
    reference = [axis.reference for axis in chosen]
    methods = _methods(arms, points, reference)
    return Frontier(
        base=arms[0].label,
        points=_points(arms, axes, positions.uncertainty, points, ranks, methods),
        learning_unit=learning.unit,
        forgetting_unit=forgetting.unit,
        hypervolume=hypervolume(points, reference),
        reference=tuple(
            0.0 + value if name == "learning" else 0.0 - value
            for name, value in zip(options.axes, reference, strict=True)
        ),
        suites=learning.suites + forgetting.suites,
        unshared=learning.unshared + forgetting.unshared,
        left_out=learning.left_out + forgetting.left_out,
        missing=positions.missing,
        axes=options.axes,
        methods=methods,
    )


def _points(
    placed: Sequence[Candidate],
    axes: Mapping[str, AxisGains],
    uncertainty: Sequence[Uncertainty],
    points: Floats,
    ranks: Ranks,
    methods: Sequence[MethodFrontier],
) -> tuple[Point, ...]:
    on_frontier = non_dominated(points)
    with ThreadPoolExecutor(THREADS) as pool:
        resampled = pool.submit(non_dominated, ranks)
        dominators = find_dominators(ranks, on_frontier, 1 - bonferroni(ALPHA, len(placed) - 1))
        often = resampled.result().mean(axis=0)
    is_known = not any(axes[name].is_exact.any() for name in DEFAULT_AXES)
    of_method = {label for method in methods for label in method.arms}
    return tuple(
        Point(
            arm=arm.label,
            digest=arm.checkpoint.digest,
            method=arm.checkpoint.method,
            step=arm.checkpoint.step,
            trajectory=arm.checkpoint.trajectory,
            learning=float(axes["learning"].gain[i]),
            forgetting=0.0 - float(axes["forgetting"].gain[i]),
            on_frontier=bool(on_frontier[i]),
            p_on_frontier=float(often[i]) if is_known else None,
            cost=arm.checkpoint.cost,
            on_method_frontier=arm.label in of_method,
            dominated_by=placed[dominators[i]].label if is_known and dominators[i] >= 0 else None,
            learning_low=bounds.learning_low,
            learning_high=bounds.learning_high,
            forgetting_low=bounds.forgetting_low,
            forgetting_high=bounds.forgetting_high,
            ellipse=bounds.ellipse,
            exchange=bounds.exchange,
            exchange_low=bounds.exchange_low,
            exchange_high=bounds.exchange_high,
        )
        for i, (arm, bounds) in enumerate(zip(placed, uncertainty, strict=True))
    )


def _blocks(arms: int) -> list[slice]:
    """Return slices of as many arms as fit into a core's cache with their resamples."""
    return [slice(start, start + _ARMS) for start in range(0, arms, _ARMS)]


def _compute_uncertainty(learning: AxisGains, forgetting: AxisGains, arms: slice) -> Iterator[Uncertainty]:
    """Yield, for some arms, intervals and ellipse of learning and forgetting, and the exchange rate."""
    learned, forgot = learning.resampled[:, arms], 0.0 - forgetting.resampled[:, arms]
    (learned_low, learned_high), (forgot_high, forgot_low) = learning.ends[:, arms], 0.0 - forgetting.ends[:, arms]
    ellipses = _ellipses(learned, forgot)
    has_learned = learned_low > 0
    top, bottom = (
        Ends(*(values[has_learned] for values in ends))
        for ends in (
            (0.0 - forgetting.gain[arms], forgot_low, forgot_high),
            (learning.gain[arms], learned_low, learned_high),
        )
    )
    exchanges = zip(top.value / bottom.value, *bound_ratio(top, bottom), strict=True)
    is_exact = learning.is_exact[arms] | forgetting.is_exact[arms]
    for i, ellipse in enumerate(ellipses):
        value, low, high = map(float, next(exchanges)) if has_learned[i] else (None, None, None)
        if is_exact[i]:
            yield Uncertainty()
            continue
        yield Uncertainty(
            learning_low=float(learned_low[i]),
            learning_high=float(learned_high[i]),
            forgetting_low=float(forgot_low[i]),
            forgetting_high=float(forgot_high[i]),
            ellipse=ellipse,
            exchange=value,
            exchange_low=low,
            exchange_high=high,
        )


def _ellipses(learned: Floats, forgot: Floats) -> list[Ellipse]:
    """Return the ellipses of normal distributions with the covariances of the resamples [replicates, arms].

    The quantile of chi-squared with 2 degrees of freedom is -2 ln(1 - p).
    """
    centred = np.stack([values - values.mean(axis=0) for values in (learned, forgot)])
    variances, directions = np.linalg.eigh(np.einsum("ira,jra->aij", centred, centred) / (len(learned) - 1))
    minor, major = np.sqrt(np.maximum(variances, 0.0) * (-2 * math.log(1 - LEVEL))).T
    angles = np.degrees(np.arctan2(directions[:, 1, 1], directions[:, 0, 1])) % 180.0
    return [Ellipse(float(a), float(b), float(angle)) for a, b, angle in zip(major, minor, angles, strict=True)]


def _methods(placed: Sequence[Candidate], points: Floats, reference: Sequence[float]) -> tuple[MethodFrontier, ...]:
    frontiers = []
    for method, members in _members(placed).items():
        own_points = points[members]
        labels = tuple(placed[i].label for i, kept in zip(members, non_dominated(own_points), strict=True) if kept)
        frontiers.append(MethodFrontier(method, labels, hypervolume(own_points, reference)))
    return tuple(frontiers)


def _members(placed: Sequence[Candidate]) -> dict[str, list[int]]:
    """Return the indices of the adapted arms of every method."""
    members: dict[str, list[int]] = {}
    for i, arm in enumerate(placed[1:], start=1):
        members.setdefault(arm.checkpoint.method, []).append(i)
    return members


# ------------------------------------------------------------------------------------------------------------- axes


def build_axis(gains: Gains, role: Role, suites: Sequence[str] | None = None) -> AxisGains:
    """Return the mean gain over suites of a role, for the arms with scores on all of them.

    Tasks whose unit is not the most frequent one are left out.

    Args:
        suites: None for the suites that most arms share; see `find_shared`.

    Raises:
        EvidenceError: The base has no scores on any of them.
    """
    of_role = [suite for suite in gains.suites if suite.role == role]
    is_chosen = suites is not None
    if suites is None:
        scored = [{suite.suite for suite in of_role if suite.has[i]} for i in range(1, len(gains.arms))]
        suites = find_shared(scored) or [suite.suite for suite in of_role]
    candidates = [suite for suite in of_role if suite.suite in suites]
    if not candidates:
        label = gains.arms[0].label
        raise EvidenceError(f"{label} has no scores on any {role} suite; submit it with one (see `suites list`)")
    units: Counter[str] = Counter()
    for suite in candidates:
        units[suite.unit] += len(suite.tasks)
    unit = max(units, key=lambda name: (units[name], name == "score"))
    chosen = [suite for suite in candidates if suite.unit == unit]
    has = np.all([suite.has for suite in chosen], axis=0)
    columns = slice(None) if has.all() else has
    gain, resampled = np.zeros(has.sum()), np.zeros((len(chosen[0].resampled), has.sum()))
    for suite in chosen:
        gain += suite.gain[columns]
        resampled += suite.resampled[:, columns]
    gain /= len(chosen)
    resampled /= len(chosen)
    with ThreadPoolExecutor(THREADS) as pool:
        ranked = pool.submit(rank_densely, resampled)
        ends = bound_mean_gains(gains, chosen, np.flatnonzero(has), z_of(ENDS[0]))
        ranks = ranked.result()
    # Reference point: nothing learned, everything forgotten (a loss as large as the base's level).
    reference = 0.0 if role == "domain" else -abs(sum(suite.level for suite in chosen) / len(chosen))
    names = dict.fromkeys(suite.suite for suite in chosen)
    other_units = (task for suite in candidates if suite.unit != unit for task in suite.tasks)
    return AxisGains(
        unit=unit,
        reference=reference,
        arms=np.flatnonzero(has),
        gain=gain,
        resampled=resampled,
        ranks=ranks,
        ends=ends,
        is_exact=np.any([suite.is_exact for suite in chosen], axis=0)[columns],
        left_out=(*other_units, *(task for task in gains.left_out if task.split("/")[0] in suites)),
        suites=tuple(names),
        unshared=() if is_chosen else tuple(dict.fromkeys(s.suite for s in of_role if s.suite not in suites)),
        lacks={
            int(i): tuple(dict.fromkeys(suite.suite for suite in chosen if not suite.has[i]))
            for i in np.flatnonzero(~has)
        },
    )


def _cost_axis(name: str, placed: Sequence[Candidate], beside: AxisGains) -> AxisGains:
    """Return a cost as a gain: cheaper is better, and the base, which was not adapted, costs 0.

    Raises:
        EvidenceError: `tokens_per_query` of the base was not measured.
    """
    first, *costs = (getattr(arm.checkpoint.cost, name) for arm in placed)
    if first is None and name == "tokens_per_query":
        raise EvidenceError(
            f"{placed[0].label} has no tokens_per_query, which is measured when a domain suite is scored; "
            "submit one of its arms again with such a suite, or choose other axes"
        )
    gain = 0.0 - np.array([first or 0.0, *costs], dtype=np.float64)
    # The reference point is 10 % beyond the most expensive arm, so that this arm adds volume.
    shape = beside.resampled.shape
    resampled, ranks = np.broadcast_to(gain, shape), np.broadcast_to(rank_densely(gain), shape)
    return AxisGains(
        unit=name,
        reference=float(gain.min()) * 1.1,
        arms=beside.arms,
        gain=gain,
        resampled=resampled,
        ranks=ranks,
        ends=np.stack([gain, gain]),
        is_exact=np.zeros(len(gain), dtype=bool),
    )


# --------------------------------------------------------------------------------------------- methods at one level


def compare_methods(positions: ArmPositions, options: FrontierOptions = FrontierOptions()) -> EqualLevels:
    """Compare the methods that learned anything: forgetting at equal learning, and learning at equal forgetting.

    The default level is the highest that all of these methods reach; for learning, in 95 % of the resamples. If that is
    0, where every method is read off at the base, there is no comparison. A level is reached up to round-off.
    """
    positions = positions.with_known_costs(options.axes)
    domain, general = positions.learning, positions.forgetting
    members = {
        method: [0, *arms]
        for method, arms in _members(positions.arms).items()
        if domain.gain[arms].max(initial=0.0) > 0
    }
    if not members or not set(DEFAULT_AXES) <= set(options.axes):
        return EqualLevels()
    is_known = not (domain.is_exact.any() or general.is_exact.any())
    # The estimate, then the resamples.
    planes = {
        method: [np.vstack([axis.gain[arms], axis.resampled[:, arms]]) for axis in (domain, general)]
        for method, arms in members.items()
    }
    if (at_learning := options.at_learning) is None:
        least = np.min([learned[1:].max(axis=1) for learned, _ in planes.values()], axis=0)
        at_learning = float(np.quantile(least, 1 - REACHED))
    if (at_forgetting := options.at_forgetting) is None:
        fronts = (np.stack([learned[0], kept[0]], axis=-1) for learned, kept in planes.values())
        at_forgetting = max(0.0, min(float(-front[non_dominated(front), 1].min()) for front in fronts))
    right, top = at_learning - _ROUND_OFF, -at_forgetting - _ROUND_OFF
    forgotten = {name: 0.0 - read_off(x, y, right) for name, (x, y) in planes.items()}
    learned = {name: read_off(y, x, top) for name, (x, y) in planes.items()}
    return EqualLevels(
        learning=_match(at_learning, forgotten, is_known)
        if at_learning > 0 or options.at_learning is not None
        else None,
        forgetting=_match(at_forgetting, learned, is_known),
    )


def _match(at: float, values: Mapping[str, Floats], is_known: bool) -> LevelComparison:
    reads = []
    for method, estimates in values.items():
        value, low, high, reached = _summarise(estimates, is_known)
        reads.append(MethodValue(method=method, value=value, low=low, high=high, reached=reached))
    gaps = []
    for a, b in combinations(values, 2):
        value, low, high, reached = _summarise(values[a] - values[b], is_known)
        gaps.append(MethodDifference(first=a, second=b, value=value, low=low, high=high, reached=reached))
    return LevelComparison(at, tuple(reads), tuple(gaps))


def _summarise(estimates: Floats, is_known: bool) -> tuple[float | None, float | None, float | None, float | None]:
    """Return the estimate (the first value), its interval over the resamples that have a value, and their share.

    There is no interval without an estimate, or where fewer than half of the resamples have a value.

    Args:
        is_known: Whether the resamples say how uncertain it is.
    """
    value = None if math.isnan(estimates[0]) else float(estimates[0])
    if not is_known:
        return value, None, None, None
    known = estimates[1:][~np.isnan(estimates[1:])]
    reached = len(known) / (len(estimates) - 1)
    if value is None or reached < FEWEST_REACHED:
        return value, None, None, reached
    low, high = np.quantile(known, ENDS)
    return value, float(low), float(high), reached
