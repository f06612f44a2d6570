"""Tables of items by others: every statistic equal to an independent computation on real files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from evalsvc.analysis import stored
from evalsvc.errors import UsageError
from evalsvc.interchange.arms import Target
from evalsvc.interchange.items import Columns, read_items
from evalsvc.stats.unit_means import UnitSums, score_z
from evalsvc.store.store import Store
from tests.support.commands import Run

TARGET = Target("s", "general")


@pytest.fixture
def systems(data: Path, db: Path, evalsvc: Run) -> Store:
    table = data / "results" / "persample" / "openai_gsm8k_4systems.parquet"
    done = evalsvc(
        *("import", "items", table, "--arm", "run", "--item", "item", "--value", "correct", "--answer", "pred"),
        *("--task-column", "task", "--prompt", "prompt_sha", "--base", "6b_finetuning", "--method", "full"),
        *("--suite", "gsm8k", "--role", "general", "--db", db),
    )
    assert done.code == 0, done.err
    assert "175b_verification: 1 task, 1,319 items in suite gsm8k" in done.out
    return Store(db)


def test_published_systems_are_compared_as_statsmodels_does(data: Path, systems: Store) -> None:
    rows = pq.read_table(data / "results" / "persample" / "openai_gsm8k_4systems.parquet").to_pylist()
    answers = {(row["run"], row["item"]): row for row in rows}
    levels = {"6b_finetuning": 21.7, "6b_verification": 39.0, "175b_finetuning": 34.7, "175b_verification": 56.3}
    for run, percent in levels.items():
        if run == "6b_finetuning":
            continue
        (found,) = stored.compare_arms(systems, run).tasks
        pairs = [(answers["6b_finetuning", i], answers[run, i]) for i in range(1319)]
        b, a = (np.array([float(pair[side]["correct"]) for pair in pairs]) for side in (0, 1))
        lost, gained = int((b > a).sum()), int((a > b).sum())
        assert (found.n, found.lost, found.gained) == (1319, lost, gained)
        assert found.base == pytest.approx(0.217, abs=5e-4)
        assert found.adapted == pytest.approx(percent / 100, abs=5e-4)
        table = [[int((b * a).sum()), lost], [gained, int(((1 - b) * (1 - a)).sum())]]
        assert found.p_value == pytest.approx(float(mcnemar(table, exact=True).pvalue), rel=1e-9)
        assert found.stderr == pytest.approx(stats.sem(a - b), rel=1e-12)
        same = [(first["correct"] and second["correct"]) or first["pred"] == second["pred"] for first, second in pairs]
        assert found.agreement == pytest.approx(np.mean(same))  # two right answers: 6250 and 6,250
        # Tango's ends are where his statistic, written out independently, meets the quantile.
        for end, target in ((found.low, 1.6448536), (found.high, -1.6448536)):
            assert end is not None
            assert score_statistic(end, lost, gained, 1319) == pytest.approx(target, abs=1e-6)


def test_importing_twice_adds_nothing(systems: Store, data: Path, evalsvc: Run) -> None:
    before = [arm.digest for arm in systems.arms()], len(systems.runs())
    table = data / "results" / "persample" / "openai_gsm8k_4systems.parquet"
    options = ["--arm", "run", "--item", "item", "--value", "correct", "--answer", "pred", "--task-column", "task"]
    where = ["--prompt", "prompt_sha", "--base", "6b_finetuning", "--suite", "gsm8k", "--role", "general"]
    assert evalsvc("import", "items", table, *options, *where, "--db", systems.path).code == 0
    assert ([arm.digest for arm in systems.arms()], len(systems.runs())) == before


def score_statistic(difference: float, lost: int, gained: int, n: int) -> float:
    """Tango's statistic with the nuisance parameter found by maximising the restricted likelihood numerically."""
    from scipy.optimize import minimize_scalar

    same = n - lost - gained

    def negative(q: float) -> float:  # q = P(lost), P(gained) = q + difference
        return -(lost * math.log(q) + gained * math.log(q + difference) + same * math.log(1 - 2 * q - difference))

    low, high = max(0.0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9
    q = minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return float((gained - lost - n * difference) / math.sqrt(n * (2 * q + difference * (1 - difference))))


def write_table(path: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_items_are_known_by_id_not_by_row(tmp_path: Path, db: Path) -> None:
    path = write_table(
        tmp_path / "t.parquet",
        arm=["b", "b", "b", "a", "a", "a"],
        item=["x", "y", "z", "z", "y", "w"],
        score=[1, 1, 0, 1, 0, 1],
    )
    store = Store(db)
    for one in read_items(path, Columns(arm="arm", item="item", value="score"), TARGET, "lora", "b"):
        store.register([one.arm], [one.plan], "h:1")
        store.finish(one.arm, one.plan, one.graded)
    (found,) = stored.compare_arms(store, "a").tasks
    assert (found.n, found.lost, found.gained) == (2, 1, 1)
    assert found.coverage == pytest.approx(2 / 3)


def test_clusters_of_a_table_are_those_of_statsmodels(tmp_path: Path, db: Path) -> None:
    rng = np.random.default_rng(0)
    passage = np.repeat(np.arange(50), 6)
    base = rng.integers(0, 2, 300)
    adapted = np.where(np.repeat(rng.random(50) < 0.3, 6), 0, base)
    path = write_table(
        tmp_path / "t.parquet",
        arm=["b"] * 300 + ["a"] * 300,
        item=[*range(300)] * 2,
        score=[*base.tolist(), *adapted.tolist()],
        passage=[*passage.tolist()] * 2,
    )
    store = Store(db)
    for one in read_items(path, Columns(arm="arm", item="item", value="score", cluster="passage"), TARGET, "lora", "b"):
        store.register([one.arm], [one.plan], "h:1")
        store.finish(one.arm, one.plan, one.graded)
    (found,) = stored.compare_arms(store, "a").tasks
    fit = sm.OLS((adapted - base).astype(float), np.ones(300)).fit(
        cov_type="cluster", cov_kwds={"groups": passage, "use_correction": False}, use_t=True
    )
    assert (found.test, found.clusters, found.units) == ("score over clusters", 50, 50)
    assert found.stderr == pytest.approx(float(fit.bse[0]) * math.sqrt(50 / 49), rel=1e-9)
    # With 50 clusters the score interval is close to that by Student's t.
    near = stats.t.interval(0.90, 49, loc=found.difference, scale=found.stderr)
    assert (found.low, found.high) == pytest.approx(near, abs=0.015)
    # Its ends by definition: the mean's statistic, with one lost cluster unseen, reaches the quantile of t.
    sums = np.bincount(passage, weights=adapted - base) / 6
    for end in (found.low, found.high):
        z = score_z(UnitSums(sums=sums[None], sizes=np.ones(50)), float(end or 0))[0]
        assert abs(z) == pytest.approx(stats.t.ppf(0.95, 49), rel=1e-6)


@pytest.mark.parametrize(
    ("columns", "base", "message"),
    [
        (Columns(arm="arm", item="item", value="score"), "nobody", "base 'nobody' is not among its arms \\(a, b\\)"),
        (
            Columns(arm="arm", item="id", value="score"),
            "b",
            "has no column 'id' for --item; choose from arm, item, score",
        ),
        (Columns(arm="arm", item="arm", value="score"), "b", "item 'b' of task 's' appears twice for 'b'"),
        (Columns(arm="arm", item="score", value="item"), "b", "score is 'x', must be a number"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(tmp_path: Path, columns: Columns, base: str, message: str) -> None:
    path = write_table(tmp_path / "t.parquet", arm=["b", "b", "a"], item=["x", "y", "x"], score=[1, 0, 1])
    with pytest.raises(UsageError, match=message):
        read_items(path, columns, TARGET, "lora", base)
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read_items(tmp_path / "no.parquet", columns, TARGET, "lora", base)


ROWS = [("base", "x", 1), ("base", "y", 0), ("lora", "x", 0), ("lora", "y", 0)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "arm,item,score\n" + "".join(f"{a},{i},{s}\n" for a, i, s in ROWS)),
        ("t.csv", "\ufeffarm,item,score\r\n" + "".join(f"{a},{i},{bool(s)}\r\n" for a, i, s in ROWS)),
        ("t.tsv", "arm\titem\tscore\n" + "".join(f"{a}\t{i}\t{s}.0\n" for a, i, s in ROWS)),
        ("t.jsonl", "".join(json.dumps({"arm": a, "item": i, "score": s}) + "\n" for a, i, s in ROWS)),
        ("t.json", json.dumps([{"arm": a, "item": i, "score": bool(s)} for a, i, s in ROWS])),
    ],
)
def test_tables_of_every_format_have_the_same_items(tmp_path: Path, name: str, text: str) -> None:
    columns = Columns(arm="arm", item="item", value="score")
    table = pa.table({key: [row[i] for row in ROWS] for i, key in enumerate(("arm", "item", "score"))})
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / name).write_text(text, encoding="utf-8")
    first, second = (read_items(tmp_path / file, columns, TARGET, "lora", "base") for file in ("t.parquet", name))
    assert [entry.graded for entry in first] == [entry.graded for entry in second]
    assert [entry.arm.checkpoint.digest for entry in first] == [entry.arm.checkpoint.digest for entry in second]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "arm,item,score\nb,x,1,2\n", "row 1 has another number of columns than the header \\(3\\)"),
        ("t.csv", "arm,item,score\nb,x,right\n", "score is 'right', must be a number"),
        ("t.jsonl", '{"arm": "b"', "line 1: is not valid JSON"),
        ("t.jsonl", "[1]\n", "must have one JSON object per line"),
        ("t.jsonl", '{"arm": "b", "item": 1, "score": NaN}\n', "score is nan, must be a number"),
        ("t.xlsx", "x", "tables of other formats are read from files called \\*.parquet, \\*.csv"),
    ],
)
def test_text_tables_that_cannot_be_read_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_items(tmp_path / name, Columns(arm="arm", item="item", value="score"), TARGET, None, None)


