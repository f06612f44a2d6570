"""Policy files: the rules that a checkpoint must meet to be promoted.

A policy that cannot pass, because a suite has too few items for its margin, is refused before scoring. Waivers are read
one by one: an invalid waiver does not apply, and is shown with the reason.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

from evalsvc.analysis.compare import compute_task_shares
from evalsvc.analysis.units import TaskItems, group_units, has_one_each, size_units
from evalsvc.errors import PolicyError
from evalsvc.files.yaml_files import Strict, first_problem, read_yaml
from evalsvc.harness.suites import Name
from evalsvc.records.digests import canonical, digest
from evalsvc.stats.diversity import COLLAPSE, CollapseMeasure
from evalsvc.stats.margins import z_of
from evalsvc.stats.power import PartUnits, smallest_passing_n, unchanged_bound
from evalsvc.stats.ratios import count_fewest_units
from evalsvc.stats.sequential import spending_bounds
from evalsvc.stats.unit_means import count_effective

Mode = Literal["fixed", "group_sequential", "finite_pool"]
FRACTIONS: Mapping[Mode, tuple[float, ...]] = {
    "fixed": (1.0,),
    "group_sequential": tuple(k / 5 for k in range(1, 6)),
    "finite_pool": tuple(k / 20 for k in range(1, 21)),
}
"""Share of the items at each interim look."""

Share = Annotated[float, Field(gt=0, lt=1)]


class LearningRule(Strict):
    """The mean gain on each of these suites must exceed `min_gain`."""

    suites: tuple[Name, ...] = Field(min_length=1)
    min_gain: float = Field(default=0.0, ge=0, lt=1)


class RetentionRule(Strict):
    """The mean loss on a suite must stay below `margin`, and on each of its tasks below `per_task_margin`."""

    suite: Name
    margin: Share
    per_task_margin: Share | None = None


class IncumbentRule(Strict):
    """The mean loss against what is served now must stay below `margin` on each learning and retention suite."""

    margin: Share


class ExchangeRule(Strict):
    """The mean loss over the retention suites must stay below this share of the mean gain over the learning suites."""

    max_forgotten_per_learned: float = Field(gt=0, allow_inf_nan=False)


class DriftRule(Strict):
    """The bits per byte of a suite must not rise by as much as this."""

    suite: Name
    max_bits_per_byte_increase: float = Field(gt=0, allow_inf_nan=False)


class DiversityRule(Strict):
    """The diversity of generated text, as a share of the base's, must exceed `min_ratio` by each of these measures."""

    min_ratio: float = Field(gt=0, lt=1)
    measures: tuple[CollapseMeasure, ...] = Field(default=COLLAPSE, min_length=1)


class Require(Strict):
    """What evidence must be like to count at all."""

    min_coverage: float = Field(default=1.0, gt=0, le=1)
    allow_blind_spots: tuple[str, ...] = ()
    same_rendering: Literal[True] = True


class Waiver(Strict):
    """Exempts one checkpoint from one rule, with a reason, an owner and an expiry date."""

    rule: str = Field(min_length=1)
    checkpoint: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    reason: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    expires: date


@dataclass(frozen=True, slots=True)
class WaiverEntry:
    """A waiver as read from the file: the waiver, or why it is invalid."""

    text: str
    waiver: Waiver | None = None
    problem: str | None = None


