"""Scores of many arms of one base in, the learning-versus-forgetting frontier out. Pure: no I/O, no database.

Learning is the mean gain over domain suites, forgetting the mean loss over general suites: positive forgetting is
always worse. Everything uncertain comes from one bootstrap of items (of clusters, where there are any) that all arms
share, so that the pairing between arms survives. Inside, better is positive on every axis.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any

import numpy as np

from evalsvc.compare import task_shares, unit_of
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.points import Ellipse, Frontier, Gap, Matched, MethodFrontier, Point, Read
from evalsvc.records import Checkpoint, Cost, Floats, Role, TaskScores
from evalsvc.stats.bootstrap import resampled_means
from evalsvc.stats.estimates import SMOOTH, estimate
from evalsvc.stats.paired import LEVEL
from evalsvc.stats.pareto import Bools, Ranks, certain_dominators, hypervolume, non_dominated, ranked, read_off

REPLICATES = 2000
SEED = 1234
ALPHA = 0.05
PLANE = ("learning", "forgetting")
COSTS = tuple(field.name for field in fields(Cost))


@dataclass(frozen=True, slots=True)
class Candidate:
    """An arm with its scores, ready to be placed."""

    label: str
    checkpoint: Checkpoint
    scores: Sequence[TaskScores]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a frontier is asked for.

    Attributes:
        axes: Any of learning, forgetting and the fields of `Cost`.
        at_learning, at_forgetting: Where methods are compared; None: as far as all of them get.
    """

    axes: tuple[str, ...] = PLANE
    at_learning: float | None = None
    at_forgetting: float | None = None

    def __post_init__(self) -> None:
        """Refuse axes that there are not.

        Raises:
            UsageError: An axis is unknown, or there are not two.
        """
        unknown = [name for name in self.axes if name not in (*PLANE, *COSTS)]
        if unknown or len(set(self.axes)) < 2:
            raise UsageError(f"axes {','.join(self.axes)}: must be two or more of {', '.join((*PLANE, *COSTS))}")


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Gains over the base along one axis.

    Attributes:
        gain: [arms].
        resampled: [replicates, arms].
        ranks: [replicates, arms], of `resampled` within each replicate.
        corner: Where volumes are measured from.
    """

    unit: str
    corner: float
    gain: Floats
    resampled: Floats
    ranks: Ranks
    left_out: tuple[str, ...] = ()

    def of(self, arms: Sequence[int]) -> Axis:
        """Return the axis for some of its arms."""
        columns = (self.gain[arms], self.resampled[:, arms], self.ranks[:, arms])
        return replace(self, gain=columns[0], resampled=columns[1], ranks=columns[2])


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """What arms learned and forgot: the part of a frontier that is dear to compute, whatever its axes.

    Attributes:
        arms: The base, and the arms that have scores on all of its tasks.
        incomplete: The others' labels.
        sure: How sure each arm's learning and forgetting are, as `Point` says it.
    """

    arms: tuple[Candidate, ...]
    incomplete: tuple[str, ...]
    learning: Axis
    forgetting: Axis
    sure: tuple[dict[str, Any], ...]


def plane(base: Candidate, arms: Sequence[Candidate]) -> Plane:
    """Measure what arms learned and forgot.

    Raises:
        EvidenceError: The base has no scores on a domain suite or on a general suite.
    """
    tasks = {role: _axis_tasks(base, role) for role in ("domain", "general")}
    needed = {(scores.suite, scores.task) for _, chosen, _ in tasks.values() for scores in chosen}
    whole = [needed <= {(scores.suite, scores.task) for scores in arm.scores} for arm in arms]
    complete = (base, *(arm for arm, has_all in zip(arms, whole, strict=True) if has_all))
    rng = np.random.default_rng(SEED)
    learning, forgetting = (_axis(tasks[role], complete, rng, role) for role in ("domain", "general"))
    return Plane(
        complete,
        tuple(arm.label for arm, has_all in zip(arms, whole, strict=True) if not has_all),
        learning,
        forgetting,
        tuple(_sure(learning, forgetting)),
    )


def placed(measured: Plane, wish: Wish = Wish()) -> Frontier:
    """Find the frontier among arms that were measured.

    Arms without scores on all of the base's tasks on the two axes, or without a cost that is asked for, are named as
    incomplete and not placed.

    Raises:
        EvidenceError: What queries of the base cost was never measured.
    """
    costs = [name for name in wish.axes if name in COSTS]
    base, *adapted = measured.arms
    known = [all(getattr(arm.checkpoint.cost, name) is not None for name in costs) for arm in adapted]
    kept = [0, *(number for number, has_all in enumerate(known, start=1) if has_all)]
    arms = [measured.arms[number] for number in kept]
    learning, forgetting = (axis if all(known) else axis.of(kept) for axis in (measured.learning, measured.forgetting))
    axes = {"learning": learning, "forgetting": forgetting} | {name: _cost_axis(name, arms) for name in costs}
    chosen = [axes[name] for name in wish.axes]
    points = np.stack([_rounded(axis.gain) for axis in chosen], axis=-1)
    ranks = np.stack([axis.ranks for axis in chosen], axis=-1)
    corner = [axis.corner for axis in chosen]
    methods = _methods(arms, points, corner)
    matched = _matched(arms, learning, forgetting, wish, ranks)
    return Frontier(
        base=base.label,
        points=_points(arms, axes, [measured.sure[number] for number in kept], points, ranks, methods),
        learning_unit=learning.unit,
        forgetting_unit=forgetting.unit,
        hypervolume=hypervolume(points, corner),
        reference=tuple(
            0.0 + value if name == "learning" else 0.0 - value for name, value in zip(wish.axes, corner, strict=True)
        ),
        left_out=learning.left_out + forgetting.left_out,
        incomplete=(
            *measured.incomplete,
            *(arm.label for arm, has_all in zip(adapted, known, strict=True) if not has_all),
        ),
        axes=wish.axes,
        methods=methods,
        equal_learning=matched[0],
        equal_forgetting=matched[1],
    )


def _points(
    placed: Sequence[Candidate],
    axes: Mapping[str, Axis],
    sure: Sequence[Mapping[str, Any]],
    points: Floats,
    ranks: Ranks,
    methods: Sequence[MethodFrontier],
) -> tuple[Point, ...]:
    often = non_dominated(ranks).mean(axis=0)
    on_frontier = non_dominated(points)
    beaten_by = certain_dominators(ranks, often, on_frontier, 1 - ALPHA / max(1, len(placed) - 1))
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
            p_on_frontier=float(often[i]),
            cost=arm.checkpoint.cost,
            on_method_frontier=arm.label in of_method,
            dominated_by=placed[beaten_by[i]].label if beaten_by[i] >= 0 else None,
            **sure[i],
        )
        for i, arm in enumerate(placed)
    )


def _sure(learning: Axis, forgetting: Axis) -> Iterator[dict[str, Any]]:
    """Yield, for each arm, the intervals and the ellipse of its learning and forgetting, and what it gave for what."""
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    learned, forgot = learning.resampled, 0.0 - forgetting.resampled
    (learned_low, learned_high), (forgot_low, forgot_high) = (np.quantile(a, ends, axis=0) for a in (learned, forgot))
    ellipses = _ellipses(learned, forgot)
    # Where a resample learned nothing at all the ratio is as bad as it gets, or as good.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(np.where(learned > 0, forgot / learned, np.copysign(np.inf, forgot)))
    low, high = np.quantile(ratios, ends, axis=0, method="closest_observation")
    for i, ellipse in enumerate(ellipses):
        found = {
            "learning_low": float(learned_low[i]),
            "learning_high": float(learned_high[i]),
            "forgetting_low": float(forgot_low[i]),
            "forgetting_high": float(forgot_high[i]),
            "ellipse": ellipse,
        }
        if learned_low[i] > 0:  # it learned in all but 5 % of the resamples, or in more
            whole = 0.0 - float(forgetting.gain[i]) / float(learning.gain[i])
            found |= {"exchange": whole, "exchange_low": float(low[i]), "exchange_high": float(high[i])}
        yield found


def _ellipses(learned: Floats, forgot: Floats) -> list[Ellipse]:
    """Return the ellipses of normals with the resamples' covariances [replicates, arms].

    Chi-squared's quantile at 2 df is -2 ln(1 - p).
    """
    centred = np.stack([values - values.mean(axis=0) for values in (learned, forgot)])
    variances, directions = np.linalg.eigh(np.einsum("ira,jra->aij", centred, centred) / (len(learned) - 1))
    minor, major = np.sqrt(np.maximum(variances, 0.0) * (-2 * math.log(1 - LEVEL))).T
    angles = np.degrees(np.arctan2(directions[:, 1, 1], directions[:, 0, 1])) % 180.0
    return [Ellipse(float(a), float(b), float(angle)) for a, b, angle in zip(major, minor, angles, strict=True)]


def _methods(placed: Sequence[Candidate], points: Floats, corner: Sequence[float]) -> tuple[MethodFrontier, ...]:
    found = []
    for method, members in _members(placed).items():
        mine = points[members]
        on = non_dominated(mine)
        labels = tuple(placed[i].label for i, kept in zip(members, on, strict=True) if kept)
        found.append(MethodFrontier(method, labels, hypervolume(mine, corner)))
    return tuple(found)


def _members(placed: Sequence[Candidate]) -> dict[str, list[int]]:
    """Return the adapted arms of every method."""
    found: dict[str, list[int]] = {}
    for i, arm in enumerate(placed[1:], start=1):
        found.setdefault(arm.checkpoint.method, []).append(i)
    return found


# ------------------------------------------------------------------------------------------------------------- axes


def _axis_tasks(base: Candidate, role: Role) -> tuple[str, list[TaskScores], tuple[str, ...]]:
    """Return an axis' unit, the base's tasks in it, and the names of the role's tasks in other units."""
    tasks = [scores for scores in base.scores if scores.role == role and scores.aggregation in SMOOTH]
    if not tasks:
        raise EvidenceError(f"{base.label} has no scores on any {role} suite; submit it with one (see `suites list`)")
    units = Counter(unit_of(scores) for scores in tasks)
    unit = max(units, key=lambda name: (units[name], name == "score"))
    chosen = [scores for scores in tasks if unit_of(scores) == unit]
    return unit, chosen, tuple(f"{s.suite}/{s.task}" for s in tasks if s not in chosen)


