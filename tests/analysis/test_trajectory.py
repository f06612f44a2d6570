"""A training run step by step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.table import Table
from scipy import stats

from evalsvc.analysis import stored, stored_drift, training_runs
from evalsvc.analysis.compare import compare_tasks
from evalsvc.analysis.trajectory import Trajectory, build_trajectory
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.arms import Arm
from evalsvc.records.comparisons import FullComparison, Missing
from evalsvc.reports.trajectories import TrajectoryReport, describe_conclusions
from evalsvc.scoring.submission import Source, Submission
from evalsvc.scoring.submit import submit
from evalsvc.settings import Compute
from evalsvc.store import arms
from evalsvc.store.store import Store
from tests.support.commands import Run
from tests.support.fakes import NUMERICS, grade_plan, make_arm, make_plan
from tests.support.scores import make_scores, make_text_scores
from tests.support.tasks import write_suites


def step(learned: float, forgot: float, bits: float = 0.0) -> list[FullComparison]:
    """Compare a base that knows 20 % of the domain and 80 % of the general items with a step of its adaptation."""

    def arm(domain: float, general: float, more: float) -> list[object]:
        known = [(np.arange(1000) < round(share * 1000)).astype(float).tolist() for share in (domain, general)]
        text = replace(
            make_text_scores([-30.0 - more, -50.0 - 2 * more, -40.0 - more]), task="text", suite="text", role="drift"
        )
        return [make_scores(known[0], suite="d", role="domain"), make_scores(known[1]), text]

    return compare_tasks(arm(0.2, 0.8, 0), arm(0.2 + learned, 0.8 - forgot, bits))  # type: ignore[arg-type]


def run(*steps: tuple[float, ...], margin: float = 0.05) -> Trajectory:
    made = [(10 * (i + 1), f"a@{i}", step(*values)) for i, values in enumerate(steps)]
    return build_trajectory("a", "lora", "b", made, margin)


def test_the_step_that_breaks_the_margin_and_the_one_to_keep() -> None:
    found = run((0.1, 0.01), (0.3, 0.03), (0.5, 0.055), (0.6, 0.2))
    assert (found.first_above, found.first_proven, found.best_step) == (30, 40, 20)
    assert (found.learning_unit, found.forgetting_unit) == ("score", "score")
    assert [s.forgetting.value for s in found.steps if s.forgetting] == pytest.approx([0.01, 0.03, 0.055, 0.2])
    forgetting = found.steps[1].forgetting
    assert forgetting is not None
    assert forgetting.low is not None
    assert forgetting.high is not None
    assert forgetting.low < 0.03 < forgetting.high < 0.05


def test_a_run_that_keeps_everything_breaks_nothing() -> None:
    found = run((0.1, 0.0), (0.3, -0.01))
    assert (found.first_above, found.first_proven, found.best_step) == (None, None, 20)
    assert run((0.1, 0.3), (0.2, 0.4)).best_step is None


def test_curves_have_a_trend_and_a_distance_from_their_best() -> None:
    found = run((0.1, 0.01, 3), (0.3, 0.03, 5), (0.2, 0.02, 9))
    domain, general, text = found.curves
    assert (domain.trend, general.trend, text.trend) == ("mixed", "mixed", "worse at every step")
    assert domain.below_best == pytest.approx(0.1)
    assert general.below_best == pytest.approx(0.02)  # the base was best
    assert text.below_best == pytest.approx(-text.gains[-1].value)
    assert (text.gains[0].high or 0) < 0
    assert domain.levels == pytest.approx((0.3, 0.5, 0.4))


def test_the_only_step_is_no_trend() -> None:
    assert {curve.trend for curve in run((0.1, 0.01, 3)).curves} == {"one step"}


def test_steps_are_corrected_for_their_number_as_bonferroni_does() -> None:
    """The bounds of each step at 5 % / 4, written out: of n items some are lost and none is gained."""
    forgotten = np.array([0.025, 0.03, 0.037, 0.04])
    n, margin = 1000, 0.05
    found = run(*((0.1 * (i + 1), share) for i, share in enumerate(forgotten)), margin=margin)
    error = np.sqrt(forgotten * (1 - forgotten) / (n - 1))
    for count, best in ((1, 30), (4, 20)):
        below = forgotten + stats.norm.isf(0.05 / count) * error <= margin
        assert 10 * (1 + int(np.flatnonzero(below)[-1])) == best
    assert found.best_step == 20
    # The third step's own interval excludes the margin, yet neither table nor JSON calls it below.
    assert found.steps[2].forgetting is not None
    assert (found.steps[2].forgetting.high or 1) < margin
    sides = ["below" if is_below else "undecided" for is_below in below]
    assert [step.side for step in found.steps] == sides == ["below", "below", "undecided", "undecided"]
    report = TrajectoryReport((found,))
    assert [row["side"] for row in report.rows()] == sides
    steps_table = report.tables()[0]
    assert isinstance(steps_table, Table)
    assert [str(cell) for cell in steps_table.columns[-1].cells] == sides
    assert "margin: side of it at one-sided 5 %, corrected for 4 steps" in str(steps_table.caption)


def test_the_conclusion_about_the_only_step_compares_it_with_no_other() -> None:
    broken, kept = describe_conclusions(run((0.1, 0.01)))
    assert broken == "no step is estimated above the margin"
    assert kept == "step 10 is significantly below it (one-sided 5 %)"


def test_a_step_at_the_margin_is_seldom_called_below_it_however_many_there_are() -> None:
    """Ten steps of other items each, all at the margin: without a correction one passes in 40 % of the runs."""
    rng, runs, steps, margin = np.random.default_rng(3), 120, 10, 0.05
    wrong = uncorrected = 0
    domain = make_scores([1.0, 0.0] * 50, suite="d", role="domain")
    for _ in range(runs):
        compared = []
        for _ in range(steps):
            base = rng.random(400) < 0.6
            lost = base & (rng.random(400) < 0.05 / 0.6)  # none is gained: the case that a normal interval gets wrong
            pair = [make_scores(values.astype(float).tolist()) for values in (base, base & ~lost)]
            compared.append(compare_tasks([domain, pair[0]], [domain, pair[1]]))
        found = build_trajectory("a", "lora", "b", [(i, f"a@{i}", c) for i, c in enumerate(compared)], margin)
        wrong += found.best_step is not None
        uncorrected += any((s.forgetting.high or 1) <= margin for s in found.steps if s.forgetting)
    assert uncorrected / runs > 0.2
    assert wrong / runs <= 0.05 + 2 * (0.05 * 0.95 / runs) ** 0.5


def test_a_task_that_never_changes_is_unchanged() -> None:
    domain, general, text = run((0.1, 0.0), (0.1, 0.0), (0.1, 0.0)).curves
    assert (domain.trend, general.trend, text.trend) == ("mixed", "unchanged", "unchanged")


def test_a_step_without_the_tasks_that_others_share_is_named() -> None:
    found = build_trajectory(
        "a", "lora", "b", [(10, "x", step(0.1, 0.1)), (20, "y", step(0.1, 0.1)[:1]), (30, "z", step(0.2, 0.1)[:2])]
    )
    assert [s.step for s in found.steps] == [10, 30]
    assert (found.missing, found.unshared) == ((Missing("y", ("s/t",)),), ("text/text",))
    with pytest.raises(EvidenceError, match="no finished step"):
        build_trajectory("a", "lora", "b", [])


# ------------------------------------------------------------------------------------------------------------ real runs


def test_published_pythia_steps_are_a_trajectory_without_pairing(data: Path, db: Path, evalsvc: Run) -> None:
    folder = data / "results" / "pythia" / "pythia-410m" / "zero-shot"
    files = [folder / f"410m_step{step}.json" for step in (0, 1, 64, 512, 3000, 143000)]
    tasks = [part for name in ("lambada_openai", "piqa", "sciq") for part in ("--task", name)]
    where = ["--suite", "nlp", "--role", "general", "--metric", "acc", "--db", db]
    assert evalsvc("import", "lm-eval", *files, *tasks, *where, "--name", "pythia").code == 0
    (found,) = evalsvc("trajectory", "pythia", "--db", db, "--json").json["trajectories"]
    assert [s["step"] for s in found["steps"]][:3] == [1, 64, 512]
    assert (found["base"], found["steps"][-1]["step"]) == ("pythia@0", 143000)
    assert found["steps"][-1]["learning"] is None
    assert found["steps"][-1]["forgetting"]["high"] < -0.2  # it learned these tasks: negative forgetting
    assert not any(curve["paired"] for curve in found["curves"])
    shown = evalsvc("trajectory", "--db", db)
    assert "published results, not paired by item" in shown.out
    assert evalsvc("trajectory", "nope", "--db", db).code == 2


@pytest.fixture(scope="module")
def real(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two real training runs of five steps, full and LoRA, on texts, COPA and paradigms at both ends of the scale."""
    folder = tmp_path_factory.mktemp("real")
    ends = [f"lab_blimp_{name}" for name in ("principle_A_case_1", "only_npi_scope")]
    tasks: dict[str, list[Any]] = {
        "general": ["lab_copa", *({"task": name, "limit": 50} for name in ends)],
        "domain": [{"task": "lab_ppl_pubmed", "limit": 6}],
        "drift": [{"task": name, "limit": 6} for name in ("lab_ppl_tinystories", "lab_ppl_wikitext")],
    }
    suites = write_suites(folder, data / "tasks", tasks)
    store = Store(folder / "store.duckdb")
    models = data / "models"
    sources = tuple(Source(str(models / "adapted" / name)) for name in ("full_s0", "lora4_s0"))
    wanted = Submission(sources=sources, base=str(models / "stories260K"), suites=suites, compute=Compute(workers=0))
    jobs = submit(store, wanted, lambda done, total: None, lambda text: None)
    assert {job.state for job in jobs} == {"done"}
    return store


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), [("full_s0", "full"), ("lora4_s0", "lora")])
def test_the_real_runs_show_what_is_known_of_them(real: Store, name: str, method: str) -> None:
    (found,) = training_runs.follow_runs(real, name, margin=0.05)
    assert (found.method, found.base, [s.step for s in found.steps]) == (method, "stories260K", [25, 50, 100, 200, 400])
    curves = {curve.task: curve for curve in found.curves}
    # Retention perplexity gets worse with every step, while the domain gets better.
    assert curves["lab_ppl_tinystories"].trend == "worse at every step"
    assert all((gain.high or 0) < 0 for gain in curves["lab_ppl_tinystories"].gains)
    assert curves["lab_ppl_pubmed"].trend == "better at every step"
    # General text is not one number: this one got better.
    assert all((gain.low or 0) > 0 for gain in curves["lab_ppl_wikitext"].gains)
    # A hundred items never decide.
    assert all((gain.low or 0) < 0 < (gain.high or 0) for gain in curves["lab_copa"].gains)
    for step in found.steps:
        compared = {task.task: task for task in stored.compare_arms(real, step.arm).tasks}
        assert compared["lab_copa"].moved is None
        assert compared["lab_copa"].blind_spots == ()
        assert compared["lab_blimp_principle_A_case_1"].blind_spots == ("at ceiling",)
        assert compared["lab_blimp_only_npi_scope"].blind_spots == ("below chance",)