@pytest.mark.parametrize(
    ("metric", "options", "higher"),
    [
        (None, {}, True),
        ("cer", {}, False),
        ("em", {}, True),
        ("x", {"lower": ("x",)}, False),
        (None, {"lower": ("score",)}, False),
    ],
)
def test_the_direction_of_a_tables_metric(
    tmp_path: Path, metric: str | None, options: dict[str, Any], higher: bool
) -> None:
    path = write_table(tmp_path / "t.parquet", arm=["b"], item=["x"], score=[1.0])
    columns = Columns(arm="arm", item="item", value="score")
    (entry,) = read_items(path, columns, Target("s", "general", metric=metric, **options), None, None)
    assert entry.plan.tasks[0].metrics[0].higher_is_better == higher
    with pytest.raises(UsageError, match="give --higher-is-better odd or --lower-is-better odd"):
        read_items(path, columns, Target("s", "general", metric="odd"), None, None)


def test_a_gate_on_imported_items_is_planned_as_it_is_decided(systems: Store, evalsvc: Run, tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text("version: 1\nretention: [{suite: gsm8k, margin: 0.05}]\n")
    words = ["gate", "6b_verification", "--policy", policy, "--db", systems.path, "--json"]
    plan = evalsvc(*words, "--plan")
    assert plan.code == 0, plan.err
    (rule,) = plan.json["rules"]
    assert plan.json["requests"] == 0
    (decided,) = evalsvc(*words).json["rules"]
    assert (rule["rule"], rule["margin"], rule["n"]) == (decided["rule"], decided["margin"], decided["n"])


def test_a_gate_on_levels_alone_says_what_is_missing(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"results": {"copa": {"acc,none": 0.5, "acc_stderr,none": 0.01}}}))
    for name, words in (("base", []), ("lora", ["--base", "base", "--method", "lora"])):
        done = evalsvc(
            *("import", "lm-eval", tmp_path / "r.json", "--name", name, *words, "--db", db),
            *("--suite", "nlp", "--role", "general"),
        )
        assert done.code == 0, done.err
    (tmp_path / "p.yaml").write_text("version: 1\nretention: [{suite: nlp, margin: 0.05}]\n")
    for words in ([], ["--plan"]):
        done = evalsvc("gate", "lora", "--policy", tmp_path / "p.yaml", "--db", db, *words)
        assert (done.code, "--samples" in done.err) == (5, True), done.err


