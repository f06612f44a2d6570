"""Results and samples of lm-eval, read and compared: equal to an independent computation on real files."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from evalsvc.analysis import stored
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.interchange.arms import Adaptation, Target, make_checkpoint
from evalsvc.interchange.lm_eval import read_lm_eval
from evalsvc.records.comparisons import FullComparison
from evalsvc.store.store import Store
from tests.support.commands import Run

TARGET = Target("s", "general")
RUNS = {"base": "traj_base", "full": "traj_full_s0_0400", "lora": "traj_lora4_s0_0400"}


@pytest.fixture
def runs(data: Path, db: Path, evalsvc: Run) -> Store:
    folder = data / "results" / "lmeval_runs"
    for name, stem in RUNS.items():
        files = ["import", "lm-eval", folder / f"{stem}.json", "--samples", folder / f"{stem}.samples.json.gz"]
        which = ["--name", name, "--method", name] + ([] if name == "base" else ["--base", "base"])
        general = ["--suite", "general", "--role", "general", "--task", "lab_blimp*", "--task", "lab_copa"]
        for suite in (
            [*general, "--metric", "acc"],
            ["--suite", "domain", "--role", "domain", "--task", "lab_ppl_pubmed", "--metric", "bits_per_byte"],
            ["--suite", "drift", "--role", "drift", "--task", "lab_ppl_[tow]*", "--metric", "bits_per_byte"],
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


def test_old_results_without_samples_become_a_trajectory(data: Path, db: Path, evalsvc: Run) -> None:
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
    of = make_checkpoint(Adaptation(name="n"), "c", tmp_path)
    with pytest.raises(EvidenceError, match=r"its 2 samples give acc 1, but the results 0\.5"):
        read_lm_eval(tmp_path / "r.json", [samples], of, TARGET)
    (tmp_path / "r.json").write_text(json.dumps({"results": {"t": {"acc,none": 1.0}}}))
    found = read_lm_eval(tmp_path / "r.json", [samples], of, TARGET)
    assert len({sample.digest for sample in found.plan.tasks[0].samples}) == 2  # equal items are told apart


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("{", TARGET, "is not valid JSON"),
        ("[]", TARGET, "has no `results`"),
        ('{"results": {"t": {"acc": 1}}}', Target("s", "general", ("x*",)), r"no task matches x\*; its tasks are t"),
        ('{"results": {"t": {"acc": 1}}}', Target("s", "general", metric="em"), "has no metric 'em'; choose from acc"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, target: Target, message: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_lm_eval(tmp_path / "r.json", [], make_checkpoint(Adaptation(name="n"), "c", tmp_path), target)