class Policy(Strict):
    """What a checkpoint must meet to be promoted."""

    version: Literal[1]
    alpha: float = Field(default=0.05, gt=0, le=0.2)
    mode: Mode = "fixed"
    learning: LearningRule | None = None
    retention: tuple[RetentionRule, ...] = ()
    group_margin: Share | None = None
    exchange: ExchangeRule | None = None
    incumbent: IncumbentRule | None = None
    drift: DriftRule | None = None
    diversity: DiversityRule | None = None
    require: Require = Require()
    waivers: tuple[Any, ...] = ()

    @field_validator("waivers", mode="before")
    @classmethod
    def _any_waivers(cls, value: Any) -> Any:
        return () if value is None else value if isinstance(value, list | tuple) else (value,)

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
        named: tuple[tuple[str, str, Sequence[str]], ...] = (
            ("retention", "suite", [entry.suite for entry in self.retention]),
            ("learning.suites", "suite", self.learning.suites if self.learning else ()),
            ("diversity.measures", "measure", self.diversity.measures if self.diversity else ()),
        )
        for key, kind, names in named:
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{key}: {kind} {name!r} appears {names.count(name)} times; name it once")
        if self.group_margin is not None and not self.retention:
            raise ValueError("group_margin: there is no retention suite; add retention, or remove group_margin")
        if self.exchange is not None and not (self.retention and self.learning):
            raise ValueError("exchange: needs learning and retention suites; add them, or remove exchange")
        for name in self.require.allow_blind_spots:
            if name.partition("/")[0] not in self.suites_with_margin:
                suites = ", ".join(self.suites_with_margin) or "none"
                raise ValueError(
                    f"require.allow_blind_spots: {name!r} is no learning or retention suite, nor SUITE/TASK of one; "
                    f"the policy's suites: {suites}"
                )
        return self

    @property
    def suites(self) -> tuple[str, ...]:
        """Names of all suites of the policy, each once."""
        return tuple(dict.fromkeys([*self.suites_with_margin, *([self.drift.suite] if self.drift else [])]))

    @property
    def suites_with_margin(self) -> tuple[str, ...]:
        """Names of the learning and retention suites, each once."""
        named = [*(self.learning.suites if self.learning else ()), *(entry.suite for entry in self.retention)]
        return tuple(dict.fromkeys(named))

    def digest(self) -> str:
        """Return the digest of the policy's content."""
        return digest("policy", canonical(self.model_dump(mode="json")))

    def waiver_entries(self) -> list[WaiverEntry]:
        """Return all waivers, including invalid ones."""
        entries = []
        for entry in self.waivers:
            text = canonical(_plain(entry))
            try:
                entries.append(WaiverEntry(text, Waiver.model_validate(entry)))
            except ValidationError as error:
                entries.append(
                    WaiverEntry(
                        text, problem=first_problem(error, "docs/pages/reference/policy.md for the keys of a waiver")
                    )
                )
        return entries


def _plain(value: Any) -> Any:
    """Return a value of a YAML file as JSON types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def read_policy(policy: str | os.PathLike[str] | Mapping[str, Any] | Policy) -> Policy:
    """Return a policy from a file, its content, or itself.

    Raises:
        PolicyError: It cannot be read, or is invalid.
    """
    if isinstance(policy, Policy):
        return policy
    return parse_policy(policy) if isinstance(policy, Mapping) else load_policy(Path(policy))


def load_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        PolicyError: It cannot be read, is not YAML, or is invalid; the message names file and key.
    """
    return parse_policy(read_yaml(path, "policy", PolicyError), f"policy {path}")


def parse_policy(content: Mapping[str, Any], name: str = "policy") -> Policy:
    """Return the policy with a file's content.

    Raises:
        PolicyError: It is invalid; the message begins with `name`.
    """
    try:
        policy = Policy.model_validate(content)
    except ValidationError as error:
        manual = "docs/pages/reference/policy.md for the keys of a policy"
        raise PolicyError(f"{name}: {first_problem(error, manual)}") from error
    return policy.model_copy(update={"waivers": tuple(_plain(entry) for entry in policy.waivers)})


@dataclass(frozen=True, slots=True)
class TaskSize:
    """Number of items of a task, and its weight in the suite.

    Attributes:
        of: Documents and clusters of the items; None where every item is its own.
    """

    task: str
    items: int
    weight: float
    of: TaskItems | None = None


@dataclass(frozen=True, slots=True)
class UnitCount:
    """The units of tasks that share some, with the sum of these tasks' shares in a mean.

    Attributes:
        tasks: Positions of the tasks.
    """

    tasks: tuple[int, ...]
    share: float
    units: PartUnits


def count_units(suites: Mapping[str, tuple[TaskSize, ...]]) -> list[UnitCount]:
    """Count the independent units behind a mean over suites; positions are those of all tasks, suite by suite."""
    tasks = [task for of_suite in suites.values() for task in of_suite]
    shares = compute_task_shares([(suite, task.weight) for suite, of_suite in suites.items() for task in of_suite])
    known = [i for i, task in enumerate(tasks) if task.of is not None]
    counts = [UnitCount((i,), shares[i], PartUnits(task.items)) for i, task in enumerate(tasks) if task.of is None]
    for group in group_units(tuple(items for task in tasks if (items := task.of) is not None)):
        positions = tuple(known[i] for i in group.tasks)
        share = sum(shares[i] for i in positions)
        if share:
            sizes = size_units(group, np.array([shares[i] for i in positions]) / share)
            is_items = has_one_each(group, sizes)
            counts.append(UnitCount(positions, share, PartUnits(count_effective(sizes), is_items)))
    return counts