def test_a_column_has_the_seed_of_the_training(tmp_path: Path, db: Path, evalsvc: Run) -> None:
    table = tmp_path / "t.csv"
    rows = [("base", "", 1), ("a", 1, 1), ("b", 2, 0), ("c", "", 1)]
    table.write_text("arm,seed,item,value\n" + "".join(f"{arm},{seed},i,{value}\n" for arm, seed, value in rows))
    columns = ("--arm", "arm", "--item", "item", "--value", "value", "--seed", "seed", "--base", "base")
    done = evalsvc("import", "items", table, *columns, "--suite", "s", "--role", "general", "--db", db)
    assert done.code == 0, done.err
    assert {a.checkpoint.name: a.checkpoint.seed for a in Store(db).arms()} == {"base": None, "a": 1, "b": 2, "c": None}
    table.write_text("arm,seed,item,value\nbase,,i,1\na,3,i,1\n")
    done = evalsvc("import", "items", table, *columns, "--suite", "other", "--role", "general", "--db", db)
    assert (done.code, "is in the store with seed 1, and now has 3" in done.err) == (2, True)
    table.write_text("arm,seed,item,value\nbase,,i,1\na,1,i,1\na,2,j,1\n")
    done = evalsvc("import", "items", table, *columns, "--suite", "other", "--role", "general", "--db", db)
    assert (done.code, "arm 'a' has seeds 1 and 2" in done.err) == (2, True)


