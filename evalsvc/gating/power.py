"""What a policy can resolve on its suites, before anything is computed. Pure: no I/O, no database.

Normal approximation of the paired tests: with discordance D_s on task s of n_s items and weight w_s, the mean has
standard error sqrt(sum w_s^2 D_s / n_s) for a checkpoint that did not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from evalsvc.gating.policy import Policy, TaskSize, last_alpha
from evalsvc.stats.power import ASSUMED_DISCORDANCE, POWER, smallest_passing_n

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleForecast:
    """What a rule will be able to say.

    Attributes:
        margin: As the policy says it; for learning the gain that must be exceeded.
        discordance: Mean share of items that change either way, and whether it was seen or is assumed.
        resolvable: The smallest margin (for learning: gain beyond `margin`) that is shown in 80 % of cases.
        power: Chance that an unchanged checkpoint passes; None for learning, where it should not.
        needed_n: Items for a power of 80 % at the policy's margin.
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
    """Return what each learning and retention rule can resolve.

    Args:
        sizes: Suite name to its tasks.
        discordance: Of each suite and task, as far as checkpoints of the base have shown it.
    """
    found = []
    for suite in policy.learning.suites if policy.learning else ():
        gain = policy.learning.min_gain if policy.learning else 0.0
        found.append(_rule(f"learning/{suite}", gain, {suite: sizes[suite]}, discordance, policy, learning=True))
    for entry in policy.retention:
        tasks = sizes[entry.suite]
        found.append(_rule(f"retention/{entry.suite}", entry.margin, {entry.suite: tasks}, discordance, policy))
        for task in tasks if entry.per_task_margin is not None else ():
            name = f"retention/{entry.suite}/{task.task}"
            found.append(_rule(name, entry.per_task_margin or 0.0, {entry.suite: (task,)}, discordance, policy))
    if policy.group_margin is not None:
        suites = {entry.suite: sizes[entry.suite] for entry in policy.retention}
        found.append(_rule("retention/group", policy.group_margin, suites, discordance, policy))
    return found


def _rule(
    name: str,
    margin: float,
    suites: Mapping[str, tuple[TaskSize, ...]],
    discordance: Mapping[Key, float],
    policy: Policy,
    *,
    learning: bool = False,
) -> RuleForecast:
    variance, changed, n, seen = 0.0, 0.0, 0, True
    for suite, tasks in suites.items():
        for task in tasks:
            share = task.weight / sum(other.weight for other in tasks) / len(suites)
            known = discordance.get((suite, task.task))
            seen = seen and known is not None
            # Where nothing has changed so far, the next item may: one in n more.
            d = max(known, 1 / (task.items + 1)) if known is not None else ASSUMED_DISCORDANCE
            variance += share**2 * d / task.items
            changed += d * task.items
            n += task.items
    error, alpha = math.sqrt(variance), last_alpha(policy)
    z = NormalDist().inv_cdf(1 - alpha)
    reach = z + NormalDist().inv_cdf(POWER)
    needed = None if learning else max(math.ceil(n * (reach * error / margin) ** 2), smallest_passing_n(margin, alpha))
    power = None if learning else NormalDist().cdf(margin / error - z)
    return RuleForecast(
        rule=name,
        margin=margin,
        n=n,
        discordance=changed / n,
        seen=seen,
        resolvable=reach * error,
        power=power,
        needed_n=needed,
    )
