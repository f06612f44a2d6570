"""Policy files: every mistake is one clear line, and what could never pass is refused with what it would need."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from evalsvc.errors import PolicyError
from evalsvc.gating.policy import Policy, TaskSize, check_possible, check_prompts, load_policy, parse_policy
from evalsvc.stats.margins import PairedDifference, bounds, combine_bounds, z_of

GOOD: dict[str, Any] = {
    "version": 1,
    "alpha": 0.05,
    "mode": "fixed",
    "learning": {"suites": ["medical"], "min_gain": 0.0},
    "retention": [
        {"suite": "general-core", "margin": 0.02, "per_task_margin": 0.05},
        {"suite": "instruction", "margin": 0.03},
    ],
    "group_margin": 0.02,
    "drift": {"suite": "general-text", "max_bits_per_byte_increase": 0.05},
    "diversity": {"min_ratio": 0.8},
    "require": {"min_coverage": 1.0, "same_rendering": True},
    "waivers": [
        {
            "rule": "retention/general-core/truthfulqa",
            "checkpoint": "sha256:" + "a" * 64,
            "reason": "known",
            "owner": "ada",
            "expires": datetime.date(2027, 1, 31),
        }
    ],
}


def write(folder: Path, data: Any) -> Path:
    path = folder / "policy.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_the_policy_of_the_design_is_read(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, GOOD))
    assert policy.suites == ("medical", "general-core", "instruction", "general-text")
    (entry,) = policy.waiver_entries()
    assert entry.waiver is not None
    assert entry.waiver.expires == datetime.date(2027, 1, 31)
    assert policy.digest() == Policy.model_validate(policy.model_dump(mode="json")).digest()
    assert policy.digest() != policy.model_copy(update={"alpha": 0.01}).digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpa": 0.05}, "alpa: unknown key; see docs/pages/reference/policy.md"),
        ({"version": 2}, "version: Input should be 1"),
        ({"alpha": 0.5}, "alpha: .*less than or equal to 0.2, got 0.5"),
        ({"alpha": 0}, "alpha: .*greater than 0"),
        ({"mode": "anytime"}, "mode: .*'fixed', 'group_sequential' or 'finite_pool'"),
        ({"retention": [{"suite": "s", "margin": 0}]}, r"retention\[0\].margin: .*greater than 0"),
        ({"retention": [{"suite": "s", "margin": 2}]}, r"retention\[0\].margin: .*less than 1"),
        ({"retention": [{"suite": "s", "margin": 0.1}] * 2}, "suite 's' appears 2 times"),
        ({"retention": [], "group_margin": 0.02}, "group_margin: there is no retention suite"),
        ({"retention": [{"margin": 0.1}]}, r"retention\[0\].suite: Field required"),
        ({"learning": {"suites": []}}, "learning.suites"),
        ({"learning": {"suites": ["a", "a"]}}, "suite 'a' appears 2 times"),
        ({"drift": {"suite": "s", "max_bits_per_byte_increase": float("nan")}}, "max_bits_per_byte_increase"),
        ({"diversity": {"min_ratio": 1.0}}, "min_ratio"),
        ({"diversity": {"min_ratio": 0.8, "measures": []}}, "diversity.measures"),
        ({"diversity": {"min_ratio": 0.8, "measures": ["repetition"]}}, "diversity.measures"),
        ({"diversity": {"min_ratio": 0.8, "measures": ["empty"] * 2}}, "measure 'empty' appears 2 times"),
        ({"require": {"min_coverage": 0}}, "min_coverage"),
        ({"require": {"same_rendering": False}}, "same_rendering: Input should be True"),
        (
            {"require": {"allow_blind_spots": ["instruction", "nosuch/t"]}},
            "require.allow_blind_spots: 'nosuch/t' is no learning or retention suite, .*: medical, general-core, inst",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(write(tmp_path, {**GOOD, **change}))
    assert caught.value.exit_code == 2
    assert str(tmp_path / "policy.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2]", "contains a list"), ("a: [", "not valid YAML at line"), ("", "is empty, must be a mapping")],
)
def test_what_is_no_policy_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        load_policy(write(tmp_path, text))
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "none.yaml")


def sizes(*items: int) -> dict[str, tuple[TaskSize, ...]]:
    return {"s": tuple(TaskSize(f"t{n}", count, 1.0) for n, count in enumerate(items))}


def keep(margin: float, per_task: float | None = None, **more: Any) -> Policy:
    entry = {"suite": "s", "margin": margin, "per_task_margin": per_task}
    return Policy.model_validate({"version": 1, "retention": [entry], **more})


@pytest.mark.parametrize(("margin", "n"), [(0.01, 268), (0.02, 133), (0.03, 88), (0.05, 52)])
def test_a_policy_that_cannot_pass_is_refused_with_the_items_it_needs(margin: float, n: int) -> None:
    check_possible(keep(margin), sizes(n))
    with pytest.raises(PolicyError, match=rf"{n - 1} items .* needs {n} items"):
        check_possible(keep(margin), sizes(n - 1))
    with pytest.raises(PolicyError, match=rf"retention/s/t1: {n - 1} items .* needs {n} items"):
        check_possible(keep(0.5, margin), sizes(1000, n - 1))


def test_a_blind_spot_that_is_allowed_must_be_a_task() -> None:
    allowed = ["s", "s/t0"]
    check_possible(keep(0.1, require={"allow_blind_spots": allowed}), sizes(100, 100))
    for mode in ("fixed", "finite_pool"):
        unknown = keep(0.1, mode=mode, require={"allow_blind_spots": [*allowed, "s/t2"]})
        with pytest.raises(PolicyError, match=r"'s/t2': suite 's' has no task 't2'; nearest: t"):
            check_possible(unknown, sizes(100, 100))
        check_possible(unknown, {})


@pytest.mark.parametrize(("least", "count"), [(0.5, 5), (0.8, 13), (0.9, 27)])
def test_a_diversity_rule_on_too_few_prompts_is_refused_with_the_prompts_it_needs(least: float, count: int) -> None:
    """Nothing changed: sqrt(n (1 - least) / least) must reach Student's t of n - 1 degrees of freedom."""
    policy = Policy.model_validate({"version": 1, "diversity": {"min_ratio": least}})
    for n, is_enough in ((count, True), (count - 1, False)):
        assert (np.sqrt(n * (1 - least) / least) >= stats.t.isf(0.05, n - 1)) == is_enough
    check_prompts(policy, {"open/open": count})
    with pytest.raises(PolicyError, match=rf"^diversity/open/open: {count - 1} prompts cannot .*; needs {count}, or"):
        check_prompts(policy, {"rich/t": 100, "open/open": count - 1})
    check_prompts(policy.model_copy(update={"mode": "finite_pool"}), {"open/open": 2})


