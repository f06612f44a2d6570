"""A recipe: the mean over independent runs of one configuration, with the variance between them in the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from evalsvc.errors import EvidenceError
from evalsvc.gating.decisions import judge
from evalsvc.gating.evidence import Evidence
from evalsvc.gating.measure import measure_rule, measure_spread
from evalsvc.gating.policy import Policy
from evalsvc.gating.recipe import average_evidence
from evalsvc.gating.rules import DiversityRatio, TaskPair, build_rules
from evalsvc.records.arms import Arm
from evalsvc.stats.margins import PairedDifference, bound_sum, margin_test, z_of
from evalsvc.stats.ratios import PairedValues, ratio_bounds
from evalsvc.store.database import Database
from tests.support.commands import Run
from tests.support.evidence import CHILD, Array, fill_store, make_binary, make_candidate, make_task_scores
from tests.support.recipes import BASE, average_runs, draw_recipe, make_run, measure_false_passes, passes

TODAY = date(2026, 1, 1)
POLICY: dict[str, Any] = {"version": 1, "retention": [{"suite": "core", "margin": 0.05}]}


# -------------------------------------------------------------------------------------------------------------- means


def make_drift_evidence(runs: Array, base: Array) -> Evidence:
    """Return the evidence on a recipe whose runs [R, n] have these bits per byte on texts of one byte each."""

    def score(bits: Array) -> Any:
        options: dict[str, Any] = {"aggregation": "bits_per_byte", "metric": "bits_per_byte", "higher": False}
        return make_task_scores("texts", "t", -bits * np.log(2), role="drift", weights=np.ones(len(bits)), **options)

    evidence = [
        Evidence(base=BASE, adapted=make_run(n), plans=(), pairs=(TaskPair(score(base), score(run), len(run)),))
        for n, run in enumerate(runs)
    ]
    return average_evidence("lora-*", BASE, evidence)


def test_five_items_and_three_runs_by_hand() -> None:
    """Values without limits have Student's t over items; numpy and scipy alone give estimate, interval and p-value."""
    base = np.array([1.0, 2.0, 1.5, 1.2, 0.8])
    runs = base + np.array([[0.1, 0.3, -0.1, 0.2, 0.0], [0.2, 0.1, 0.0, 0.4, 0.1], [-0.1, 0.2, 0.1, 0.0, 0.1]])
    policy = Policy.model_validate({"version": 1, "drift": {"suite": "texts", "max_bits_per_byte_increase": 0.3}})
    (rule,) = judge(policy, make_drift_evidence(runs, base), 1.0, TODAY).rules

    gains = base - runs
    of_runs, of_items = gains.mean(axis=1), gains.mean(axis=0)
    assert rule.run_gains == pytest.approx(of_runs)
    assert rule.estimate == pytest.approx(of_runs.mean())
    errors = of_items.std(ddof=1) / np.sqrt(5), of_runs.std(ddof=1) / np.sqrt(3)

    def half_width(alpha: float) -> float:
        return float(np.hypot(stats.t.isf(alpha, 4) * errors[0], stats.t.isf(alpha, 2) * errors[1]))

    assert (rule.low, rule.high) == pytest.approx([rule.estimate - half_width(0.05), rule.estimate + half_width(0.05)])
    assert rule.p_pass is not None
    assert half_width(rule.p_pass) == pytest.approx(rule.estimate + 0.3, rel=1e-3)
    assert (rule.n, rule.units, rule.test) == (5, 5, "MOVER of paired t and t over 3 runs")


def test_partial_scores_of_the_mean_and_the_spread_are_combined() -> None:
    base = np.array([1.0] * 60 + [0.0] * 40)
    runs = np.tile(base, (3, 1))
    runs[0, :3] = runs[1, 2:4] = runs[2, 4] = 0
    evidence = average_runs(base, runs)
    rule, z = build_rules(Policy.model_validate(POLICY), evidence.pairs)[0], z_of(0.05)
    m = measure_rule(rule, z)
    assert m.test.difference == pytest.approx(-(3 + 2 + 1) / 300)
    low, high = bound_sum(m.parts, m.weights, z)
    spread = stats.t.isf(0.05, 2) * np.std([-0.03, -0.02, -0.01], ddof=1) / np.sqrt(3)
    estimate = m.test.difference
    assert m.test.low == pytest.approx(estimate - np.hypot(estimate - low, spread))
    assert m.test.high == pytest.approx(estimate + np.hypot(high - estimate, spread))
    assert evidence.pairs[0].adapted.values[:6] == pytest.approx([2 / 3, 2 / 3, 1 / 3, 2 / 3, 2 / 3, 1])


