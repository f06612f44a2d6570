"""Verdicts at interim looks, in one seeded random order of items. Pure: no I/O, no database.

* group_sequential: five looks, each at the same share of every task, with bounds that keep the error at alpha over all
  looks; failures are corrected for the number of rules.
* finite_pool: predicts the verdict on the full suite by betting on each rule; a wrong prediction has probability at
  most alpha, for any number of looks. The verdict is about these items, not about the ability in general.

Looks are recomputed from the items' order, so that the verdict is the same whether scores came in gradually or all at
once. Suites with other units than scores are scored completely at the first look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Protocol

import numpy as np

from evalsvc.analysis.units import TaskItems, group_units
from evalsvc.errors import EvidenceError
from evalsvc.gating.measure import list_parts, measure_rule
from evalsvc.gating.policy import FRACTIONS, Mode, Policy, WaiverEntry
from evalsvc.gating.rules import Mask, Rule, TaskPair
from evalsvc.gating.verdict import InterimLook, Outcome, RuleOutcome, Verdict, build_outcome, combine_verdicts
from evalsvc.gating.waivers import describe_waivers, judge_waivers
from evalsvc.records.choices import Half
from evalsvc.records.digests import digest
from evalsvc.records.direction import orient
from evalsvc.records.vocabulary import Floats
from evalsvc.stats.betting import compute_max_log_wealth, pool_interval
from evalsvc.stats.margins import bounds, combine_bounds, z_of
from evalsvc.stats.multiplicity import bonferroni, holm
from evalsvc.stats.sequential import spending_bounds

SEED = 1234

SMALLEST = 2
"""Minimum number of items of every task at the first look, so that each task has an estimate."""

Key = tuple[str, str]
"""Suite and task."""


def draw_place(sample: str, seed: int = SEED) -> float:
    """Return a sample's place in the random order, in [0, 1)."""
    return int(digest("order", str(seed), sample)[:13], 16) / 16**13


def draw_unit_places(tasks: Sequence[TaskItems]) -> list[Floats]:
    """Return the places of every task's samples in the random order of documents and clusters.

    A unit's place is that of its smallest document number, which is a number of its content.
    """
    places: list[Floats] = [np.empty(0)] * len(tasks)
    for group in group_units(tuple(tasks)):
        first = np.full(group.count, np.iinfo(np.int64).max)
        for position, units in zip(group.tasks, group.units, strict=True):
            np.minimum.at(first, units, tasks[position].documents)
        of_unit = np.array([draw_place(str(number)) for number in first.tolist()])
        for position, units in zip(group.tasks, group.units, strict=True):
            places[position] = of_unit[units]
    return places


def take_first(places: Mapping[Key, Floats], items: Mapping[Key, int], fraction: float, mode: Mode) -> dict[Key, Mask]:
    """Return which samples of each task belong to the first `fraction` of the order.

    Group-sequential looks use the same share of every task. Items of one document or cluster have one place, and come
    in at one look, so that later looks add independent evidence: then the share is one of places, not of items. A
    finite pool has one order over all tasks, in which the items of each task and suite are a random sample as well.

    Args:
        places: Places of the available samples; at least those of the first `fraction`.
        items: Number of items of the whole task.
    """
    if mode != "finite_pool":
        pooled, times = np.unique(np.concatenate([*places.values(), np.empty(0)]), return_counts=True)
        repeated = pooled[times > 1]
        return {
            key: find_first_units(there, fraction)
            if np.isin(there, repeated).any()
            else find_foremost(there, max(SMALLEST, math.floor(fraction * items[key] + 1e-9)))
            for key, there in places.items()
        }
    count = math.floor(fraction * sum(items[key] for key in places) + 1e-9)
    pooled = np.sort(np.concatenate(list(places.values()))) if places else np.empty(0)
    last = pooled[min(count, len(pooled)) - 1] if count and len(pooled) else -1.0
    return {key: there <= last for key, there in places.items()}


