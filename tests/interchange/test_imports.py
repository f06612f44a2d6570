"""What others have computed, read and compared: every statistic equal to an independent computation on real files."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from evalsvc.analysis import stored
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.interchange.arms import Target, imported_checkpoint
from evalsvc.interchange.items import Columns, read_items
from evalsvc.interchange.lm_eval import read_lm_eval
from evalsvc.interchange.matrices import read_matrix
from evalsvc.records.comparisons import FullComparison
from evalsvc.store.store import Store
from tests.cli.test_cli import Run, evalsvc  # noqa: F401 (a fixture)

TARGET = Target("s", "general")
RUNS = {"base": "traj_base", "full": "traj_full_s0_0400", "lora": "traj_lora4_s0_0400"}


# ----------------------------------------------------------------------------------------------------- items in a table


@pytest.fixture
def systems(data: Path, db: Path, evalsvc: Run) -> Store:  # noqa: F811
    table = data / "results" / "persample" / "openai_gsm8k_4systems.parquet"
    done = evalsvc(
        *("import", "items", table, "--arm", "run", "--item", "item", "--value", "correct", "--answer", "pred"),
        *("--task-column", "task", "--prompt", "prompt_sha", "--base", "6b_finetuning", "--method", "full"),
        *("--suite", "gsm8k", "--role", "general", "--db", db),
    )
    assert done.code == 0, done.err
    assert "175b_verification: 1 tasks, 1319 items in suite gsm8k" in done.out
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
        assert found.agreement == pytest.approx(np.mean([p[0]["pred"] == p[1]["pred"] for p in pairs]))
        # Tango's ends are where his statistic, written out independently, meets the quantile.
        for end, target in ((found.low, 1.6448536), (found.high, -1.6448536)):
            assert end is not None
            assert score_statistic(end, lost, gained, 1319) == pytest.approx(target, abs=1e-6)


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
    assert (found.test, found.clusters) == ("cluster-robust t", 50)
    assert found.stderr == pytest.approx(float(fit.bse[0]) * math.sqrt(50 / 49), rel=1e-9)
    expected = stats.t.interval(0.90, 49, loc=found.difference, scale=found.stderr)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("columns", "base", "message"),
    [
        (Columns(arm="arm", item="item", value="score"), "nobody", "the base 'nobody' is none of its arms: a, b"),
        (Columns(arm="arm", item="id", value="score"), "b", "has no column 'id' for --item; it has arm, item, score"),
        (Columns(arm="arm", item="arm", value="score"), "b", "item 'b' of task 's' appears twice for 'b'"),
        (Columns(arm="arm", item="score", value="item"), "b", "its score is 'x', must be a number"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(tmp_path: Path, columns: Columns, base: str, message: str) -> None:
    path = write_table(tmp_path / "t.parquet", arm=["b", "b", "a"], item=["x", "y", "x"], score=[1, 0, 1])
    with pytest.raises(UsageError, match=message):
        read_items(path, columns, TARGET, "lora", base)
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read_items(tmp_path / "no.parquet", columns, TARGET, "lora", base)


# ---------------------------------------------------------------------------------------------------- lm-eval's files


@pytest.fixture
def runs(data: Path, db: Path, evalsvc: Run) -> Store:  # noqa: F811
    folder = data / "results" / "lmeval_runs"
    for name, stem in RUNS.items():
        files = ["import", "lm-eval", folder / f"{stem}.json", "--samples", folder / f"{stem}.samples.json.gz"]
        which = ["--name", name, "--method", name] + ([] if name == "base" else ["--base", "base"])
        general = ["--suite", "general", "--role", "general", "--task", "lab_blimp*", "--task", "lab_copa"]
        for suite in (
            [*general, "--metric", "acc"],
            ["--suite", "domain", "--role", "domain", "--task", "lab_ppl_pubmed"],
            ["--suite", "drift", "--role", "drift", "--task", "lab_ppl_[tow]*"],
        ):
            done = evalsvc(*files, *which, *suite, "--db", db)
            assert done.code == 0, done.err
    return Store(db)


def samples_of(data: Path, name: str) -> dict[str, list[dict[str, Any]]]:
    path = data / "results" / "lmeval_runs" / f"{RUNS[name]}.samples.json.gz"
    found: dict[str, list[dict[str, Any]]] = json.loads(gzip.decompress(path.read_bytes()))
    return found


def by_task(found: stored.ArmComparison) -> dict[str, FullComparison]:
    return {task.task: task for task in found.tasks}


@pytest.mark.parametrize("arm", ["full", "lora"])
def test_lm_evals_samples_are_compared_as_scipy_and_statsmodels_do(data: Path, runs: Store, arm: str) -> None:
    found = by_task(stored.compare_arms(runs, arm))
    base, adapted = samples_of(data, "base"), samples_of(data, arm)
    assert set(found) == set(base)
    p_values = []
    for name, comparison in found.items():
        theirs = {record["doc_hash"]: record for record in adapted[name]}
        pairs = [(record, theirs[record["doc_hash"]]) for record in base[name]]
        if comparison.metric == "acc":
            b, a = (np.array([pair[side]["acc"] for pair in pairs]) for side in (0, 1))
            lost, gained = int((b > a).sum()), int((a > b).sum())
            assert (comparison.lost, comparison.gained, comparison.n) == (lost, gained, len(pairs))
            p = float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue)
        else:
            loglik, size = (
                np.array([[pair[s][comparison.metric][k] for pair in pairs] for s in (0, 1)]) for k in (0, 1)
            )
            bits = -loglik.sum(axis=1) / size.sum(axis=1) / math.log(2)
            assert (comparison.base, comparison.adapted) == pytest.approx(tuple(bits), rel=1e-12)
            # The jackknife over documents is an independent road to the same standard error.
            left_out = -(loglik.sum(axis=1, keepdims=True) - loglik) / (size.sum(axis=1, keepdims=True) - size)
            gaps = (left_out[1] - left_out[0]) / math.log(2)
            jackknife = math.sqrt((len(gaps) - 1) / len(gaps) * ((gaps - gaps.mean()) ** 2).sum())
            assert comparison.stderr == pytest.approx(jackknife, rel=0.03)
            t = comparison.difference / (comparison.stderr or 1)
            p = float(2 * stats.t.sf(abs(t), len(pairs) - 1))
        assert comparison.p_value == pytest.approx(p, rel=1e-6)
        p_values.append(p)
    adjusted = multipletests(p_values, method="holm")[1]
    q_values = multipletests(p_values, method="fdr_bh")[1]
    for comparison, p_holm, q in zip(found.values(), adjusted, q_values, strict=True):
        assert (comparison.p_holm, comparison.q_value) == pytest.approx((p_holm, q), rel=1e-6)


def test_the_comparison_reads_as_the_data_does(runs: Store) -> None:
    found = by_task(stored.compare_arms(runs, "full"))
    assert found["lab_blimp_principle_A_case_1"].blind_spots == ("at ceiling",)
    assert found["lab_blimp_only_npi_scope"].blind_spots == ("below chance",)
    assert found["lab_blimp_adjunct_island"].blind_spots == ("at chance",)
    assert found["lab_copa"].moved is None
    assert found["lab_copa"].p_value is not None
    assert found["lab_copa"].p_value > 0.2
    assert (found["lab_ppl_tinystories"].moved, found["lab_ppl_wikitext"].moved) == ("worse", "better")
    blimp = [task for name, task in found.items() if name.startswith("lab_blimp")]
    assert (sum(t.lost or 0 for t in blimp), sum(t.gained or 0 for t in blimp)) == (368, 257)
    assert all(task.agreement is not None and task.calibration is not None for task in blimp)


def test_old_results_without_samples_become_a_trajectory(data: Path, db: Path, evalsvc: Run) -> None:  # noqa: F811
    files = sorted((data / "results" / "pythia" / "pythia-410m" / "zero-shot").glob("*00.json"))
    done = evalsvc(
        *("import", "lm-eval", *files, "--suite", "nlp", "--role", "general", "--task", "lambada_openai"),
        *("--task", "piqa", "--task", "arc_easy", "--metric", "acc", "--method", "pretraining", "--db", db, "--json"),
    )
    assert done.code == 0, done.err
    assert len(done.json["imported"]) == len(files) == 16
    found = {(r.arm.checkpoint.step, r.task, r.metric): r for r in Store(db).results()}
    published = json.loads((files[0].parent / "410m_step143000.json").read_text())["results"]
    for task in ("lambada_openai", "piqa", "arc_easy"):
        assert found[143000, task, "acc"].value == published[task]["acc"]
        assert found[143000, task, "acc"].stderr == published[task]["acc_stderr"]
    assert found[143000, "lambada_openai", "acc"].value > found[1000, "lambada_openai", "acc"].value


def test_samples_from_another_run_are_refused(tmp_path: Path) -> None:
    record = {"doc_id": 0, "doc": {"q": 1}, "arguments": [["a", "b"]], "filter": "none", "acc": 1.0}
    (tmp_path / "r.json").write_text(json.dumps({"results": {"t": {"acc,none": 0.5}}}))
    samples = tmp_path / "samples_t_2025-01-31T12-00-00.000000.jsonl"
    samples.write_text(json.dumps(record) + "\n" + json.dumps({**record, "doc_id": 1}) + "\n")
    of = imported_checkpoint("n", "c", "base", tmp_path)
    with pytest.raises(EvidenceError, match=r"its 2 samples give acc 1, but the results say 0\.5"):
        read_lm_eval(tmp_path / "r.json", [samples], of, TARGET)
    (tmp_path / "r.json").write_text(json.dumps({"results": {"t": {"acc,none": 1.0}}}))
    found = read_lm_eval(tmp_path / "r.json", [samples], of, TARGET)
    assert len({sample.digest for sample in found.plan.tasks[0].samples}) == 2  # equal items are told apart


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("{", TARGET, "is no JSON"),
        ("[]", TARGET, "has no `results`"),
        ('{"results": {"t": {"acc": 1}}}', Target("s", "general", ("x*",)), r"no task matches x\*; it has t"),
        ('{"results": {"t": {"acc": 1}}}', Target("s", "general", metric="em"), "has no metric 'em', only acc"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, target: Target, message: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_lm_eval(tmp_path / "r.json", [], imported_checkpoint("n", "c", "base", tmp_path), target)


def test_importing_twice_adds_nothing(systems: Store, data: Path, evalsvc: Run) -> None:  # noqa: F811
    before = [arm.digest for arm in systems.arms()], len(systems.runs())
    table = data / "results" / "persample" / "openai_gsm8k_4systems.parquet"
    options = ["--arm", "run", "--item", "item", "--value", "correct", "--answer", "pred", "--task-column", "task"]
    where = ["--prompt", "prompt_sha", "--base", "6b_finetuning", "--suite", "gsm8k", "--role", "general"]
    assert evalsvc("import", "items", table, *options, *where, "--db", systems.path).code == 0
    assert ([arm.digest for arm in systems.arms()], len(systems.runs())) == before


# ------------------------------------------------------------------------------------------------------------- matrices


MATRICES: Callable[[Path], list[Path]] = lambda data: sorted((data / "results" / "sequential").glob("*.json"))  # noqa: E731


def test_real_matrices_give_the_forgetting_that_their_authors_print(data: Path) -> None:
    for path in MATRICES(data):
        stated = json.loads(path.read_text())["forgetting_metrics"]
        found = read_matrix(path).summary
        assert found.bwt is not None
        # "avg_forgetting" there is first minus last over T - 1: backward transfer with the other sign.
        assert found.bwt.value == pytest.approx(-stated["avg_forgetting"], abs=1e-4)
        assert found.acc.value == pytest.approx(stated["final_avg_accuracy"], abs=1e-4)
        assert found.la.value == pytest.approx(stated["initial_avg_accuracy"], abs=1e-4)
        assert found.forgetting is not None
        assert found.forgetting.value >= -found.bwt.value
        assert found.fwt is None


def test_matrices_are_kept_and_come_back(data: Path, db: Path, evalsvc: Run) -> None:  # noqa: F811
    done = evalsvc("import", "matrix", *MATRICES(data), "--db", db)
    assert done.code == 0, done.err
    found = Store(db).matrices()
    assert sorted((m.method, m.seed) for m in found) == [(m, s) for m in ("full", "lora") for s in (45, 46, 47)]
    again = read_matrix(MATRICES(data)[0])
    assert np.array_equal(found[0].scores, again.scores, equal_nan=True)
    assert found[0].summary == again.summary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"bwt": -0.4725}', "states bwt without the matrix: what the sum was divided by"),
        ('{"tasks": ["a"], "scores": [[1, 2]]}', "1 tasks and scores of shape"),
        ('{"tasks": ["a", "b"], "scores": [[1, null], [null, 1]]}', "lacks scores on or below its diagonal"),
        ('{"tasks": ["a"], "scores": [[1]], "joint": [1, 2]}', "2 reference scores for 1 tasks"),
        ("[]", "holds a list"),
        ("{", "is no JSON"),
    ],
)
def test_what_is_no_matrix_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_matrix(tmp_path / "m.json")