def test_runs_without_variance_leave_the_interval_over_items() -> None:
    """Three runs that are all perfect, and differ on another suite: what remains uncertain are the items."""
    base, perfect = np.array([1.0] * 90 + [0.0] * 10), np.ones(100)
    evidence = []
    for n in range(3):
        other = make_task_scores("other", "t", np.eye(100)[n])
        tasks = (make_task_scores("core", "t", perfect), other)
        before = make_task_scores("core", "t", base), make_task_scores("other", "t", np.zeros(100))
        pairs = tuple(TaskPair(b, a, 100) for b, a in zip(before, tasks, strict=True))
        evidence.append(Evidence(base=BASE, adapted=make_run(n), plans=(), pairs=pairs))
    (rule,) = build_rules(Policy.model_validate(POLICY), average_evidence("lora-*", BASE, evidence).pairs)
    m = measure_rule(rule, z_of(0.05))
    one = margin_test(m.parts, [1.0], -0.05, z_of(0.05))
    assert m.parts[0].counts == (0, 10)
    assert m.test == one
    assert measure_spread(rule.run_gains) == PairedDifference(n=3, difference=0.0, stderr=0.0, df=2)


def test_diversity_is_the_ratio_of_the_means_with_the_spread_of_the_ratios() -> None:
    rng = np.random.default_rng(3)
    base = rng.uniform(0.5, 1, 40)
    shares = (0.9, 1.0, 0.8)
    kept = [share * base * rng.uniform(0.9, 1, 40) for share in shares]
    evidence = []
    for n, values in enumerate(kept):
        ratio = DiversityRatio(suite="tales/t/unique", metric="unique", values=PairedValues(base, values))
        before, after = (make_task_scores("core", "t", scores) for scores in (np.ones(100), 1 - np.eye(100)[n]))
        pair = TaskPair(before, after, 100)
        evidence.append(Evidence(base=BASE, adapted=make_run(n), plans=(), pairs=(pair,), ratios=(ratio,)))
    (ratio,) = average_evidence("lora-*", BASE, evidence).ratios
    ratios = [values.mean() / base.mean() for values in kept]
    assert ratio.runs == pytest.approx(ratios)
    policy = Policy.model_validate({"version": 1, "diversity": {"min_ratio": 0.6, "measures": ["unique"]}})
    (rule,) = build_rules(policy, (), (ratio,))
    m = measure_rule(rule, z_of(0.05))
    assert m.test.difference == pytest.approx(np.mean(ratios) - 1)
    low, high = (
        float(end[0]) for end in ratio_bounds(PairedValues(base, np.mean(kept, axis=0)), np.array([z_of(0.05)]))
    )
    spread = stats.t.isf(0.05, 2) * np.std(ratios, ddof=1) / np.sqrt(3)
    ends = (
        np.mean(ratios) - np.hypot(np.mean(ratios) - low, spread),
        np.mean(ratios) + np.hypot(high - np.mean(ratios), spread),
    )
    assert (m.test.low + 1, m.test.high + 1) == pytest.approx(ends)
    assert m.units == 40
    fewer = DiversityRatio(suite="tales/t/unique", metric="unique", values=PairedValues(base[:30], kept[1][:30]))
    (unequal,) = average_evidence(
        "lora-*", BASE, [evidence[0], replace(evidence[1], ratios=(fewer,)), evidence[2]]
    ).ratios
    with pytest.raises(EvidenceError, match="diversity/tales/t/unique: is defined on 0 prompts"):
        build_rules(policy, (), (unequal,))
    with pytest.raises(EvidenceError, match="different suites or measures"):
        average_evidence("lora-*", BASE, [evidence[0], replace(evidence[1], ratios=()), evidence[2]])