def _axis(
    axis: tuple[str, list[TaskScores], tuple[str, ...]],
    arms: Sequence[Candidate],
    rng: np.random.Generator,
    role: Role,
) -> Axis:
    unit, tasks, left_out = axis
    tables: list[Mapping[tuple[str, str], TaskScores]] = [{(s.suite, s.task): s for s in arm.scores} for arm in arms]
    gain = np.zeros(len(arms))
    resampled = np.zeros((REPLICATES, len(arms)))
    level = 0.0
    for share, task in zip(task_shares([(t.suite, t.weight) for t in tasks]), tasks, strict=True):
        sign = share if task.higher_is_better else -share
        found = [_aligned(task, table[task.suite, task.task], arm) for table, arm in zip(tables, arms, strict=True)]
        estimates = [estimate(values, task.weights, task.aggregation) for values in found]
        level += share * estimates[0].value
        differences = np.stack([e.influence - estimates[0].influence for e in estimates])
        task_gain = np.array([e.value - estimates[0].value for e in estimates])
        gain += sign * task_gain
        resampled += resampled_means(_by_cluster(sign * differences, task), REPLICATES, rng)
    resampled += gain
    # The corner: nothing learned, everything forgotten. For metrics without a floor, the base's level lost once over.
    return Axis(unit, 0.0 if role == "domain" else -abs(level), gain, resampled, ranked(_rounded(resampled)), left_out)