def take_half(tasks: Sequence[TaskItems], half: Half) -> list[Mask]:
    """Return which samples of each task belong to a half of its documents and clusters; "select" has the odd one.

    Tasks that share documents or clusters have them in the same half.
    """
    places = {(str(i), ""): of_task for i, of_task in enumerate(draw_unit_places(tasks))}
    items = {key: len(of_task) + len(of_task) % 2 for key, of_task in places.items()}
    first = take_first(places, items, 0.5, "group_sequential")
    return [mask if half == "select" else ~mask for mask in first.values()]


def find_first_units(places: Floats, fraction: float = 0.0) -> Mask:
    """Return which samples have a place below `fraction`, and those of the `SMALLEST` first places in any case."""
    foremost = np.unique(places)[:SMALLEST]
    return (places < fraction) | np.isin(places, foremost)


class _Look:
    """The items of each growing task that are used at an interim look."""

    def __init__(self, number: int, masks: Mapping[Key, Mask]) -> None:
        self.number = number
        self.seen = {key: int(mask.sum()) for key, mask in masks.items()}
        self._masks = masks
        self._parts: dict[Key, TaskPair] = {}

    def of(self, rule: Rule) -> Rule:
        """Return a rule on the items of this look, at least `SMALLEST` per task.

        Rules share the parts of tasks, and thus their comparisons.
        """
        if not rule.grows:
            return rule
        for pair in rule.pairs:
            key = get_key(pair)
            if key not in self._parts:
                few = self.seen[key] < SMALLEST
                first = find_first_units(_places(pair)) if few else self._masks[key]
                self._parts[key] = pair.part(first)
        return replace(rule, pairs=tuple(self._parts[get_key(pair)] for pair in rule.pairs))


def find_foremost(places: Floats, count: int) -> Mask:
    """Return which samples are the first `count` of the order."""
    return np.argsort(np.argsort(places, kind="stable"), kind="stable") < count


class _Judge(Protocol):
    def at(self, look: _Look) -> list[Verdict]:
        """Return every rule's verdict at a look, given the earlier looks."""

    def outcomes(self, look: _Look) -> list[RuleOutcome]:
        """Return every rule's outcome at the last look."""


def decide(
    policy: Policy,
    rules: Sequence[Rule],
    waivers: Sequence[WaiverEntry],
    checkpoint: str,
    today: date,
    fraction: float = 1.0,
) -> Outcome:
    """Recompute the looks up to `fraction` of the items, and decide at the first look that can.

    Raises:
        EvidenceError: All rules are waived, or a rule has no evidence.
    """
    judged = judge_waivers(waivers, rules, checkpoint, today)
    waived = describe_waivers(judged)
    tested = [rule for rule in rules if rule.name not in waived]
    if not tested:
        raise EvidenceError("every rule of the policy is waived, so nothing was decided; remove a waiver")
    growing = {get_key(pair): pair for rule in rules if rule.grows for pair in rule.pairs}
    whole = {get_key(pair): pair for rule in rules if not rule.grows for pair in rule.pairs}
    items = {key: pair.items for key, pair in growing.items()}
    places = {key: _places(pair) for key, pair in growing.items()}
    at_once = sum(pair.items for key, pair in whole.items() if key not in growing)
    judge: _Judge = (_Bounds if policy.mode == "group_sequential" else _Bets)(policy, rules, waived)
    looks: list[InterimLook] = []
    for number, share in enumerate(FRACTIONS[policy.mode], start=1):
        if share > fraction + 1e-9:
            break
        look = _Look(number, take_first(places, items, share, policy.mode))
        verdict = combine_verdicts(v for rule, v in zip(rules, judge.at(look), strict=True) if rule.name not in waived)
        seen = at_once + sum(look.seen.values())
        looks.append(
            InterimLook(number=number, fraction=share, items=seen, of=at_once + sum(items.values()), verdict=verdict)
        )
        if verdict != "inconclusive":
            break
    return Outcome(verdict=verdict, rules=tuple(judge.outcomes(look)), waivers=tuple(judged), looks=tuple(looks))