@pytest.mark.slow
def test_drift_grows_along_the_real_runs_on_domain_and_general_texts(real: Store) -> None:
    found, card = stored_drift.load_drift(real, arms.find_family(real.arms()))
    by_arm = {one.arm.label: {task.task: (task.role, task.drift.mean) for task in one.tasks} for one in found}
    assert len(by_arm) == 10
    for name in ("full_s0", "lora4_s0"):
        for task, role in (
            ("lab_ppl_pubmed", "domain"),
            ("lab_ppl_tinystories", "drift"),
            ("lab_ppl_wikitext", "drift"),
        ):
            steps = [by_arm[f"{name}@{step}"][task] for step in (25, 50, 100, 200, 400)]
            assert {of for of, _ in steps} == {role}
            means = [mean for _, mean in steps]
            assert means == sorted(means)
            assert means[-1] > 1.5 * means[0]
    assert "10 checkpoints" in card.reason


def test_no_trajectory_is_said(db: Path, evalsvc: Run) -> None:
    store = Store(db)
    store.register([make_arm(1)], [make_plan()], "h:1")
    assert training_runs.follow_runs(store) == []
    with pytest.raises(UsageError, match="no training run of that name"):
        training_runs.follow_runs(store, "x")
    done = evalsvc("trajectory", "--db", db)
    assert (done.code, "submit a folder" in done.err) == (5, True)