@pytest.mark.parametrize(("items", "between"), [(200, 0.0), (200, 0.03), (1000, 0.03)])
def test_a_recipe_at_its_margin_passes_in_at_most_alpha(items: int, between: float) -> None:
    """The long form is tests.benchmarks.recipe_error_rates; four standard errors, so that chance does not fail it."""
    gates = 1000
    rate = measure_false_passes(gates, 3, items, between)
    assert rate <= 0.05 + 4 * (0.05 * 0.95 / gates) ** 0.5


def test_the_simulation_passes_what_the_gate_passes() -> None:
    rng = np.random.default_rng(5)
    verdicts = []
    for runs, items, between in ((3, 200, 0.0), (3, 1000, 0.02), (5, 200, 0.01)) * 6:
        base, scores = draw_recipe(rng, runs, items, between, 0.5)
        shifted = np.where(rng.random(scores.shape) < 0.05, base, scores)  # nearer the base, so that some pass
        shifted = np.where(rng.random(scores.shape) < rng.choice([0.0, 0.4, 0.6]), base, shifted)
        verdict = judge(Policy.model_validate(POLICY), average_runs(base, shifted), 1.0, TODAY).verdict
        verdicts.append(verdict)
        assert passes(base, shifted) == (verdict == "pass")
    assert 3 < verdicts.count("pass") < 15


# ----------------------------------------------------------------------------------------------------------- the store


def make_seed(number: int, *, seed: int | None, step: int | None = None, name: str | None = None) -> Arm:
    """Return a training run of the recipe; by default named after its number."""
    arm = make_candidate(number)
    name = name or f"lora-{number}"
    trajectory = None if step is None else name
    path = f"/models/{name}-{seed}/{number}"
    return replace(
        arm, checkpoint=replace(arm.checkpoint, path=path, name=name, seed=seed, step=step, trajectory=trajectory)
    )


def fill_runs(db: Path, values: Mapping[int, tuple[Array, Array]], **options: Any) -> None:
    """Put runs on suite "core" into a store, each with its number as its seed."""
    for number, pair in values.items():
        fill_store(db, "core", {"t": pair}, adapted=make_seed(number, **{"seed": number} | options))


def make_losses(losses: Sequence[int], n: int = 400, gained: int = 4) -> dict[int, tuple[Array, Array]]:
    """Return, by seed from 11, the scores of the base and of a run that lost so many items."""
    base, _ = make_binary(40, 20, n)
    values = {}
    for seed, lost in enumerate(losses, start=11):
        rng = np.random.default_rng(seed)
        run = base.copy()
        run[rng.choice(np.flatnonzero(base == 1), lost, replace=False)] = 0
        run[rng.choice(np.flatnonzero(base == 0), gained, replace=False)] = 1
        values[seed] = base, run
    return values


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(POLICY))
    return path


def test_a_recipe_is_decided_stored_and_verified(evalsvc: Run, db: Path, policy: Path) -> None:
    values = make_losses([8, 6, 9, 5])
    fill_runs(db, values)
    done = evalsvc("gate", "--recipe", "lora-*", "--policy", policy, "--db", db, "--json")
    assert (done.code, done.err) == (0, "")
    (rule,) = done.json["rules"]
    gains = [float(np.mean(run - base)) for base, run in values.values()]
    assert rule["run_gains"] == pytest.approx(gains)
    assert rule["estimate"] == pytest.approx(np.mean(gains))
    assert [(run["arm"], run["seed"], run["number"]) for run in done.json["runs"]] == [
        (f"lora-{seed}", seed, number) for number, seed in enumerate(values, start=1)
    ]
    assert (done.json["checkpoint"], done.json["candidate"]["number"]) == ("lora-*", 1)
    assert done.json["warnings"] == []
    record = Path(done.json["decision"]["path"])
    assert json.loads(record.read_text())["kind"] == "evalsvc recipe decision"
    assert evalsvc("verify", record, "--db", db).code == 0
    table = evalsvc("gate", "--recipe", "lora-*", "--policy", policy, "--db", db, "--markdown", db.with_suffix(".md"))
    assert "PASS: lora-* (recipe, mean of 4 independent runs) against c1" in table.out
    assert "run 2: lora-12, seed 12" in table.out
    assert "run 2: lora-12, seed 12" in db.with_suffix(".md").read_text().replace("\\", "")
    # A checkpoint on the same items is the next candidate; the recipe stays the first.
    assert evalsvc("gate", "lora-11", "--policy", policy, "--db", db, "--json").json["candidate"]["number"] == 2
    again = evalsvc("gate", "--recipe", "lora-1?", "--policy", policy, "--db", db, "--json").json
    assert (again["candidate"]["number"], again["digest"]) == (1, done.json["digest"])