def get_key(pair: TaskPair) -> Key:
    """Return a pair's suite and task."""
    return pair.base.suite, pair.base.task


def _places(pair: TaskPair) -> Floats:
    if pair.places is None or len(pair.places) != len(pair.base.samples):
        raise EvidenceError(
            f"{pair.base.suite}/{pair.base.task}: its items have no order, so looks cannot be recomputed"
        )
    return pair.places


class _Bounds:
    """Group-sequential: a rule is decided when its interval at a look's bound excludes the threshold."""

    def __init__(self, policy: Policy, rules: Sequence[Rule], waived: Mapping[str, str]) -> None:
        self._alpha, self._rules, self._waived = policy.alpha, rules, waived
        fractions = FRACTIONS["group_sequential"]
        # The verdict only depends on the first rejection of Holm's procedure, whose level is Bonferroni's.
        per_rule = bonferroni(policy.alpha, len(rules) - len(waived))
        self._pass = spending_bounds(fractions, policy.alpha)
        self._fail = spending_bounds(fractions, per_rule)
        self._once = (z_of(policy.alpha), z_of(per_rule))
        self._decided: dict[str, tuple[Verdict, int]] = {}

    def _levels(self, grows: bool, look: _Look) -> tuple[float, float]:
        # Rules without interim looks have the same evidence at every look, and are tested once.
        return (self._pass[look.number - 1], self._fail[look.number - 1]) if grows else self._once

    def at(self, look: _Look) -> list[Verdict]:
        for rule in self._rules:
            seen = look.of(rule)
            parts, weights = list_parts(seen)
            low, high = combine_bounds(
                weights, [part.difference for part in parts], *bounds(parts, self._levels(rule.grows, look))
            )
            if high[1] < rule.threshold:
                self._decided[rule.name] = ("fail", look.number)
            elif low[0] > rule.threshold and not seen.is_blind:
                self._decided.setdefault(rule.name, ("pass", look.number))
        return [self._decided.get(rule.name, ("inconclusive", 0))[0] for rule in self._rules]

    def outcomes(self, look: _Look) -> list[RuleOutcome]:
        outcomes = []
        for rule in self._rules:
            verdict, number = self._decided.get(rule.name, ("inconclusive", look.number))
            # The interval at a look's bound is a repeated confidence interval, valid for any number of looks.
            at_pass, at_fail = self._levels(rule.grows, look)
            m = measure_rule(look.of(rule), at_pass)
            outcomes.append(
                build_outcome(m, verdict, z_of(self._alpha), at_fail, self._waived.get(rule.name), look=number)
            )
        return outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    """A rule's items in random order, in [0, 1], and the log wealth of the bets on them so far."""

    items: Floats
    pool: int
    scale: float
    above: Floats
    below: Floats