def test_runs_of_one_name_from_two_bases_are_two(db: Path) -> None:
    store, item = Store(db), make_plan("g", n=50, text="g")
    bases = [make_arm(1), make_arm(2)]
    for number, base in enumerate(bases):
        steps = [
            Arm(
                replace(
                    make_arm(10 * (number + 1) + step, parent=base.checkpoint).checkpoint,
                    name="lora",
                    step=step + number,
                    trajectory="lora",
                ),
                NUMERICS,
            )
            for step in (1, 2)
        ]
        store.register([base, *steps], [item], "h:1")
        for one, right in zip((base, *steps), (50, 40 - 10 * number, 30 - 10 * number), strict=True):
            store.finish(one, item, grade_plan(item, [1.0] * right + [0.0] * (50 - right)))
    first, second = training_runs.follow_runs(store, "lora")
    assert (first.base, [step.step for step in first.steps]) == ("c1", [1, 2])
    assert (second.base, [step.step for step in second.steps]) == ("c2", [2, 3])
    forgot = [[step.forgetting and step.forgetting.value for step in run.steps] for run in (first, second)]
    assert forgot == [pytest.approx([0.2, 0.4]), pytest.approx([0.4, 0.6])]
    (only,) = training_runs.follow_runs(store, "lora", base=bases[1].checkpoint.digest)
    assert only == second