def test_advice_about_seeds_and_names_of_imported_runs_works(tmp_path: Path, db: Path, evalsvc: Run) -> None:
    table, policy = tmp_path / "t.csv", tmp_path / "p.yaml"
    rows = [("base", "", 0), ("lora-1", 1, 1), ("lora-2", 2, 2), ("lora-3", 3, 3)]
    lines = [f"{arm},{seed},{item},{int(item >= lost)}" for arm, seed, lost in rows for item in range(60)]
    table.write_text("\n".join(["arm,seed,item,value", *lines]))
    policy.write_text("version: 1\nretention: [{suite: s, margin: 0.3}]\n")
    words = ["import", "items", table, "--suite", "s", "--role", "general", "--db", db]
    words += ["--arm", "arm", "--item", "item", "--value", "value", "--base", "base", "--method", "lora"]
    gate = ["gate", "--recipe", "lora-*", "--policy", policy, "--db", db]
    assert evalsvc(*words).code == 0
    refused = evalsvc(*gate)
    assert (refused.code, refused.err.count("lora-2 has no recorded seed, and is left out; import it again")) == (5, 1)
    assert "submit it" not in refused.err
    assert evalsvc(*words, "--seed", "seed").code == 0
    assert evalsvc(*gate).code == 0
    table.write_text("arm,seed,item,value\nbase,,i,1\nlora-1,7,i,1\n")
    done = evalsvc(*words, "--seed", "seed")
    assert "is in the store with seed 1, and now has 7; give these results another name (--name of import" in done.err
    assert "has no row of a task that matches other; give another --task" in evalsvc(*words, "--task", "other").err
