"""Differences of levels: what is said of them is what the published tables, scipy and loops of resamples say."""

from __future__ import annotations

import json
import math
import random
from contextlib import chdir
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.utils import handle_non_serializable
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

import evalsvc as ev
from evalsvc.analysis.stored import compare_arms
from evalsvc.records.arms import Checkpoint
from evalsvc.records.plans import Metric
from evalsvc.records.scores import Resamples
from evalsvc.store.store import Store
from tests.support.commands import Run
from tests.support.evidence import BASE as PARENT
from tests.support.evidence import CHILD, grade_columns, make_item_plan
from tests.support.harness import stock
from tests.support.published import CPT_GENERAL, CPT_HUMAN_EVAL, GENERAL, HUMAN_EVAL, Table
from tests.support.runs import submit_tiny
from tests.support.scores import known
from tests.support.tasks import CHOICE, make_sentence, write_suites, write_task

BASE = {"code": 0.138, "general": 0.671}  # read off figures 2 and 3 of the paper


def import_level(db: Path, arm: str, suite: str, value: float, stderr: float | None = None, **options: Any) -> None:
    folder = db.parent / "files"
    folder.mkdir(exist_ok=True)
    row = {"alias": suite, "acc,none": value, **({} if stderr is None else {"acc_stderr,none": stderr})}
    path = folder / f"{arm}-{suite}.json"
    path.write_text(json.dumps({"results": {suite: row}, "n-samples": {suite: {"effective": 164}}}))
    role = "domain" if suite == "code" else "general"
    ev.import_lm_eval(path, suite=suite, role=role, name=arm, db=db, **options)  # type: ignore[arg-type]


def import_table(db: Path, learned: Table, kept: Table, names: list[str]) -> None:
    for suite, value in BASE.items():
        import_level(db, "base", suite, value)
    for method in learned:
        for name, x, y in zip(names, learned[method], kept[method], strict=True):
            options: dict[str, Any] = {"base": "base", "method": "full" if method == "full" else "lora"}
            import_level(db, f"{method}-{name}", "code", x, **options)
            import_level(db, f"{method}-{name}", "general", y)


def compute_volume(points: list[tuple[float, float]], x_reference: float) -> float:
    """Return the area below the staircase of points, from (x_reference, 0): one strip between neighbours in x."""
    edges = sorted({x_reference, *(x for x, _ in points if x > x_reference)})
    return sum((right - left) * max(y for x, y in points if x >= right) for left, right in pairwise(edges))


@pytest.mark.parametrize(
    ("learned", "kept", "names", "on_frontier"),
    [
        (HUMAN_EVAL, GENERAL, ["1", "2", "4", "8", "16"], {"r256-2", "r64-4", "r256-4"}),
        (
            CPT_HUMAN_EVAL,
            CPT_GENERAL,
            ["0.25", "0.5", "1", "2", "4", "8", "16", "20"],
            {
                *("r64-2", "r16-4", "r16-8", "r16-16", "r64-8"),
                *("r256-8", "r256-16", "r256-20", "full-8", "full-20"),
            },
        ),
    ],
    ids=["code IFT", "code CPT"],
)
def test_published_tables_have_their_frontier(
    evalsvc: Run, db: Path, learned: Table, kept: Table, names: list[str], on_frontier: set[str]
) -> None:
    import_table(db, learned, kept, names)
    done = evalsvc("frontier", "--db", db, "--json")
    assert done.code == 0, done.err
    points = {point["arm"]: point for point in done.json["points"]}
    assert len(points) == 4 * len(names) + 1
    assert {arm for arm, point in points.items() if point["on_frontier"]} == {"base", *on_frontier}
    assert all(point["p_on_frontier"] is None and point["dominated_by"] is None for point in points.values())
    assert all(point["learning_low"] is None for arm, point in points.items() if arm != "base")
    pairs = [pair for method in learned for pair in zip(learned[method], kept[method], strict=True)]
    assert done.json["hypervolume"]["value"] == pytest.approx(compute_volume(pairs, BASE["code"]))
    assert done.json["hypervolume"]["reference"] == pytest.approx([0, BASE["general"]])
    shown = evalsvc("frontier", "--db", db).out
    assert "no P(frontier): levels of an arm are published without standard errors" in shown
    last = names[-1]
    compared = evalsvc("compare", f"full-{last}", f"--base=r256-{last}", "--db", db, "--json").json
    change = {task["suite"]: task["difference"] for task in compared["tasks"]}
    assert change["code"] == pytest.approx(learned["full"][-1] - learned["r256"][-1])
    assert change["general"] == pytest.approx(kept["full"][-1] - kept["r256"][-1])
    assert all(task["low"] is None and task["test"] == "levels only" for task in compared["tasks"])
    claims = evalsvc("claims", "--db", db, "--json")
    assert claims.code == 0, claims.err
    assert len(claims.json["claims"]) > 3