def test_an_edited_score_or_seed_does_not_verify(evalsvc: Run, db: Path, policy: Path) -> None:
    fill_runs(db, make_losses([8, 6, 9]))
    done = evalsvc("gate", "--recipe", "lora-*", "--policy", policy, "--db", db, "--json")
    with Database(db).write() as connection:
        connection.execute("UPDATE checkpoints SET seed = 99 WHERE name = 'lora-12'")
    checked = evalsvc("verify", done.json["decision"]["path"], "--db", db, "--json")
    assert checked.code == 5
    assert "seed 12 -> 99" in checked.json["differences"][0]


def test_what_differs_between_runs_decides(evalsvc: Run, db: Path, policy: Path) -> None:
    """Each of three runs passes on its own; they differ too much for a verdict about the fourth."""
    fill_runs(db, make_losses([2, 14, 2], gained=2))
    for n, arm in enumerate(("lora-11", "lora-12", "lora-13")):
        options = ["--batch-size", "4"] if n == 0 else []
        assert evalsvc("gate", arm, "--policy", policy, "--db", db, *options).code == (4 if arm == "lora-12" else 0)
    done = evalsvc("gate", "--recipe", "lora-*", "--policy", policy, "--db", db)
    assert done.code == 4, done
    assert "more runs" in done.out
    (rule,) = evalsvc("gate", "--recipe", "lora-*", "--policy", policy, "--db", db, "--json").json["rules"]
    assert rule["low"] < -0.05 < rule["estimate"]
    assert rule["needed_runs"] > 3


def test_runs_that_count_as_one_are_too_few(evalsvc: Run, db: Path, policy: Path) -> None:
    values = make_losses([8, 6])
    fill_runs(db, {**values, 13: values[12]})
    gate = ["gate", "--recipe", "lora-*", "--policy", policy, "--db", db]
    done = evalsvc(*gate)
    assert (done.code, done.out, done.err.count("\n")) == (5, "", 1)
    assert "has 2 independent runs, needs at least 3, each trained with its own recorded seed (--seed of " in done.err
    assert "lora-13 counts as one run with lora-12: equal scores on all 400 items that both have" in done.err
    fill_store(db, "core", {"t": make_losses([1, 1, 1, 7])[14]}, adapted=make_seed(14, seed=11))
    assert "both have method lora and seed 11" in evalsvc(*gate).err
    fill_store(db, "core", {"t": make_losses([1] * 4 + [7])[15]}, adapted=make_seed(15, seed=15))
    done = evalsvc(*gate, "--json")
    assert done.code == 0, done
    assert [run["number"] for run in done.json["runs"]] == [1, 1, 2, 2, 3]
    assert len(done.json["warnings"]) == 2
    pair = [np.mean([make_losses([8])[11][1], make_losses([1, 1, 1, 7])[14][1]]), values[12][1].mean()]
    base = values[12][0].mean()
    assert done.json["rules"][0]["run_gains"][:2] == pytest.approx([level - base for level in pair])


