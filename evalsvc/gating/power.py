"""Power analysis of a policy: the margin that each rule resolves on its suites, before scoring.

Pure: no I/O, no database. The formulas are in `stats.power`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evalsvc.gating.policy import Policy, TaskSize, last_alpha
from evalsvc.stats.margins import z_of
from evalsvc.stats.power import ASSUMED_DISCORDANCE, UnchangedMean, expected_discordance

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleForecast:
    """The power analysis of one rule.

    Attributes:
        margin: Margin of the policy; for learning the gain that must be exceeded.
        discordance: Mean share of items that change either way.
        seen: Whether the discordance was measured on stored arms; else it is assumed.
        resolvable: Smallest margin (for learning: gain beyond `margin`) that is shown with 80 % power.
        power: Probability that an unchanged checkpoint passes; None for learning, where it should not pass.
        needed_n: Items for 80 % power at the policy's margin; None for learning.
    """

    rule: str
    margin: float
    n: int
    discordance: float
    seen: bool
    resolvable: float
    power: float | None
    needed_n: int | None


def forecast(
    policy: Policy, sizes: Mapping[str, tuple[TaskSize, ...]], discordance: Mapping[Key, float]
) -> list[RuleForecast]:
    """Return the power analysis of each learning and retention rule.

    Args:
        sizes: Suite name -> its tasks.
        discordance: Discordance by suite and task, as measured on stored arms; others are assumed.
    """
    forecasts = []
    for suite in policy.learning.suites if policy.learning else ():
        gain = policy.learning.min_gain if policy.learning else 0.0
        forecasts.append(_rule(f"learning/{suite}", gain, {suite: sizes[suite]}, discordance, policy, learning=True))
    for entry in policy.retention:
        tasks = sizes[entry.suite]
        forecasts.append(_rule(f"retention/{entry.suite}", entry.margin, {entry.suite: tasks}, discordance, policy))
        for task in tasks if entry.per_task_margin is not None else ():
            name = f"retention/{entry.suite}/{task.task}"
            forecasts.append(_rule(name, entry.per_task_margin or 0.0, {entry.suite: (task,)}, discordance, policy))
    if policy.group_margin is not None:
        suites = {entry.suite: sizes[entry.suite] for entry in policy.retention}
        forecasts.append(_rule("retention/group", policy.group_margin, suites, discordance, policy))
    return forecasts


def list_unforecast(policy: Policy) -> tuple[str, ...]:
    """Return a line for every rule of a policy that `forecast` leaves out, with the reason."""
    reason = "decided too, but without a power analysis: the spread of {} is known only once items are scored"
    lines = []
    if policy.drift:
        lines.append(f"drift/{policy.drift.suite}: {reason.format('bits per byte')}")
    if policy.diversity:
        lines.append(f"diversity: {reason.format('its ratios')}")
    return tuple(lines)


def _rule(
    name: str,
    margin: float,
    suites: Mapping[str, tuple[TaskSize, ...]],
    discordance: Mapping[Key, float],
    policy: Policy,
    *,
    learning: bool = False,
) -> RuleForecast:
    shares, items, variances, changed, seen = [], [], [], 0.0, True
    for suite, tasks in suites.items():
        for task in tasks:
            known = discordance.get((suite, task.task))
            seen = seen and known is not None
            expected = ASSUMED_DISCORDANCE if known is None else expected_discordance(known, task.items)
            shares.append(task.weight / sum(sibling.weight for sibling in tasks) / len(suites))
            items.append(task.items)
            variances.append(expected / task.items)
            changed += expected * task.items
    unchanged = UnchangedMean(
        shares=tuple(shares),
        items=tuple(items),
        variances=tuple(variances),
        z_alpha=z_of(last_alpha(policy)),
        is_bounded=policy.mode != "finite_pool",  # no sampling error once the whole pool is scored
    )
    return RuleForecast(
        rule=name,
        margin=margin,
        n=unchanged.n,
        discordance=changed / unchanged.n,
        seen=seen,
        resolvable=unchanged.resolvable_margin(),
        power=None if learning else unchanged.power(margin),
        needed_n=None if learning else unchanged.needed_n(margin),
    )