def test_levels_with_standard_errors_have_the_intervals_of_a_z_test(evalsvc: Run, db: Path) -> None:
    import_level(db, "base", "code", 0.2, 0.02)
    import_level(db, "base", "general", 0.7, 0.01)
    for arm, x, y in (("one", 0.5, 0.6), ("two", 0.3, 0.69)):
        import_level(db, arm, "code", x, 0.03, base="base", method="full")
        import_level(db, arm, "general", y, 0.02)
    compared = {task["suite"]: task for task in evalsvc("compare", "one", "--db", db, "--json").json["tasks"]}
    task, error = compared["general"], math.hypot(0.01, 0.02)
    assert (task["low"], task["high"]) == pytest.approx(stats.norm.interval(0.9, -0.1, error))
    assert task["p_value"] == pytest.approx(2 * stats.norm.sf(0.1 / error))
    assert (task["test"], task["n"], task["lost"]) == ("unpaired z", 164, None)
    points = {point.arm: point for point in ev.frontier(db=db).points}
    low, high = stats.norm.interval(0.9, 0.3, math.hypot(0.02, 0.03))
    assert points["one"].learning_low == pytest.approx(low, abs=0.005)
    assert points["one"].learning_high == pytest.approx(high, abs=0.005)
    # The base's error is the same for both: one learned more than two with P = Phi(0.2 / sqrt(0.03^2 + 0.03^2)).
    better = stats.norm.cdf(0.2 / math.hypot(0.03, 0.03))
    assert known(points["one"].p_on_frontier) == pytest.approx(better, abs=0.02)


