"""Early verdicts: the same as they would come in bit by bit, with the error rates that they promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from evalsvc.errors import EvidenceError
from evalsvc.gating import sequential
from evalsvc.gating.policy import FRACTIONS, Policy
from evalsvc.gating.rules import TaskPair, build_rules
from evalsvc.gating.verdict import Outcome, decide
from tests.support import simulate
from tests.support.evidence import make_binary, make_pair, make_text_pair

TODAY = date(2026, 6, 1)


def policy(mode: str, margin: float = 0.05, **more: Any) -> Policy:
    return Policy.model_validate({"version": 1, "mode": mode, "retention": [{"suite": "s", "margin": margin}], **more})


def judged(said: Policy, pairs: list[TaskPair], fraction: float = 1.0) -> Outcome:
    return sequential.decide(said, build_rules(said, pairs), said.waiver_entries(), "sha256:x", TODAY, fraction)


@pytest.mark.parametrize("mode", ["group_sequential", "finite_pool"])
@pytest.mark.parametrize(("lost", "gained", "verdict"), [(100, 0, "fail"), (10, 10, "pass")])
def test_clear_cases_stop_early(mode: str, lost: int, gained: int, verdict: str) -> None:
    found = judged(policy(mode), [make_pair("s", "t", make_binary(lost, gained, 500))])
    assert found.verdict == verdict
    assert found.looks[-1].items < 500
    assert [look.verdict for look in found.looks[:-1]] == ["inconclusive"] * (len(found.looks) - 1)
    rule = found.rules[0]
    assert (rule.look, rule.low <= rule.estimate <= rule.high) == (found.looks[-1].number, True)


@pytest.mark.parametrize("mode", ["group_sequential", "finite_pool"])
@pytest.mark.parametrize("seed", range(4))
def test_the_verdict_is_the_same_bit_by_bit_and_all_at_once(mode: Any, seed: int) -> None:
    pairs = [make_pair("s", f"t{n}", make_binary(8 + 2 * seed, 6, 100 + 60 * n, seed + n)) for n in range(3)]
    said = policy(mode)
    whole = judged(said, pairs)
    places = {sequential.get_key(p): sequential._places(p) for p in pairs}
    items = {sequential.get_key(p): p.items for p in pairs}
    for share in FRACTIONS[mode]:
        masks = sequential.take_first(places, items, share, mode)
        seen = []
        for p in pairs:
            mask = masks[sequential.get_key(p)]
            if mask.sum() < sequential.SMALLEST:
                mask = np.argsort(np.argsort(sequential._places(p))) < sequential.SMALLEST
            there = p.part(mask)
            seen.append(replace(there, adapted=TaskPair(p.adapted, p.base, p.items).part(mask).base))
        found = judged(said, seen, share)
        if found.verdict != "inconclusive":
            break
    assert found == whole


def test_a_look_takes_the_same_share_of_every_task() -> None:
    pairs = [make_pair("s", f"t{n}", make_binary(0, 0, n)) for n in (10, 101, 500)]
    places = {sequential.get_key(p): sequential._places(p) for p in pairs}
    before: dict[sequential.Key, Any] = {}
    for share in FRACTIONS["group_sequential"]:
        masks = sequential.take_first(places, {key: len(p) for key, p in places.items()}, share, "group_sequential")
        for key, mask in masks.items():
            assert mask.sum() == max(2, np.floor(share * len(mask) + 1e-9))
            assert not (before.get(key, False) & ~mask).any()
        before = masks


def test_a_finite_pool_is_drawn_from_all_tasks_at_random() -> None:
    pairs = [make_pair("s", f"t{n}", make_binary(0, 0, n)) for n in (300, 600)]
    places = {sequential.get_key(p): sequential._places(p) for p in pairs}
    masks = sequential.take_first(places, {key: len(p) for key, p in places.items()}, 0.5, "finite_pool")
    assert sum(int(mask.sum()) for mask in masks.values()) == 450
    for mask in masks.values():
        assert mask.mean() == pytest.approx(0.5, abs=0.08)


def test_the_order_depends_on_the_seed_and_nothing_else() -> None:
    assert sequential.draw_place("abc") == sequential.draw_place("abc") != sequential.draw_place("abc", seed=1)
    places = np.array([sequential.draw_place(str(n)) for n in range(2000)])
    assert np.histogram(places, 10)[0] == pytest.approx(np.full(10, 200), abs=60)


def test_a_finite_pool_foretells_the_whole_suite() -> None:
    """At the end it says what the point estimate says, whatever the weights of the tasks."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        pairs = [
            make_pair(
                "s",
                f"t{n}",
                make_binary(int(rng.integers(2, 12)), int(rng.integers(2, 8)), 60 + 40 * n, seed),
                weight=1 + n,
            )
            for n in range(3)
        ]
        found = judged(policy("finite_pool", 0.03), pairs)
        weights = np.array([p.base.weight for p in pairs])
        level = float(weights @ [sequential.compute_gains(p).mean() for p in pairs] / weights.sum())
        assert found.verdict == ("pass" if level > -0.03 else "fail")
        assert found.rules[0].low - 1e-6 <= level <= found.rules[0].high + 1e-6


