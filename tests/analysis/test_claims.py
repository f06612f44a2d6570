"""Claims, decided by what the store has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evalsvc.analysis import stored_claims
from evalsvc.analysis.claims import (
    FELL,
    DecidedClaim,
    TrainingRun,
    decide_claims,
    decide_drift_claim,
    decide_drop_claim,
)
from evalsvc.analysis.trajectory import ChangeEstimate
from evalsvc.errors import EvidenceError
from evalsvc.records.arms import Arm
from evalsvc.records.methods import list_kinds
from evalsvc.records.vocabulary import Role
from evalsvc.store.store import Store
from tests.support.commands import Run as Command
from tests.support.fakes import NUMERICS, grade_plan, make_arm, make_plan
from tests.support.published import CPT_GENERAL, CPT_HUMAN_EVAL


def runs(method: str, forgetting: list[float], learning: float = 0.1) -> list[TrainingRun]:
    return [
        TrainingRun(
            name=f"{method}{i}",
            arm=f"{method}{i}",
            kinds=list_kinds(method, f"{method}{i}"),
            learning=learning,
            forgetting=value,
        )
        for i, value in enumerate(forgetting)
    ]


def by_name(found: list[DecidedClaim]) -> dict[str, DecidedClaim]:
    return {card.claim: card for card in found}


def test_three_seeds_of_each_method_decide() -> None:
    more = by_name(decide_claims([*runs("full", [0.12, 0.17, 0.20]), *runs("lora", [0.02, 0.01, 0.0])], (), "x"))
    assert more["full-forgets-more"].verdict == "supported"
    assert more["full-forgets-more"].test.startswith("Welch t over runs")
    assert (more["full-forgets-more"].low or 0) > 0
    less = by_name(decide_claims([*runs("full", [0.01, 0.02, 0.0]), *runs("lora", [0.12, 0.17, 0.20])], (), "x"))
    assert less["full-forgets-more"].verdict == "refuted"
    same = by_name(decide_claims([*runs("full", [0.10, 0.02, 0.06]), *runs("lora", [0.12, 0.03, 0.05])], (), "x"))
    assert same["full-forgets-more"].verdict == "undecided"


def test_fewer_seeds_are_no_claim_about_a_method() -> None:
    one = by_name(decide_claims([*runs("full", [0.3]), *runs("lora", [0.0])], (), "x"))["full-forgets-more"]
    assert (one.verdict, one.low) == ("undecided", None)
    assert one.reason == "1 full run, 1 lora run: too few; a claim about methods needs at least 3 seeds per method"
    assert one.estimate == pytest.approx(0.3)
    two = by_name(decide_claims([*runs("full", [0.3] * 5), *runs("lora", [0.0] * 2)], (), "x"))["full-forgets-more"]
    assert (two.verdict, "5 full runs, 2 lora runs: too few" in two.reason) == ("undecided", True)
    alone = by_name(decide_claims(runs("full", [0.3] * 5), (), "x"))["full-forgets-more"]
    assert (alone.verdict, alone.estimate) == ("undecided", None)


def test_zero_variance_between_runs_decides_nothing() -> None:
    for full in ([0.3] * 3, [0.3, 0.31, 0.32]):
        card = by_name(decide_claims([*runs("full", full), *runs("lora", [0.0] * 3)], (), "x"))["full-forgets-more"]
        assert (card.verdict, card.p_value, card.low) == ("undecided", None, None)
        assert "must differ for a variance; score more items" in card.reason


def test_runs_with_the_same_seed_count_once_with_their_mean() -> None:
    full = [replace(run, seed=i // 2, method="full") for i, run in enumerate(runs("full", [0.3, 0.5, 0.2, 0.4, 0.1]))]
    lora = [replace(run, seed=i, method="lora") for i, run in enumerate(runs("lora", [0.01, 0.02, 0.0]))]
    card = by_name(decide_claims([*full, *lora], (), "x"))["full-forgets-more"]
    expected = stats.ttest_ind([0.4, 0.3, 0.1], [0.01, 0.02, 0.0], equal_var=False).confidence_interval(0.90)
    assert (card.low, card.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert "full1 counts as one run with full0: both have method full and seed 0" in card.evidence
    copies = [replace(run, seed=0, method="full") for run in full]
    assert by_name(decide_claims([*copies, *lora], (), "x"))["full-forgets-more"].reason.startswith(
        "1 independent full run (of 5), 3 lora runs: too few"
    )


def test_steps_of_one_run_say_nothing_about_drift() -> None:
    steps = [
        replace(run, name="a", step=i, drift=i / 10, forgetting=0.03 * i + 0.001 * (i % 2))
        for i, run in enumerate(runs("lora", [0.0] * 10))
    ]
    card, line = decide_drift_claim(steps, "x")
    assert (card.verdict, card.p_value) == ("undecided", None)
    assert line is not None
    expected = stats.linregress([step.drift or 0 for step in steps], [step.forgetting or 0 for step in steps])
    assert line.n == 10
    assert line.slope == pytest.approx(expected.slope)
    assert "over all 10 checkpoints, which are not independent, the slope is" in card.reason


def test_the_published_runs_learn_more_and_forget_more_but_are_one_run_each() -> None:
    """Biderman et al. 2024, code CPT at 20 billion tokens: full .263 and .545, LoRA r = 256 .224 and .617."""
    base = {"general": 0.671, "human_eval": 0.138}
    arms = [
        TrainingRun(
            name=name,
            arm=name,
            kinds=list_kinds(method, name),
            learning=x[-1] - base["human_eval"],
            forgetting=base["general"] - y[-1],
        )
        for name, method, x, y in (
            ("full", "full", CPT_HUMAN_EVAL["full"], CPT_GENERAL["full"]),
            ("r256", "lora", CPT_HUMAN_EVAL["r256"], CPT_GENERAL["r256"]),
        )
    ]
    found = by_name(decide_claims(arms, (), "published"))
    assert found["full-learns-more"].estimate == pytest.approx(0.039)
    assert found["full-forgets-more"].estimate == pytest.approx(0.072)
    assert {card.verdict for card in found.values()} == {"undecided"}


def test_runs_count_as_what_they_are() -> None:
    assert list_kinds("LoRA", "a") == {"lora", "peft"}
    assert list_kinds("full", "a") == {"full"}
    assert list_kinds("rl", "a") == {"full", "rl"}
    assert list_kinds("rl", "a", is_adapter=True) == {"peft"}
    assert list_kinds("our-own", "a") == set()
    assert list_kinds("cpt", "cpt-replay-5%") == {"cpt", "replay"}
    assert list_kinds("cpt", "plain") == {"cpt", "no replay"}


def test_a_method_of_no_known_group_is_left_out_and_named() -> None:
    kept = [replace(run, diversity=0.9 + i / 1000) for i, run in enumerate(runs("lora", [0.0] * 3))]
    lost = [replace(run, diversity=0.5 + i / 100) for i, run in enumerate(runs("grpo", [0.0] * 3))]
    own = replace(runs("our-own", [0.0])[0], method="our-own", diversity=0.1)
    card = by_name(decide_claims([*kept, *lost, own], (), "x"))["peft-keeps-diversity"]
    assert card.verdict == "supported"
    assert card.estimate == pytest.approx(0.391)
    assert card.evidence == (
        "peft: lora0 +0.900, lora1 +0.901, lora2 +0.902",
        "full: grpo0 +0.500, grpo1 +0.510, grpo2 +0.520",
        "our-own0 is left out: its method 'our-own' is not in a known group of methods",
    )


def test_replay_is_judged_by_general_text() -> None:
    made = [
        TrainingRun(name=f"{name}{i}", arm=f"{name}{i}", kinds=list_kinds("cpt", f"{name}{i}"), text=value + i / 100)
        for name, value in (("plain", 0.5), ("replay", 0.1))
        for i in range(3)
    ]
    assert by_name(decide_claims(made, (), "x"))["replay-keeps-text"].verdict == "supported"


def one(general: tuple[float, float], instruction: tuple[float, float] | None) -> TrainingRun:
    roles: list[tuple[Role, ChangeEstimate]] = [("general", ChangeEstimate(sum(general) / 2, *general))]
    if instruction:
        roles.append(("instruction", ChangeEstimate(sum(instruction) / 2, *instruction)))
    return TrainingRun(name="a", arm="a@1", kinds=frozenset({"full"}), roles=tuple(roles))


@pytest.mark.parametrize(
    ("general", "instruction", "verdict", "why"),
    [
        ((-0.2, -0.1), (-0.3, -0.2), "supported", "both dropped significantly"),
        ((-0.2, -0.1), (-0.01, 0.01), "refuted", "instruction: a drop by 0.02 is excluded"),
        ((-0.01, 0.03), (-0.3, -0.2), "refuted", "general: a drop by 0.02 is excluded"),
        ((-0.2, -0.1), (-0.3, 0.01), "undecided", "neither"),
        ((-0.2, -0.1), None, "undecided", "neither"),
    ],
)
def test_both_must_have_fallen(
    general: tuple[float, float], instruction: tuple[float, float] | None, verdict: str, why: str
) -> None:
    card = decide_drop_claim(one(general, instruction))
    assert (card.verdict, card.claim) == (verdict, FELL)
    assert why in card.reason


def test_drift_predicts_forgetting_or_not() -> None:
    rng = np.random.default_rng(0)
    drift = rng.random(10)
    made = [
        replace(run, drift=float(x), forgetting=0.3 * float(x) + float(e))
        for run, x, e in zip(runs("lora", [0.0] * 10), drift, rng.normal(0, 0.01, 10), strict=True)
    ]
    card, line = decide_drift_claim(made, "x")
    assert line is not None
    assert card.verdict == "supported"
    assert line.slope == pytest.approx(0.3, abs=0.05)
    assert "R2 0." in card.reason
    few, nothing = decide_drift_claim(made[:3], "x")
    assert (few.verdict, nothing) == ("undecided", None)


# ------------------------------------------------------------------------------------------------------- from the store


def test_real_matrices_support_that_full_forgets_more_and_learns_more(data: Path, db: Path, evalsvc: Command) -> None:
    files = (data / "results" / "sequential").glob("*.json")
    assert evalsvc("import", "matrix", *files, "--db", db).code == 0
    found = {card["claim"]: card for card in evalsvc("claims", "--db", db, "--json").json["claims"]}
    assert {name: card["verdict"] for name, card in found.items()} == {
        "full-forgets-more": "supported",
        "full-learns-more": "supported",
    }
    assert found["full-forgets-more"]["about"] == "matrices over rte, mrpc, cola, sst2"
    assert "supported" in evalsvc("claims", "--db", db).out


def test_stored_arms_decide_and_only_the_last_step_of_a_run_counts(db: Path) -> None:
    base = make_arm(1)
    general, instruction = make_plan("g", n=60, text="g"), make_plan("i", n=60, role="instruction", text="i")
    domain = make_plan("d", n=60, role="domain", text="d")
    store = Store(db)
    made = []
    for number, (method, run, step) in enumerate(
        [(m, f"{m}{s}", step) for m in ("full", "lora") for s in range(3) for step in (1, 2)], start=2
    ):
        of = replace(
            make_arm(number, parent=base.checkpoint).checkpoint,
            base_path=None,
            path=f"/models/{run}/{step}",
            method=method,
            name=run,
            step=step,
            trajectory=run,
        )
        made.append(Arm(of, NUMERICS))
    store.register([base, *made], [general, instruction, domain], "h:1")
    for item in (general, instruction, domain):
        store.finish(base, item, grade_plan(item, [1.0] * 50 + [0.0] * 10))
    for i, adapted in enumerate(made):
        lost = 20 + i if adapted.checkpoint.method == "full" else 2 + i % 3
        lost = lost if adapted.checkpoint.step == 2 else 0
        for item in (general, instruction, domain):
            store.finish(adapted, item, grade_plan(item, [0.0] * lost + [1.0] * (50 - lost) + [0.0] * 10))
    found = stored_claims.decide_stored_claims(store)
    card = by_name(found)["full-forgets-more"]
    assert (card.verdict, card.about) == ("supported", "arms of c1")
    assert len(card.evidence[0].split(", ")) == 3  # one value per run
    dropped = {one.about: one.verdict for one in found if one.claim == FELL}
    assert sorted(dropped) == [f"{name}{seed}@2" for name in ("full", "lora") for seed in range(3)]
    assert {dropped[f"full{seed}@2"] for seed in range(3)} == {"supported"}


def store_runs(db: Path, scores: Mapping[str, tuple[str, int | None, list[float]]], step: int | None = None) -> Store:
    """Store arms, by name with method, seed and scores, and a base that is right on the first half of the items."""
    base, store = make_arm(1), Store(db)
    plan = make_plan("g", n=len(next(iter(scores.values()))[2]))
    arms = {
        name: Arm(
            replace(
                make_arm(number, parent=base.checkpoint).checkpoint,
                base_path=None,
                method=method,
                name=name.partition(" ")[0],
                seed=seed,
                step=number if step else None,
            ),
            NUMERICS,
        )
        for number, (name, (method, seed, _)) in enumerate(scores.items(), start=2)
    }
    count = len(plan.tasks[0].samples)
    store.register([base, *arms.values()], [plan], "h:1")
    store.finish(base, plan, grade_plan(plan, [1.0] * (count // 2) + [0.0] * (count - count // 2)))
    for name, (_, _, values) in scores.items():
        store.finish(arms[name], plan, grade_plan(plan, values))
    return store


def test_copies_of_a_run_are_one_run_and_the_output_says_so(db: Path) -> None:
    rng = np.random.default_rng(0)
    draws = {
        method: (rng.random(200) < level).astype(float).tolist() for method, level in (("full", 0.4), ("lora", 0.5))
    }
    store = store_runs(db, {f"{m}{i}": (m, None, draws[m]) for m in draws for i in range(3)})
    card = by_name(stored_claims.decide_stored_claims(store))["full-forgets-more"]
    assert (card.verdict, card.p_value, card.low) == ("undecided", None, None)
    assert card.reason.startswith("1 independent full run (of 3), 1 independent lora run (of 3): too few")
    assert "full2 counts as one run with full0: equal scores on all 200 items that both have" in card.evidence


def test_steps_of_a_run_that_were_submitted_one_by_one_are_one_run(db: Path) -> None:
    rng = np.random.default_rng(0)
    draws = {
        f"{method} {i}": (method, None, (rng.random(200) < level).astype(float).tolist())
        for method, level in (("full", 0.1), ("lora", 0.5))
        for i in range(3)
    }
    card = by_name(stored_claims.decide_stored_claims(store_runs(db, draws, step=1)))["full-forgets-more"]
    assert card.reason.startswith("1 full run, 1 lora run: too few")


def test_runs_of_one_name_with_recorded_seeds_are_several(db: Path) -> None:
    rng = np.random.default_rng(0)
    draws = {
        f"{method} {i}": (method, i, (rng.random(200) < level).astype(float).tolist())
        for method, level in (("full", 0.1), ("lora", 0.5))
        for i in range(3)
    }
    card = by_name(stored_claims.decide_stored_claims(store_runs(db, draws)))["full-forgets-more"]
    assert card.verdict == "supported"
    base = np.repeat([1.0, 0.0], 100)
    forgetting = [
        [float((base - values).mean()) for m, _, values in draws.values() if m == method] for method in ("full", "lora")
    ]
    expected = stats.ttest_ind(*forgetting, equal_var=False)
    assert card.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_where_the_last_step_of_a_run_is_not_finished_the_one_before_counts(db: Path) -> None:
    base, instruction = make_arm(1), make_plan("i", n=60, role="instruction", text="i")
    made = [
        replace(
            make_arm(10 * run + step, parent=base.checkpoint).checkpoint,
            path=f"/models/r{run}/{step}",
            name=f"r{run}",
            step=step,
            trajectory=f"r{run}",
        )
        for run in (1, 2, 3)
        for step in (1, 2, 3)
    ]
    store = Store(db)
    store.register([base, *(Arm(of, NUMERICS) for of in made)], [instruction], "h:1")
    store.finish(base, instruction, grade_plan(instruction, [1.0] * 50 + [0.0] * 10))
    for of in made:
        if (of.name, of.step) not in {("r1", 3), ("r2", 2), ("r2", 3), ("r3", 1)}:
            store.finish(Arm(of, NUMERICS), instruction, grade_plan(instruction, [0.0] * 30 + [1.0] * 20 + [0.0] * 10))
    about = [card.about for card in stored_claims.decide_stored_claims(store) if card.claim == FELL]
    assert about == ["r1@2", "r2@1", "r3@3"]


def test_an_empty_store_decides_nothing(db: Path) -> None:
    store = Store(db)
    store.register([make_arm(1)], [make_plan()], "h:1")
    with pytest.raises(EvidenceError, match="no adapted arm and no matrix"):
        stored_claims.decide_stored_claims(store)