def _rounded(values: Floats) -> Floats:
    """Return values rounded, so that two arms with the same counts tie whatever order their items were added up in."""
    return values.round(12)


def _aligned(base: TaskScores, scores: TaskScores, arm: Candidate) -> Floats:
    if not np.array_equal(base.samples, scores.samples):
        raise EvidenceError(f"{arm.label}: its samples of {base.suite}/{base.task} are not the base's; submit it again")
    return scores.values


def _by_cluster(influence: Floats, task: TaskScores) -> Floats:
    """Return influence values [arms, n] summed by cluster, as [arms, G] with the same mean; items without clusters."""
    if task.clusters is None:
        return influence
    _, member = np.unique(task.clusters, return_inverse=True)
    groups = int(member.max()) + 1
    sums = np.stack([np.bincount(member, weights=row, minlength=groups) for row in influence])
    return np.asarray(sums * groups / influence.shape[1])


def _cost_axis(name: str, placed: Sequence[Candidate]) -> Axis:
    """Return a cost as a gain, cheaper is better: to make the base, which was not adapted, cost nothing.

    Raises:
        EvidenceError: What queries of the base cost was never measured.
    """
    first, *costs = (getattr(arm.checkpoint.cost, name) for arm in placed)
    if first is None and name == "tokens_per_query":
        raise EvidenceError(
            f"{placed[0].label} has no tokens_per_query, which is measured when prompts of a domain suite are asked; "
            "submit an arm of it again with such a suite, or choose other axes"
        )
    gain = 0.0 - np.array([first or 0.0, *costs], dtype=np.float64)
    # A tenth beyond the dearest arm, so that this one still counts.
    shape = REPLICATES, len(gain)
    resampled, ranks = np.broadcast_to(gain, shape), np.broadcast_to(ranked(_rounded(gain)), shape)
    return Axis(name, float(gain.min()) * 1.1, gain, resampled, ranks)


