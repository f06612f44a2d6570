"""The real models beside the checkout, against what stock lm-eval gave for them."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from evalsvc.analysis import stored
from evalsvc.records.arms import Arm
from evalsvc.scoring.submission import Source, Submission
from evalsvc.scoring.submit import submit
from evalsvc.settings import Compute
from evalsvc.store import arms
from evalsvc.store.store import Store
from tests.support.tasks import write_suites

pytestmark = pytest.mark.slow

RUNS = {"stories260K": "traj_base", "full_s0@400": "traj_full_s0_0400", "lora4_s0@400": "traj_lora4_s0_0400"}
TASKS: dict[str, list[Any]] = {
    "general": [
        *("lab_blimp_adjunct_island", "lab_blimp_anaphor_number_agreement", "lab_blimp_animate_subject_passive"),
        *("lab_blimp_determiner_noun_agreement_1", "lab_blimp_existential_there_quantifiers_1"),
        *("lab_blimp_irregular_past_participle_verbs", "lab_blimp_only_npi_scope", "lab_blimp_principle_A_case_1"),
        *("lab_blimp_regular_plural_subject_verb_agreement_1", "lab_blimp_superlative_quantifiers_1"),
        *("lab_blimp_transitive", "lab_blimp_wh_vs_that_no_gap", "lab_copa"),
    ],
    "domain": [{"task": "lab_ppl_pubmed", "limit": 15}],
    "drift": [{"task": name, "limit": 15} for name in ("lab_ppl_tinystories", "lab_ppl_wikitext")],
}


def run(db: Path, data: Path, suites: tuple[str, ...], sources: tuple[str, ...], workers: int) -> list[Any]:
    models = data / "models"
    submission = Submission(
        sources=tuple(Source(str(models / source)) for source in sources),
        base=str(models / "stories260K"),
        suites=suites,
        compute=Compute(workers=workers),
    )
    jobs = submit(Store(db), submission, lambda done, total: None, lambda text: None)
    assert {job.state for job in jobs} == {"done"}
    return jobs


@pytest.fixture(scope="module")
def scored(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Any]]:
    """The base and both adaptations at their last step, scored on two Ray workers."""
    folder = tmp_path_factory.mktemp("published")
    suites = write_suites(folder, data / "tasks", TASKS)
    db = folder / "store.duckdb"
    return Store(db), run(db, data, suites, ("adapted/full_s0/step_0400", "adapted/lora4_s0/step_0400"), workers=2)


@pytest.fixture(scope="module")
def published(data: Path) -> dict[str, dict[str, Any]]:
    """What stock lm-eval wrote for every arm, with the samples that it logged, by task, as `samples`."""
    folder = data / "results" / "lmeval_runs"
    return {
        label: {
            **json.loads((folder / f"{run}.json").read_text()),
            "samples": json.loads(gzip.decompress((folder / f"{run}.samples.json.gz").read_bytes())),
        }
        for label, run in RUNS.items()
    }


def compute_perplexity(metric: str, samples: list[dict[str, Any]]) -> float:
    """Return a perplexity of some texts by its definition, from the log-likelihoods that stock lm-eval logged."""
    total = sum(float(sample["resps"][0][0]) for sample in samples)
    texts = [sample["doc"]["text"] for sample in samples]
    words, letters = sum(len(re.split(r"\s+", text)) for text in texts), sum(len(text.encode()) for text in texts)
    return {"word_perplexity": math.exp(-total / words), "bits_per_byte": -total / letters / math.log(2)}[metric]


def test_every_accuracy_is_exact_and_every_perplexity_within_1e_5(
    scored: tuple[Store, list[Any]], published: dict[str, dict[str, Any]]
) -> None:
    store, jobs = scored
    asked = {(job.arm.checkpoint.label, task.name): task for job in jobs for task in job.planned.plan.tasks}
    compared = 0
    for result in store.results():
        label = result.arm.checkpoint.label
        of_task = published[label]["results"][result.task][f"{result.metric},{result.filter}"]
        if result.metric in {"acc", "acc_norm"}:
            assert result.value == of_task, result
        else:
            logged = published[label]["samples"][result.task]
            assert compute_perplexity(result.metric, logged) == pytest.approx(of_task, rel=1e-5)
            chosen = {sample.doc_id for sample in asked[label, result.task].samples}
            texts = [sample for sample in logged if sample["doc_id"] in chosen]
            assert len(texts) == 15
            assert result.value == pytest.approx(compute_perplexity(result.metric, texts), rel=1e-5), result
        compared += 1
    assert compared == 3 * (14 + 3 * 2)


def test_every_loglikelihood_is_within_1e_4(
    scored: tuple[Store, list[Any]], published: dict[str, dict[str, Any]]
) -> None:
    store, jobs = scored
    for job in jobs:
        arm: Arm = job.arm
        responses = store.responses(arm, job.planned.plan)
        for task in job.planned.plan.tasks:
            logged = {sample["doc_id"]: sample for sample in published[arm.checkpoint.label]["samples"][task.name]}
            chosen = {sample.doc_id for sample in task.samples}
            assert [sample.doc_id for sample in task.samples] == [number for number in logged if number in chosen]
            assert len(chosen) == (len(logged) if job.planned.plan.role == "general" else 15)
            for sample in task.samples:
                theirs = logged[sample.doc_id]
                for key, stock in zip(sample.requests, theirs["resps"], strict=True):
                    value = stock[0][0] if isinstance(stock[0], list) else stock[0]
                    # Stock adds up thousands of nats in float32: 1e-4 is meant beside 1e-6 of the sum.
                    assert responses[key].loglikelihood == pytest.approx(value, abs=1e-4, rel=1e-6)
                    if isinstance(stock[0], list):
                        assert responses[key].greedy == stock[0][1]


def test_in_process_gives_the_same_numbers_bit_by_bit(data: Path, scored: tuple[Store, list[Any]], db: Path) -> None:
    tasks = [*TASKS["general"][:3], "lab_copa"]
    suites = write_suites(db.parent, data / "tasks", {"general": tasks})
    run(db, data, suites, ("adapted/lora4_s0/step_0400",), workers=0)

    def values(store: Store) -> list[tuple[str, str, str, float]]:
        return sorted(
            (r.arm.checkpoint.label, r.task, r.metric, r.value)
            for r in store.results()
            if r.suite == "general" and r.task in tasks and not r.arm.checkpoint.label.startswith("full")
        )

    assert values(Store(db)) == values(scored[0])


@pytest.mark.parametrize(("arm", "lost", "gained"), [("full_s0@400", 368, 257), ("lora4_s0@400", 333, 245)])
def test_lost_and_gained_are_those_counted_by_hand(
    scored: tuple[Store, list[Any]], arm: str, lost: int, gained: int
) -> None:
    tasks = [task for task in stored.compare_arms(scored[0], arm).tasks if task.task.startswith("lab_blimp")]
    assert sum(task.n for task in tasks) == 2400
    assert (sum(task.lost or 0 for task in tasks), sum(task.gained or 0 for task in tasks)) == (lost, gained)


def test_the_comparison_reads_as_the_data_does(scored: tuple[Store, list[Any]]) -> None:
    tasks = {task.task: task for task in stored.compare_arms(scored[0], "full_s0@400").tasks}
    copa, wiki, stories = (tasks[f"lab_{name}"] for name in ("copa", "ppl_wikitext", "ppl_tinystories"))
    assert copa.low is not None
    assert copa.high is not None
    assert copa.low < 0 < copa.high  # n = 100 decides nothing
    assert (wiki.high or 0) < 0 < (stories.low or 0)  # WikiText got better, TinyStories worse
    placed = stored.load_frontier(scored[0], arms.find_family(scored[0].arms()))
    assert [point.arm for point in placed.points] == ["stories260K", "full_s0@400", "lora4_s0@400"]
    assert (placed.learning_unit, placed.forgetting_unit) == ("bits_per_byte", "score")
    assert placed.points[1].learning > placed.points[2].learning > 0
    assert all((point.forgetting_low or 0) > 0 for point in placed.points[1:])