def test_runs_without_a_recorded_seed_are_left_out(evalsvc: Run, db: Path, policy: Path) -> None:
    values = make_losses([8, 6, 9, 7])
    fill_runs(db, {seed: values[seed] for seed in (11, 12, 13)})
    fill_store(db, "core", {"t": values[14]}, adapted=make_seed(14, seed=None))
    gate = ["gate", "--recipe", "lora-*", "--policy", policy, "--db", db, "--json"]
    done = evalsvc(*gate)
    assert done.code == 0
    assert len(done.json["runs"]) == 3
    assert done.json["warnings"] == ["lora-14 has no recorded seed, and is left out; submit it again with --seed"]
    with Database(db).write() as connection:
        connection.execute("UPDATE checkpoints SET seed = NULL WHERE name = 'lora-11'")
    done = evalsvc(*gate)
    assert done.code == 5
    assert "has 2 independent runs, needs at least 3" in done.err


def test_of_each_run_the_last_finished_step_is_used(evalsvc: Run, db: Path, policy: Path) -> None:
    values = make_losses([8, 6, 9, 7, 5, 4])
    for number, (seed, step) in zip(values, [(0, 100), (0, 200), (1, 100), (1, 200), (2, 100), (3, 200)], strict=True):
        arm = make_seed(number, seed=seed, step=step, name="lora")
        fill_store(db, "core", {"t": values[number]}, adapted=arm)
    done = evalsvc("gate", "--recipe", "lora", "--policy", policy, "--db", db, "--json")
    assert [(run["arm"], run["seed"]) for run in done.json["runs"]] == [
        *(("lora@200", 0), ("lora@200", 1), ("lora@100", 2), ("lora@200", 3))
    ]
    assert done.json["warnings"] == ["the runs' last finished steps differ: 100, 200"]
    # The last step of seed 1 lacks a suite of the policy: the step before counts, if it has all of them.
    both = {**POLICY, "learning": {"suites": ["clinic"]}}
    policy.write_text(yaml.safe_dump(both))
    for number, (seed, step) in zip(values, [(0, 100), (0, 200), (1, 100), (1, 200), (2, 100), (3, 200)], strict=True):
        if (seed, step) != (1, 200):
            arm = make_seed(number, seed=seed, step=step, name="lora")
            fill_store(db, "clinic", {"q": make_binary(2 + number, 60, 200)}, adapted=arm, role="domain")
    done = evalsvc("gate", "--recipe", "lora", "--policy", policy, "--db", db, "--json")
    assert [run["step"] for run in done.json["runs"]] == [200, 100, 100, 200]


def test_options_that_a_recipe_does_not_have_are_refused(evalsvc: Run, db: Path, policy: Path, tmp_path: Path) -> None:
    fill_runs(db, make_losses([8, 6, 9]))
    fill_store(db, "core", {"t": make_losses([1] * 6)[16]}, adapted=CHILD)
    sequential = tmp_path / "sequential.yaml"
    sequential.write_text(yaml.safe_dump({**POLICY, "mode": "group_sequential"}))
    served = tmp_path / "served.yaml"
    served.write_text(yaml.safe_dump({**POLICY, "incumbent": {"margin": 0.05}}))
    for arguments, message in (
        (["--recipe", "lora-*", "--evaluate"], "--evaluate: scores one checkpoint"),
        (["--recipe", "lora-*", "--plan"], "--plan: analyses the items of one checkpoint"),
        (["--recipe", "lora-*", "--half", "select"], "--half: a recipe is decided against its base"),
        (["--recipe", "lora-*", "--policy", sequential], "mode group_sequential: a recipe is decided against its base"),
        (["--recipe", "lora-*", "--policy", served], "against its base; remove incumbent from the policy"),
        (["--recipe", "lora-*", "lora-11"], "name either a checkpoint or, with --recipe, training runs"),
        ([], "name either a checkpoint or, with --recipe, training runs"),
        (["--recipe", "dora-*"], "matches no training run; training runs: c2, lora-11, lora-12, lora-13"),
    ):
        done = evalsvc("gate", "--policy", policy, "--db", db, *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
        assert message in done.err
    with Database(db).write() as connection:
        connection.execute("UPDATE checkpoints SET method = 'full' WHERE name = 'lora-12'")
    done = evalsvc("gate", "--policy", policy, "--db", db, "--recipe", "lora-*")
    assert done.code == 2
    assert "matches runs of the methods full, lora; a recipe is one configuration" in done.err