@pytest.mark.parametrize(("mode", "most"), [("group_sequential", 0.4), ("finite_pool", 0.2)])
def test_four_times_the_margin_stops_early_on_published_answers(data: Path, mode: str, most: float) -> None:
    """A published system against another that solves 17 points less of GSM8K's 1,319 items, at a quarter of that."""
    table = pq.read_table(data / "results" / "persample" / "openai_gsm8k_4systems.parquet").to_pylist()
    columns = []
    for system in ("175b_verification", "6b_verification"):
        found = {int(row["item"]): float(row["correct"]) for row in table if row["run"] == system}
        columns.append(np.array([found[item] for item in sorted(found)]))
    loss = float((columns[0] - columns[1]).mean())
    assert loss == pytest.approx(0.172, abs=0.001)
    found_early = judged(policy(mode, loss / 4), [make_pair("s", "t", (columns[0], columns[1]))])
    assert found_early.verdict == "fail"
    assert found_early.looks[-1].fraction <= most


@pytest.mark.parametrize("mode", ["group_sequential", "finite_pool"])
def test_drift_is_asked_as_a_whole_at_the_first_look(mode: str) -> None:
    said = policy(mode, drift={"suite": "text", "max_bits_per_byte_increase": 0.05})
    pairs = [make_pair("s", "t", make_binary(5, 5, 500)), make_text_pair("text", "b", np.ones(60), 0.2)]
    found = judged(said, pairs)
    assert (found.verdict, len(found.looks)) == ("fail", 1)
    assert found.looks[0].of == 560
    assert found.looks[0].items == (100 if mode == "group_sequential" else 25) + 60


def test_waived_rules_do_not_stop_a_run() -> None:
    waiver = {
        "rule": "retention/s",
        "checkpoint": "sha256:" + "2" * 64,
        "reason": "r",
        "owner": "o",
        "expires": "2030-01-01",
    }
    said = policy("group_sequential", learning={"suites": ["d"]}, waivers=[waiver])
    pairs = [make_pair("s", "t", make_binary(100, 0, 500)), make_pair("d", "t", make_binary(20, 100, 500))]
    rules = build_rules(said, pairs)
    found = sequential.decide(said, rules, said.waiver_entries(), "sha256:" + "2" * 64, TODAY)
    assert found.verdict == "pass"
    assert {r.rule: r.verdict for r in found.rules} == {"learning/d": "pass", "retention/s": "fail"}


def test_a_pool_with_holes_is_no_evidence() -> None:
    p = make_pair("s", "t", make_binary(5, 5, 500))
    holed = replace(p, adapted=replace(p.adapted, samples=p.adapted.samples[:499], values=p.adapted.values[:499]))
    said = policy("finite_pool", require={"min_coverage": 0.9})
    with pytest.raises(EvidenceError, match="needs every item"):
        judged(said, [holed])
    with pytest.raises(EvidenceError, match="have no order"):
        judged(said, [replace(p, places=None)])


@pytest.mark.parametrize("mode", ["group_sequential", "finite_pool"])
def test_false_passes_at_the_margin_stay_below_alpha(mode: str) -> None:
    """Whole gates, on a suite of two tasks of unequal size and weight, the truth exactly at the margin."""
    verdicts: Counter[str] = Counter()
    runs = 150
    for seed in range(runs):
        if mode == "group_sequential":
            draws = [simulate.draw_population(n, 0.10, -0.05, 1, 7 * seed + n)[0] for n in (300, 150)]
        else:
            draws = [simulate.shuffle_pools(n, 0.10, -0.05, 1, 7 * seed + n)[0] for n in (300, 160)]
        pairs = []
        for number, d in enumerate(draws):
            p = make_pair("s", f"t{number}", (np.where(d < 0, 1.0, 0.0), np.where(d > 0, 1.0, 0.0)), weight=1 + number)
            pairs.append(replace(p, places=np.random.default_rng([seed, number]).random(len(d))))
        verdicts[judged(policy(mode), pairs).verdict] += 1
    assert verdicts["pass"] / runs <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / runs)
    if mode == "group_sequential":
        assert verdicts["fail"] / runs <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / runs)


def test_modes_share_their_rules_with_the_fixed_gate() -> None:
    pairs = [make_pair("s", "t", make_binary(20, 18, 500))]
    fixed = policy("fixed")
    found = decide(fixed, build_rules(fixed, pairs), (), "sha256:x", TODAY)
    early = judged(policy("group_sequential"), pairs)
    assert [rule.rule for rule in found.rules] == [rule.rule for rule in early.rules]
    assert found.verdict == early.verdict == "pass"
