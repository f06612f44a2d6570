"""Power analysis of a policy: the margin that each rule resolves on its suites, before scoring.

Pure: no I/O, no database. The formulas are in `stats.power`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

from evalsvc.analysis.compare import compute_task_shares
from evalsvc.gating.policy import Policy, TaskSize, count_fewest_prompts, count_units, last_alpha
from evalsvc.stats.margins import z_of
from evalsvc.stats.power import ASSUMED_DISCORDANCE, UnchangedMean, expected_discordance

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleForecast:
    """The power analysis of one rule.

    Attributes:
        n: Number of items that are evidence.
        units: Effective number of independent units: documents, or clusters of them.
        margin: Margin of the policy; for learning the gain that must be exceeded.
        discordance: Mean share of items that change either way.
        seen: Whether the discordance was measured on stored arms; else it is assumed.
        resolvable: Smallest margin (for learning: gain beyond `margin`) that is shown with 80 % power; None where most
            items are no evidence.
        power: Probability that an unchanged checkpoint passes; None for learning, where it should not pass.
        needed_n: Units for 80 % power at the policy's margin; None for learning, and where most items are no evidence.
    """

    rule: str
    margin: float
    n: int
    units: int
    discordance: float
    seen: bool
    resolvable: float | None
    power: float | None
    needed_n: int | None


def forecast(
    policy: Policy,
    sizes: Mapping[str, tuple[TaskSize, ...]],
    discordance: Mapping[Key, float],
    losable: Mapping[Key, float] | None = None,
) -> list[RuleForecast]:
    """Return the power analysis of each learning and retention rule.

    Args:
        sizes: Suite name -> its tasks.
        discordance: Discordance by suite and task, as measured on stored arms; others are assumed.
        losable: What the base can lose by suite and task, where this is known: 0 is no evidence for a retention rule.
    """
    forecasts = []
    for suite in policy.learning.suites if policy.learning else ():
        gain = policy.learning.min_gain if policy.learning else 0.0
        forecasts.append(_rule(f"learning/{suite}", gain, {suite: sizes[suite]}, discordance, policy, learning=True))
    for entry in policy.retention:
        name, tasks = f"retention/{entry.suite}", sizes[entry.suite]
        forecasts.append(_rule(name, entry.margin, {entry.suite: tasks}, discordance, policy, losable=losable))
        for task in tasks if entry.per_task_margin is not None else ():
            margin, of_task = entry.per_task_margin or 0.0, {entry.suite: (task,)}
            forecasts.append(_rule(f"{name}/{task.task}", margin, of_task, discordance, policy, losable=losable))
    if policy.group_margin is not None:
        suites = {entry.suite: sizes[entry.suite] for entry in policy.retention}
        forecasts.append(_rule("retention/group", policy.group_margin, suites, discordance, policy, losable=losable))
    if policy.incumbent is not None:
        for suite in policy.suites_with_margin:
            name, margin = f"incumbent/{suite}", policy.incumbent.margin
            forecasts.append(_rule(name, margin, {suite: sizes[suite]}, discordance, policy))
    return forecasts


def list_unforecast(policy: Policy, prompts: Mapping[str, int]) -> tuple[str, ...]:
    """Return a line for every rule of a policy that `forecast` leaves out, with the reason.

    Args:
        prompts: Number of prompts of each task with role diversity, as SUITE/TASK.
    """
    reason = "decided too, but without a power analysis: the spread of {} is known only once items are scored"
    lines = []
    if policy.exchange:
        lines.append("exchange: decided too, but without a power analysis: it depends on what is learned")
    if policy.drift:
        lines.append(f"drift/{policy.drift.suite}: {reason.format('bits per byte')}")
    if policy.diversity:
        lines.append(f"diversity: {', '.join(policy.diversity.measures)}: {reason.format('its ratios')}")
        if fewest := count_fewest_prompts(policy):
            least = policy.diversity.min_ratio
            lines.append(
                f"diversity: an unchanged checkpoint needs {fewest:,} prompts to show that more than {least} is kept"
            )
        lines += [f"diversity/{task}: has {count:,} prompts" for task, count in prompts.items()]
        if not prompts:
            lines.append("diversity: no suite with role diversity is in the store; submit one, or give its --suite")
    return tuple(lines)


def _rule(
    name: str,
    margin: float,
    suites: Mapping[str, tuple[TaskSize, ...]],
    discordance: Mapping[Key, float],
    policy: Policy,
    *,
    learning: bool = False,
    losable: Mapping[Key, float] | None = None,
) -> RuleForecast:
    is_blind = _is_blind(suites, margin, losable or {})
    seeing = {
        suite: tuple(task for task in of_suite if (losable or {}).get((suite, task.task)) != 0)
        for suite, of_suite in suites.items()
    }
    suites = {suite: of_suite for suite, of_suite in seeing.items() if of_suite} or suites
    tasks = [task for of_suite in suites.values() for task in of_suite]
    keys = [(suite, task.task) for suite, of_suite in suites.items() for task in of_suite]
    counts = count_units(suites)
    expected = [
        ASSUMED_DISCORDANCE if (known := discordance.get(key)) is None else expected_discordance(known, task.items)
        for key, task in zip(keys, tasks, strict=True)
    ]
    items = [task.items for task in tasks]
    changed = sum(map(operator.mul, expected, items))
    # Items of one unit may all change together, so that the units' discordance is the items'.
    variances = (max(expected[i] for i in count.tasks) / count.units.effective for count in counts)
    unchanged = UnchangedMean(
        shares=tuple(count.share for count in counts),
        units=tuple(count.units for count in counts),
        variances=tuple(variances),
        z_alpha=z_of(last_alpha(policy)),
        is_bounded=policy.mode != "finite_pool",  # no sampling error once the whole pool is scored
    )
    return RuleForecast(
        rule=name,
        margin=margin,
        n=sum(items),
        units=unchanged.n,
        discordance=changed / sum(items),
        seen=all(key in discordance for key in keys),
        resolvable=None if is_blind else unchanged.resolvable_margin(),
        power=None if learning else 0.0 if is_blind else unchanged.power(margin),
        needed_n=None if learning or is_blind else unchanged.needed_n(margin),
    )


def _is_blind(suites: Mapping[str, tuple[TaskSize, ...]], margin: float, losable: Mapping[Key, float]) -> bool:
    """Whether most items are no evidence, or the loss of everything would be within the margin."""
    tasks = [((suite, task.task), task) for suite, of_suite in suites.items() for task in of_suite]
    no_evidence = sum(task.items for key, task in tasks if losable.get(key) == 0)
    shares = compute_task_shares([(key[0], task.weight) for key, task in tasks])
    most = sum(share * losable.get(key, 1.0) for share, (key, _) in zip(shares, tasks, strict=True))
    return 2 * no_evidence > sum(task.items for _, task in tasks) or most <= margin