def check_possible(policy: Policy, sizes: Mapping[str, tuple[TaskSize, ...]]) -> None:
    """Refuse a policy that not even an unchanged checkpoint can pass, or that names a task that there is not.

    Args:
        sizes: Suite name -> its tasks; suites without an entry are not checked.

    Raises:
        PolicyError: A rule has too few items for its margin, and the message has the number needed; or
            `require.allow_blind_spots` names an unknown task.
    """
    _check_allowed(policy.require.allow_blind_spots, sizes)
    if policy.mode == "finite_pool":  # no sampling error once the whole pool is scored
        return
    z_alpha = z_of(last_alpha(policy))
    for entry in policy.retention:
        tasks = sizes.get(entry.suite, ())
        for task in tasks if entry.per_task_margin is not None else ():
            name = f"retention/{entry.suite}/{task.task}"
            _check_mean(name, {entry.suite: (task,)}, entry.per_task_margin or 0.0, policy.alpha, z_alpha)
        _check_mean(
            f"retention/{entry.suite}", {entry.suite: tasks} if tasks else {}, entry.margin, policy.alpha, z_alpha
        )
    if policy.incumbent is not None:
        for suite in policy.suites_with_margin:
            known = {suite: sizes[suite]} if sizes.get(suite) else {}
            _check_mean(f"incumbent/{suite}", known, policy.incumbent.margin, policy.alpha, z_alpha)
    if policy.group_margin is not None:
        known = {entry.suite: sizes[entry.suite] for entry in policy.retention if sizes.get(entry.suite)}
        if len(known) == len(policy.retention):
            _check_mean("retention/group", known, policy.group_margin, policy.alpha, z_alpha)


def check_prompts(policy: Policy, prompts: Mapping[str, int]) -> None:
    """Refuse a diversity rule that not even an unchanged checkpoint can pass.

    Args:
        prompts: Number of prompts of each task with role diversity, as SUITE/TASK.

    Raises:
        PolicyError: A task has too few prompts; the message has the number needed.
    """
    fewest = count_fewest_prompts(policy)
    for task, count in prompts.items():
        if policy.diversity and count < fewest:
            least = policy.diversity.min_ratio
            raise PolicyError(
                f"diversity/{task}: {count:,} prompts cannot show at alpha {policy.alpha:.3g} that more than {least} "
                f"is kept, even if nothing changes; needs {fewest:,}, or a smaller min_ratio"
            )


def count_fewest_prompts(policy: Policy) -> int:
    """Return the number of prompts from which an unchanged checkpoint passes the diversity rule; 0 without a floor."""
    if policy.diversity is None or policy.mode == "finite_pool":  # no sampling error there
        return 0
    return count_fewest_units(policy.diversity.min_ratio, z_of(policy.alpha))


def _check_allowed(names: Sequence[str], sizes: Mapping[str, tuple[TaskSize, ...]]) -> None:
    for name in names:
        suite, _, task = name.partition("/")
        tasks = [size.task for size in sizes.get(suite, ())]
        if task and tasks and task not in tasks:
            nearest = ", ".join(difflib.get_close_matches(task, tasks, cutoff=0.0))
            raise PolicyError(
                f"require.allow_blind_spots: {name!r}: suite {suite!r} has no task {task!r}; nearest: {nearest}"
            )


def last_alpha(policy: Policy) -> float:
    """Return the level at which a rule is tested when all items are scored."""
    if policy.mode != "group_sequential":
        return policy.alpha
    return NormalDist().cdf(-spending_bounds(FRACTIONS[policy.mode], policy.alpha)[-1])


def _check_mean(
    rule: str, suites: Mapping[str, tuple[TaskSize, ...]], margin: float, alpha: float, z_alpha: float
) -> None:
    """Refuse a margin on a mean over suites that has too few items, even if none of them changes."""
    counts = count_units(suites)
    if not counts:
        return
    units, shares = tuple(c.units for c in counts), tuple(c.share for c in counts)
    if unchanged_bound(shares, units, z_alpha) >= margin:
        needed, total = (
            smallest_passing_n(margin, z_alpha, units, shares),
            sum(task.items for of_suite in suites.values() for task in of_suite),
        )
        worth = sum(part.effective for part in units)
        is_each = math.isclose(worth, total)
        has = f"{total:,} items" if is_each else f"{total:,} items, worth {worth:,.1f} independent ones,"
        raise PolicyError(
            f"{rule}: {has} cannot show at alpha {alpha:.3g} that a loss is below {margin}, even if none changes; "
            f"needs {needed:,} {'items' if is_each else 'independent documents or clusters'}, or a larger margin"
        )