class _Bets:
    """Finite pool: a rule is decided when the wealth of the bets reaches 1 / alpha, or the pool is complete."""

    def __init__(self, policy: Policy, rules: Sequence[Rule], waived: Mapping[str, str]) -> None:
        self._alpha, self._rules, self._waived = policy.alpha, rules, waived
        self._streams = cache(self._stream)
        self._decided: dict[str, int] = {}

    def _stream(self, position: int) -> _Stream:
        rule = self._rules[position]
        pool = sum(pair.items for pair in rule.pairs)
        factors = [pool * share / pair.items for share, pair in zip(rule.shares, rule.pairs, strict=True)]
        scale = max(factors)
        values = [compute_gains(pair) * factor / scale for pair, factor in zip(rule.pairs, factors, strict=True)]
        order = np.argsort(np.concatenate([_places(pair) for pair in rule.pairs]), kind="stable")
        items = (np.concatenate(values)[order] + 1) / 2
        above, below = compute_max_log_wealth(items, (1 + rule.threshold / scale) / 2, pool)
        return _Stream(items=items, pool=pool, scale=scale, above=above, below=below)

    def _p(self, look: _Look) -> list[tuple[float, float]]:
        """Return every rule's p-values for pass and fail, valid for any number of looks; the second after Holm."""
        p_values = []
        for position, rule in enumerate(self._rules):
            if rule.grows:
                seen = self._count_seen(rule, look)
                stream = self._streams(position)
                wealth = (stream.above[seen - 1], stream.below[seen - 1]) if seen else (0.0, 0.0)
                p_values.append((math.exp(-max(0.0, wealth[0])), math.exp(-max(0.0, wealth[1]))))
            else:
                # The suite is scored completely: its difference decides.
                holds = measure_rule(rule, z_of(self._alpha)).test.difference > rule.threshold
                p_values.append((0.0, 1.0) if holds else (1.0, 0.0))
        tested = [n for n, rule in enumerate(self._rules) if rule.name not in self._waived]
        for n, p in zip(tested, holm([p_values[n][1] for n in tested]), strict=True):
            p_values[n] = (p_values[n][0], float(p))
        return p_values

    @staticmethod
    def _count_seen(rule: Rule, look: _Look) -> int:
        return sum(look.seen[get_key(pair)] for pair in rule.pairs)

    def _judge(self, rule: Rule, look: _Look, p: tuple[float, float]) -> Verdict:
        if p[1] <= self._alpha:
            return "fail"
        return "pass" if p[0] <= self._alpha and not look.of(rule).is_blind else "inconclusive"

    def at(self, look: _Look) -> list[Verdict]:
        verdicts = [self._judge(rule, look, p) for rule, p in zip(self._rules, self._p(look), strict=True)]
        for rule, verdict in zip(self._rules, verdicts, strict=True):
            if verdict != "inconclusive":
                self._decided.setdefault(rule.name, look.number)
        return verdicts

    def outcomes(self, look: _Look) -> list[RuleOutcome]:
        per_rule = bonferroni(self._alpha, len(self._rules) - len(self._waived))
        outcomes = []
        for position, (rule, p) in enumerate(zip(self._rules, self._p(look), strict=True)):
            m = measure_rule(look.of(rule), z_of(self._alpha))
            low = high = m.test.difference
            lost = high < 0
            if rule.grows:
                stream = self._streams(position)
                seen = stream.items[: self._count_seen(rule, look)]
                ends, at_loss = (pool_interval(seen, stream.pool, alpha) for alpha in (self._alpha, per_rule))
                low, high = ((2 * end - 1) * stream.scale for end in ends)
                lost = (2 * at_loss[1] - 1) * stream.scale < 0
            outcome = build_outcome(
                m,
                self._judge(rule, look, p),
                z_of(self._alpha),
                z_of(per_rule),
                self._waived.get(rule.name),
                p_pass=p[0],
                p_fail=p[1],
                look=self._decided.get(rule.name, look.number),
            )
            test = "bets on the finite pool" if rule.grows else "the whole suite"
            outcomes.append(replace(outcome, low=low, high=high, degraded=lost, test=test))
        return outcomes


def compute_gains(pair: TaskPair) -> Floats:
    """Return the adapted arm's gain on each of the base's samples, in [-1, 1]; positive is better.

    Raises:
        EvidenceError: The adapted arm lacks a sample; a finite pool must be complete.
    """
    where = np.searchsorted(pair.adapted.samples, pair.base.samples)
    where = np.minimum(where, len(pair.adapted.samples) - 1)
    if not len(pair.adapted.samples) or not (pair.adapted.samples[where] == pair.base.samples).all():
        raise EvidenceError(
            f"{pair.base.suite}/{pair.base.task}: mode finite_pool needs every item of both arms; submit again"
        )
    return orient(pair.adapted.values[where] - pair.base.values, pair.base.higher_is_better)