def test_a_run_without_a_finished_step_hides_no_other(db: Path, evalsvc: Run) -> None:
    store, item, base = Store(db), make_plan("g", n=50, text="g"), make_arm(1)
    runs = {
        name: Arm(
            replace(make_arm(10 + number, parent=base.checkpoint).checkpoint, name=name, step=1, trajectory=name),
            NUMERICS,
        )
        for number, name in enumerate(("begun", "whole"))
    }
    store.register([base, *runs.values()], [item], "h:1")
    store.finish(base, item, grade_plan(item, [1.0] * 50))
    with pytest.raises(EvidenceError, match="trajectory begun: has no step to show"):
        training_runs.follow_runs(store)
    store.finish(runs["whole"], item, grade_plan(item, [1.0] * 40 + [0.0] * 10))
    done = evalsvc("trajectory", "--db", db, "--json")
    assert [run["name"] for run in json.loads(done.out)["trajectories"]] == ["whole"]
    assert "left out: trajectory begun: has no step to show" in done.err


def test_the_continual_family_of_real_matrices(data: Path, db: Path, evalsvc: Run) -> None:
    files = (data / "results" / "sequential").glob("*.json")
    assert evalsvc("import", "matrix", *files, "--db", db).code == 0
    answer = evalsvc("continual", "--db", db, "--json").json
    assert {run["method"] for run in answer["runs"]} == {"full", "lora"}
    assert all(run["bwt"]["divisor"] == "T - 1 = 3" for run in answer["runs"])
    rows = {(row["method"], row["figure"]): row for row in answer["methods"]}
    stated = [0.121, 0.1735, 0.2051]
    assert rows["full", "bwt"]["mean"] == pytest.approx(-np.mean(stated), abs=1e-4)
    assert rows["full", "bwt"]["runs"] == 3
    assert rows["full", "bwt"]["high"] < rows["lora", "bwt"]["low"]
    shown = evalsvc("continual", "--db", db).out
    assert "divided by T - 1" in shown
    empty = evalsvc("continual", "--db", db.with_name("other.duckdb"))
    assert empty.code == 2
