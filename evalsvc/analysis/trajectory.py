"""Steps of one training run: curves, first step above a margin, best step. Pure: no I/O, no database."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from evalsvc.analysis.compare import UNIT_INTERVAL, compute_totals
from evalsvc.analysis.levels import LEVELS_ONLY, UNPAIRED
from evalsvc.analysis.shared import find_shared
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.comparisons import Comparison, Missing, RoleTotal
from evalsvc.records.vocabulary import Role
from evalsvc.stats.paired import LEVEL

MARGIN = 0.02


def check_margin(margin: float) -> None:
    """Check the largest tolerated loss.

    Raises:
        UsageError: It is not a finite number of at least 0.
    """
    if not 0 <= margin < math.inf:
        raise UsageError(f"margin {margin}: must be a finite number of at least 0")


Trend = Literal["better at every step", "worse at every step", "unchanged", "mixed", "one step"]
Side = Literal["below", "above", "undecided"]


@dataclass(frozen=True, slots=True)
class ChangeEstimate:
    """A change from the base with its interval; positive forgetting is worse, positive learning is better."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """One checkpoint of a run; None for a role that was not scored.

    Attributes:
        side: The side of the margin on which its forgetting is significantly (one-sided 5 %, corrected for all steps
            that are compared with it); None without an interval. The intervals are not corrected.
    """

    step: int
    arm: str
    learning: ChangeEstimate | None
    forgetting: ChangeEstimate | None
    side: Side | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One task over all steps, in the metric's unit.

    Attributes:
        levels: One per step.
        gains: Gains over the base with their intervals; positive is better.
        below_best: The best of base and steps minus the last step; biased upward, as it is a maximum of noisy scores.
        trend: Trend from the base through all steps, of which there must be two.
        paired: Whether the intervals are paired by item; False for published results without items.
    """

    suite: str
    role: Role
    task: str
    metric: str
    higher_is_better: bool
    base: float
    levels: tuple[float, ...]
    gains: tuple[ChangeEstimate, ...]
    below_best: float
    trend: Trend
    paired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A training run, step by step.

    Attributes:
        margin: The largest forgetting tolerated.
        first_above: First step whose forgetting is estimated above the margin.
        first_proven: First step whose forgetting is significantly above the margin; see `Step.side`.
        best_step: Among the steps whose forgetting is significantly below the margin, the one that learned most; its
            learning is a maximum over steps and biased upward.
        learning_unit, forgetting_unit: "score", or a metric's name.
        incomplete: Labels of the steps that are not shown.
        missing: The same steps, with the tasks that they lack; none where they cannot be compared at all.
        unshared: Tasks, as SUITE/TASK, that most of the steps do not share; they are not shown.
    """

    name: str
    method: str
    base: str
    margin: float
    steps: tuple[Step, ...]
    curves: tuple[Curve, ...]
    first_above: int | None
    first_proven: int | None
    best_step: int | None
    learning_unit: str | None
    forgetting_unit: str | None
    incomplete: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    unshared: tuple[str, ...] = ()


def build_trajectory(
    name: str, method: str, base: str, steps: Sequence[tuple[int, str, Sequence[Comparison]]], margin: float = MARGIN
) -> Trajectory:
    """Build a trajectory from the comparisons of its steps.

    Args:
        steps: (step, arm, its comparison with the base), in order.

    Raises:
        EvidenceError: There is no step.
    """
    if not steps:
        raise EvidenceError(f"trajectory {name}: has no finished step; see `evalsvc status`")
    tables = [{(c.suite, c.task): c for c in comparisons} for _, _, comparisons in steps]
    tasks = find_shared(tables)
    lacking = [tuple(f"{suite}/{task}" for suite, task in tasks if (suite, task) not in table) for table in tables]
    missing = tuple(Missing(arm, names) for (_, arm, _), names in zip(steps, lacking, strict=True) if names)
    steps = [
        (step, arm, [table[key] for key in tasks])
        for (step, arm, _), table, names in zip(steps, tables, lacking, strict=True)
        if not names
    ]
    units = {role: _unit(role, steps[0][2]) for role in ("domain", "general")}
    # Bonferroni's correction: whichever step is chosen, the error is at most 5 % on each side of the margin.
    level = 1 - (1 - LEVEL) / len(steps)
    run_steps = tuple(_build_step(step, arm, comparisons, units, margin, level) for step, arm, comparisons in steps)
    within = [step for step in run_steps if step.side == "below"]
    best = max(within, key=lambda s: s.learning.value if s.learning else 0.0, default=None)
    return Trajectory(
        name=name,
        method=method,
        base=base,
        margin=margin,
        steps=run_steps,
        curves=tuple(_build_curve([comparisons[i] for _, _, comparisons in steps]) for i in range(len(tasks))),
        first_above=next((s.step for s in run_steps if s.forgetting and s.forgetting.value > margin), None),
        first_proven=next((s.step for s in run_steps if s.side == "above"), None),
        best_step=best.step if best and best.learning else None,
        learning_unit=units["domain"],
        forgetting_unit=units["general"],
        incomplete=tuple(entry.arm for entry in missing),
        missing=missing,
        unshared=tuple(
            "/".join(key) for key in dict.fromkeys(key for table in tables for key in table) if key not in tasks
        ),
    )


def _unit(role: str, comparisons: Sequence[Comparison]) -> str | None:
    """Return the most frequent unit of a role's tasks."""
    units = Counter(c.unit for c in comparisons if c.role == role)
    return max(units, key=lambda unit: (units[unit], unit == UNIT_INTERVAL)) if units else None