def test_a_corpus_metric_is_compared_by_its_levels(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    """F1 that lm-eval does not get from these pairs, and an aggregation that it does not have: nothing to resample."""
    for arm, f1, median in (("base", 0.6, 2.0), ("lora", 0.5, 4.0)):
        row = {"f1,none": f1, "f1_stderr,none": 0.02, "alias": "t"}
        configs: dict[str, Any] = {
            "t": {"metric_list": [{"metric": "f1", "aggregation": "f1", "higher_is_better": True}]},
            "m": {"metric_list": [{"metric": "seconds", "aggregation": "own_median", "higher_is_better": False}]},
        }
        results = tmp_path / f"{arm}.json"
        results.write_text(json.dumps({"results": {"t": row, "m": {"seconds,none": median}}, "configs": configs}))
        words: list[str | Path] = []
        for task, values in (("t", [[1, 1], [0, 1], [1, 0]]), ("m", [1.0, median, 90.0])):
            metric = "f1" if task == "t" else "seconds"
            (tmp_path / arm).mkdir(exist_ok=True)
            path = tmp_path / arm / f"samples_{task}_2025-01-01T00-00-00.jsonl"
            records = [{"doc_id": i, "doc": i, "arguments": [[str(i)]], metric: v} for i, v in enumerate(values)]
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
            words += ["--samples", path]
        base = ["--base", "base", "--method", "lora"] if arm == "lora" else []
        done = evalsvc(
            *(
                "import",
                "lm-eval",
                results,
                *words,
                "--name",
                arm,
                *base,
                "--db",
                db,
                "--suite",
                "s",
                "--role",
                "general",
            )
        )
        assert done.code == 0, done.err
    compared = {task["task"]: task for task in evalsvc("compare", "lora", "--db", db, "--json").json["tasks"]}
    f1, seconds = compared["t"], compared["m"]
    assert (f1["base"], f1["adapted"], f1["n"]) == (0.6, 0.5, 3)
    assert (f1["low"], f1["high"]) == pytest.approx(stats.norm.interval(0.9, -0.1, math.hypot(0.02, 0.02)))
    assert (seconds["base"], seconds["adapted"], seconds["low"]) == (2.0, 4.0, None)
    assert {(r.arm.label, r.task): r.value for r in Store(db).results()}["lora", "m"] == 4.0


# ---------------------------------------------------------------------------------- metrics of all items together


def write_corpus_tasks(folder: Path) -> str:
    """Write a suite of two tasks on the same 60 documents in 20 passages: F1 of all, and the median of the lengths."""
    rng = random.Random(5)
    rows = [
        {"query": make_sentence(rng), "choices": ["no", "yes"], "gold": rng.randrange(2), "passage": i // 3}
        for i in range(60)
    ]
    f1 = [{"metric": "f1", "aggregation": "f1", "higher_is_better": True}]
    mcc = [{"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True}]
    write_task(folder, "f1", rows, **{**CHOICE, "metric_list": f1})
    write_task(folder, "mcc", rows, **{**CHOICE, "metric_list": mcc})
    entries = ["f1", {"task": "mcc", "cluster": "passage"}]
    (suite,) = write_suites(folder, folder, {"general": entries})
    return suite


def test_f1_of_two_arms_has_a_paired_bootstrap(
    models: Path, base: Checkpoint, full: Checkpoint, tmp_path: Path
) -> None:
    """The oracle: stock lm-eval's golds and predictions, resampled by a loop of its own, with draws of its own."""
    db = tmp_path / "store.duckdb"
    suite = write_corpus_tasks(tmp_path)
    submit_tiny(db, models, (suite,), "full")
    with chdir(tmp_path):
        runs = [stock(tmp_path, of, ("f1", "mcc")) for of in (base, full)]
    before, after = (of_arm["samples"] for of_arm in runs)
    for name, of_arm in zip(("base", "tuned"), runs, strict=True):
        for part in ("results", "samples"):
            content = of_arm["samples"] if part == "samples" else {key: of_arm[key] for key in ("results", "configs")}
            (tmp_path / f"{name}-{part}.json").write_text(json.dumps(content, default=handle_non_serializable))
        ev.import_lm_eval(
            tmp_path / f"{name}-results.json",
            suite="logs",
            role="general",
            samples=[tmp_path / f"{name}-samples.json"],
            name=name,
            base="base" if name == "tuned" else None,
            db=tmp_path / "imported.duckdb",
        )
    scored, imported = (
        {task.task: task for task in ev.compare(arm, db=tmp_path / f"{file}.duckdb").tasks}
        for arm, file in (("full", "store"), ("tuned", "imported"))
    )
    rng = np.random.default_rng(8)

    def compute_f1(gold: NDArray[np.int64], answer: NDArray[np.int64]) -> float:
        return float(2 * (gold & answer).sum() / (gold.sum() + answer.sum()))

    def correlate(gold: NDArray[np.int64], answer: NDArray[np.int64]) -> float:
        return float(np.corrcoef(gold, answer)[0, 1])

    for compared, name, score, formula, passages in (
        (scored, "f1", f1_score, compute_f1, 60),
        (scored, "mcc", matthews_corrcoef, correlate, 20),
        (imported, "f1", f1_score, compute_f1, 60),
        (imported, "mcc", matthews_corrcoef, correlate, 60),
    ):
        # [n, arms, gold and answer]
        pairs = np.array([[arm[name][i][name] for arm in (before, after)] for i in range(60)])
        levels = [score(pairs[:, arm, 0], pairs[:, arm, 1]) for arm in (0, 1)]
        assert [formula(*pairs[:, arm].T) for arm in (0, 1)] == pytest.approx(levels)
        of_passage = pairs.reshape(passages, -1, 2, 2)
        drawn = [of_passage[rng.integers(0, passages, passages)].reshape(-1, 2, 2) for _ in range(2000)]
        differences = [formula(*of_items[:, 1].T) - formula(*of_items[:, 0].T) for of_items in drawn]
        task = compared[name]
        assert (task.base, task.adapted) == pytest.approx(levels)
        error = np.std(differences) * (passages / (passages - 1)) ** 0.5
        assert known(task.stderr) == pytest.approx(error, rel=0.11)  # four standard errors: 1,000 and 2,000 draws
        # Student's t, of which few passages that matter leave few degrees of freedom.
        df = 2 / (max(0.0, stats.kurtosis(differences)) + 2 / (passages - 1))
        half = stats.t.ppf(0.95, df) * error
        assert (task.low, task.high) == pytest.approx((task.difference - half, task.difference + half), abs=0.2 * half)
        assert task.p_value == pytest.approx(2 * stats.t.sf(abs(task.difference) / error, df), abs=0.05)
        kind = "clusters" if passages == 20 else "documents"
        assert (task.test, task.units, task.unit) == (f"paired bootstrap over {kind}", passages, name)
        assert task.clusters == (20 if passages == 20 else None)


F1 = Metric("f1", "none", "other", True)


def store_resampled(db: Path, draws: dict[str, tuple[str, str]], differences: NDArray[np.float64]) -> list[Any]:
    """Store two arms on three tasks, and compare them.

    Args:
        draws: What either arm's resamples were drawn by, by task.
        differences: [tasks, resamples], adapted minus base.
    """
    of = make_item_plan("s", {task: (np.zeros(9), np.zeros(9)) for task in draws}, metric=F1)
    store = Store(db)
    store.register([PARENT, CHILD], [of], "host:1")
    for position, arm in enumerate((PARENT, CHILD)):
        graded = grade_columns(of, [np.zeros(9)] * len(draws))
        results = [
            replace(
                result,
                value=0.5 + position * float(rows.mean()),
                stderr=None,
                resamples=Resamples(
                    levels=tuple(0.5 + position * rows), draws=drawn[position], units=9, effective=9, has_clusters=False
                ),
            )
            for result, rows, drawn in zip(graded.results, differences, draws.values(), strict=True)
        ]
        store.finish(arm, of, replace(graded, results=tuple(results)))
    compared = compare_arms(store, CHILD.label)
    return [*compared.tasks, *compared.roles]


def test_levels_are_paired_if_the_same_items_were_drawn(db: Path) -> None:
    rows = np.random.default_rng(1).normal(-0.1, 0.05, (3, 1000))
    rows[2] = 0.0
    same, other, unchanged, total = store_resampled(db, {"a": ("x", "x"), "b": ("x", "y"), "c": ("x", "x")}, rows)
    assert known(same.stderr) == pytest.approx(rows[0].std(ddof=1) * math.sqrt(9 / 8))
    assert (same.test, same.units, same.unit) == ("paired bootstrap over documents", 9, "f1")
    for task in (other, unchanged):
        assert (task.test, task.stderr, task.low, task.p_value, task.units) == ("levels only", None, None, None, None)
    assert (total.unit, total.tasks, total.low) == ("f1", 3, None)


def test_tasks_on_the_same_items_are_measured_together(db: Path) -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(-0.1, 0.05, (3, 1000))
    rows[1] = rows[0] + rng.normal(0, 0.01, 1000)  # two prompts of one task
    a, b, c, total = store_resampled(db, {"a": ("x", "x"), "b": ("x", "x"), "c": ("z", "z")}, rows)
    both, alone = (rows[0] + rows[1]) / 3, rows[2] / 3
    ends = []
    for values in (both, alone):
        df = 2 / (max(0.0, stats.kurtosis(values)) + 2 / 8)
        ends.append(stats.t.ppf(0.95, df) * values.std(ddof=1) * math.sqrt(9 / 8))
    assert total.low == pytest.approx(total.difference - math.hypot(*ends))
    assert total.high == pytest.approx(total.difference + math.hypot(*ends))
    assert total.difference == pytest.approx((a.difference + b.difference + c.difference) / 3)