# --------------------------------------------------------------------------------------------- methods at one level


def _matched(
    placed: Sequence[Candidate], domain: Axis, general: Axis, wish: Wish, ranks: Ranks
) -> tuple[Matched | None, Matched | None]:
    """Return forgetting at equal learning, and learning at equal forgetting, for the methods that learned anything.

    If no level is wished for, it is the most that all of these methods reach: for learning, in 95 % of the resamples.
    """
    members = {
        method: [0, *arms] for method, arms in _members(placed).items() if domain.gain[arms].max(initial=0.0) > 0
    }
    if not members or not set(PLANE) <= set(wish.axes):
        return None, None
    least = np.min([domain.resampled[:, arms].max(axis=1) for arms in members.values()], axis=0)
    at_learning = float(np.quantile(least, 1 - 0.95)) if wish.at_learning is None else wish.at_learning
    plane = np.stack([domain.gain, general.gain], axis=-1)
    farthest = [float((-plane[arms][non_dominated(plane[arms])])[:, 1].max()) for arms in members.values()]
    at_forgetting = max(0.0, min(farthest)) if wish.at_forgetting is None else wish.at_forgetting
    both = ranks[..., [wish.axes.index(name) for name in PLANE]]
    fronts = {method: non_dominated(both[:, arms]) for method, arms in members.items()}
    forgetting = _read_all(members, fronts, domain, general, at_learning)
    learning = _read_all(members, fronts, general, domain, -at_forgetting)
    return (
        _match(at_learning, {name: 0.0 - values for name, values in forgetting.items()}),
        _match(at_forgetting, learning),
    )


def _read_all(
    members: Mapping[str, list[int]], fronts: Mapping[str, Bools], along: Axis, of: Axis, at: float
) -> dict[str, Floats]:
    """Return by method [1 + replicates] values read off at `at`: the estimate, then resamples; nan: not reached."""
    whole, spread = np.stack([along.gain, of.gain], axis=-1), np.stack([along.resampled, of.resampled], axis=-1)
    return {
        method: np.append(read_off(whole[arms], at), read_off(spread[:, arms], at, fronts[method]))
        for method, arms in members.items()
    }


def _match(at: float, values: Mapping[str, Floats]) -> Matched:
    reads = tuple(Read(method, *_summary(found)) for method, found in values.items())
    gaps = tuple(Gap(a, b, *_summary(values[a] - values[b])) for a, b in combinations(values, 2))
    return Matched(at, reads, gaps)


def _summary(found: Floats) -> tuple[float | None, float | None, float | None, float]:
    """Return estimate, interval over the resamples that have one, and their share."""
    value = None if math.isnan(found[0]) else float(found[0])
    known = found[1:][~np.isnan(found[1:])]
    if not len(known):
        return value, None, None, 0.0
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value, float(low), float(high), len(known) / (len(found) - 1)