def _build_step(
    step: int, arm: str, comparisons: Sequence[Comparison], units: dict[str, str | None], margin: float, level: float
) -> Step:
    """Build a step.

    Args:
        level: Confidence level that decides on which side of the margin it is.
    """
    totals = compute_totals(comparisons)
    corrected = _get_forgetting(compute_totals(comparisons, level), units)
    learned = _get_total(totals, "domain", units)
    return Step(
        step=step,
        arm=arm,
        learning=ChangeEstimate(learned.difference, learned.low, learned.high) if learned else None,
        forgetting=_get_forgetting(totals, units),
        side=_find_side(corrected, margin) if corrected else None,
    )


def _get_total(totals: Sequence[RoleTotal], role: Role, units: dict[str, str | None]) -> RoleTotal | None:
    return next((total for total in totals if (total.role, total.unit) == (role, units[role])), None)


def _get_forgetting(totals: Sequence[RoleTotal], units: dict[str, str | None]) -> ChangeEstimate | None:
    kept = _get_total(totals, "general", units)
    return ChangeEstimate(0.0 - kept.difference, _negate(kept.high), _negate(kept.low)) if kept else None


def _find_side(forgetting: ChangeEstimate, margin: float) -> Side | None:
    if forgetting.low is None or forgetting.high is None:
        return None
    if forgetting.low > margin:
        return "above"
    return "below" if forgetting.high <= margin else "undecided"


def _negate(value: float | None) -> float | None:
    return None if value is None else 0.0 - value


def _build_curve(comparisons: Sequence[Comparison]) -> Curve:
    first = comparisons[0]
    gains = tuple(ChangeEstimate(c.gain, *c.gain_interval) for c in comparisons)
    path = [0.0, *(gain.value for gain in gains)]
    rises = [after - before for before, after in pairwise(path)]
    trend: Trend = "mixed"
    if len(rises) == 1:
        trend = "one step"
    elif all(rise > 0 for rise in rises):
        trend = "better at every step"
    elif not any(rises):
        trend = "unchanged"
    elif all(rise < 0 for rise in rises):
        trend = "worse at every step"
    return Curve(
        suite=first.suite,
        role=first.role,
        task=first.task,
        metric=first.metric,
        higher_is_better=first.higher_is_better,
        base=first.base,
        levels=tuple(c.adapted for c in comparisons),
        gains=gains,
        below_best=max(path) - path[-1],
        trend=trend,
        paired=first.test not in (UNPAIRED, LEVELS_ONLY),
    )