def test_several_tasks_help_each_other() -> None:
    check_possible(keep(0.02), sizes(80, 80, 80))
    with pytest.raises(PolicyError, match="needs") as caught:
        check_possible(keep(0.02), sizes(40, 40, 40))
    needed = int(str(caught.value).split("needs ")[1].split(" items")[0].replace(",", ""))
    third = needed // 3
    low, _ = combine_bounds(
        [1 / 3] * 3, [0.0] * 3, *bounds([PairedDifference(third, 0.0, 0.0, (0, 0))] * 3, z_of(0.05))
    )
    assert low[0] > -0.02
    low, _ = combine_bounds(
        [1 / 3] * 3, [0.0] * 3, *bounds([PairedDifference(third - 1, 0.0, 0.0, (0, 0))] * 3, z_of(0.05))
    )
    assert low[0] <= -0.02


def test_the_group_is_checked_when_all_its_suites_are_known() -> None:
    policy = Policy.model_validate(
        {
            "version": 1,
            "retention": [{"suite": "s", "margin": 0.1}, {"suite": "r", "margin": 0.1}],
            "group_margin": 0.01,
        }
    )
    check_possible(policy, sizes(60))
    with pytest.raises(PolicyError, match="retention/group: 120 items"):
        check_possible(policy, {"s": sizes(60)["s"], "r": sizes(60)["s"]})


def test_a_finite_pool_may_be_small() -> None:
    check_possible(keep(0.01, mode="finite_pool"), sizes(20))


def test_several_looks_need_a_few_items_more() -> None:
    with pytest.raises(PolicyError, match=r"52 items .* needs 58 items"):
        check_possible(keep(0.05, mode="group_sequential"), sizes(52))
    check_possible(keep(0.05, mode="group_sequential"), sizes(58))


def test_a_misspelt_key_is_named_before_the_key_that_it_hides() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy({"version": 1, "retention": [{"suite": "core", "margn": 0.1}]})
    assert str(caught.value) == "policy: retention[0].margn: unknown key; did you mean margin?"


def test_mistakes_are_told_as_yaml_has_them_with_every_other_place() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy({"version": 1, "retention": [{"suite": 5, "margin": "x"}], "learning": {"suites": "core"}})
    assert (
        str(caught.value)
        == "policy: learning.suites: must be a list, got 'core' (also wrong: retention[0].suite, retention[0].margin)"
    )


def test_a_rule_about_the_whole_file_begins_with_its_key() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy({"version": 1, "retention": [{"suite": "core", "margin": 0.1}] * 2}, "policy p.yaml")
    assert str(caught.value) == "policy p.yaml: retention: suite 'core' appears 2 times; name it once"
