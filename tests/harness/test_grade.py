"""Grading: complete evidence only, standard errors of our own, no process pools."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalsvc.errors import EvidenceError, SuiteError
from evalsvc.harness.grade import grade
from evalsvc.harness.plan import Planned, plan
from evalsvc.harness.suites import Suite
from evalsvc.harness.tasks import load
from evalsvc.records.plans import Rendering, Response
from evalsvc.records.scores import Graded
from evalsvc.stats.calibration import brier, expected_calibration_error
from tests.support.harness import fake_responses
from tests.support.tasks import CHOICE, MEAN, write_task


def planned(folder: Path, *tasks: str, allow: bool = False) -> Planned:
    suite = Suite.model_validate({"name": "s", "role": "general", "include": [folder], "tasks": list(tasks)})
    return plan(load(suite, allow_task_code=allow), Rendering())


def graded(folder: Path, *tasks: str) -> Graded:
    item = planned(folder, *tasks)
    return grade(item, fake_responses(item))


def test_a_missing_response_is_missing_evidence_not_a_wrong_answer(task_folder: Path) -> None:
    item = planned(task_folder, "mc")
    responses = fake_responses(item)
    responses.pop(item.plan.requests[5].digest)
    with pytest.raises(EvidenceError, match="submit again to resume"):
        grade(item, responses)


def test_grading_twice_gives_the_same(task_folder: Path) -> None:
    item = planned(task_folder, "mc", "gen", "cloze", "roll")
    responses = fake_responses(item)
    assert grade(item, responses) == grade(item, responses)


def test_every_smooth_metric_has_a_standard_error_bits_per_byte_too(task_folder: Path) -> None:
    found = {(r.task, r.metric): r for r in graded(task_folder, "mc", "cloze", "roll").results}
    assert all(result.stderr is not None and result.stderr >= 0 for result in found.values())
    assert ("roll", "bits_per_byte") in found


def test_one_item_has_no_standard_error_and_no_string_in_its_place(tmp_path: Path) -> None:
    write_task(tmp_path, "t", [{"query": "q", "choices": ["a", "b"], "gold": 0}], **CHOICE)
    assert [result.stderr for result in graded(tmp_path, "t").results] == [None, None]


def test_aggregations_of_their_own_start_no_process_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process pool was started")

    monkeypatch.setattr(multiprocessing, "Pool", refuse)
    rows = [{"query": f"q{i}", "choices": ["no", "yes"], "gold": i % 2} for i in range(10)]
    metrics = [{"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True}]
    write_task(tmp_path, "t", rows, **{**CHOICE, "metric_list": metrics})
    found = graded(tmp_path, "t")
    assert found.results[0].stderr is None
    assert found.scores["t"][0].value is None
    assert found.scores["t"][0].detail in {"[0, 0]", "[0, 1]"}


def test_a_group_is_the_mean_of_its_tasks_by_size(task_folder: Path) -> None:
    by_task = {(r.task, r.metric): r for r in graded(task_folder, "family").results}
    a, b, family = (by_task[name, "acc"] for name in ("member_a", "member_b", "family"))
    assert family.is_group
    assert not family.primary
    assert family.n == 16
    assert family.value == pytest.approx((10 * a.value + 6 * b.value) / 16)


def test_one_score_per_filter_and_sample(task_folder: Path) -> None:
    found = graded(task_folder, "gen").scores["gen"]
    assert len(found) == 20
    assert {score.filter for score in found} == {"strict", "loose"}


def test_a_tasks_own_grading_that_fails_is_one_line(tmp_path: Path) -> None:
    path = write_task(tmp_path, "t", [{"query": "q", "choices": ["a", "b"], "gold": 0}], **CHOICE)
    path.write_text(path.read_text() + "process_results: !function helper.explode\n")
    (tmp_path / "helper.py").write_text("def explode(doc, results):\n    raise KeyError('surprise')\n")
    item = planned(tmp_path, "t", allow=True)
    with pytest.raises(SuiteError, match="task t: grading failed: 'surprise'"):
        grade(item, fake_responses(item))


def test_the_option_that_each_accuracy_judged_is_kept(task_folder: Path) -> None:
    item = planned(task_folder, "mc")
    responses = fake_responses(item)
    found = grade(item, responses).scores["mc"]
    task = item.plan.tasks[0]
    assert task.chance == 0.25
    for score in found:
        sample = next(s for s in task.samples if s.digest == score.sample)
        likelihoods = np.array([responses[key].loglikelihood for key in sample.requests])
        lengths = np.array([len(choice) for choice in json.loads(sample.doc)["choices"]])
        best = int(np.argmax(likelihoods / (lengths if score.metric == "acc_norm" else 1)))
        assert score.answer == best
        assert (score.answer == int(sample.target)) == (score.value == 1.0)
        assert score.confidence == pytest.approx(np.exp(likelihoods[best]) / np.exp(likelihoods).sum())


GOLDS = [([0, 2], 4), ([1], 4), ([0, 1, 2], 3), ([3, 0], 4), ([1, 1], 2)]
"""Golds and number of choices of five items; the last item names its gold twice."""


def test_chance_counts_every_gold(tmp_path: Path) -> None:
    """The oracle: lm-eval's own grading of every possible guess."""
    rows = [
        {"query": f"q{i}", "choices": [f"{i} {k}" * (k + 1) for k in range(count)], "golds": golds}
        for i, (golds, count) in enumerate(GOLDS)
    ]
    write_task(tmp_path, "t", rows, **{**CHOICE, "doc_to_target": "{{golds}}"})
    item = planned(tmp_path, "t")
    (task,) = load(Suite.model_validate({"name": "s", "role": "general", "include": [tmp_path], "tasks": ["t"]})).tasks
    guesses = [
        np.mean(
            [
                task.task.process_results(doc, [(0.0 if k == guess else -9.0, False) for k in range(count)])["acc"]
                for guess in range(count)
            ]
        )
        for doc, (_, count) in zip(task.task.eval_docs, GOLDS, strict=True)
    ]
    assert item.plan.tasks[0].chance == pytest.approx(np.mean(guesses))
    assert item.plan.tasks[0].chance == pytest.approx((2 / 4 + 1 / 4 + 3 / 3 + 2 / 4 + 1 / 2) / 5)
    responses = fake_responses(item)
    squares, gaps = [], dict.fromkeys(range(10), 0.0)
    for sample, (golds, _) in zip(item.plan.tasks[0].samples, GOLDS, strict=True):
        likelihoods = np.array([responses[key].loglikelihood for key in sample.requests])
        shares = np.exp(likelihoods) / np.exp(likelihoods).sum()
        right = float(int(np.argmax(likelihoods)) in golds)
        squares.append((shares.max() - right) ** 2)
        gaps[int(np.ceil(shares.max() * 10)) - 1] += right - shares.max()
    scores = [score for score in grade(item, responses).scores["t"] if score.metric == "acc"]
    confidence, values = (np.array([getattr(s, name) for s in scores]) for name in ("confidence", "value"))
    assert brier(confidence, values) == pytest.approx(np.mean(squares))
    assert expected_calibration_error(confidence, values) == pytest.approx(sum(map(abs, gaps.values())) / 5)


def test_answers_that_cannot_be_parsed_are_marked(tmp_path: Path) -> None:
    number = {"name": "n", "filter": [{"function": "regex", "regex_pattern": "([0-9]+)"}, {"function": "take_first"}]}
    write_task(
        tmp_path,
        "t",
        [{"text": "a", "word": "1"}, {"text": "b", "word": "2"}],
        output_type="generate_until",
        doc_to_text="{{text}}",
        doc_to_target="{{word}}",
        metric_list=[{"metric": "exact_match", **MEAN}],
        generation_kwargs={"until": ["\n"], "max_gen_toks": 4},
        filter_list=[number],
    )
    item = planned(tmp_path, "t")
    texts = ["it is 1", "no idea"]
    responses = {r.digest: Response(request=r.digest, text=t) for r, t in zip(item.plan.requests, texts, strict=True)}
    found = grade(item, responses).scores["t"]
    assert [(score.value, score.invalid) for score in found] == [(1.0, False), (0.0, True)]
    assert found[0].answer != found[1].answer
    assert item.plan.tasks[0].chance is None


def test_clusters_are_a_field_of_the_items(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "choices": ["a", "b"], "gold": 0, "passage": i // 2} for i in range(6)]
    write_task(tmp_path, "t", rows, **CHOICE)
    entry = {"task": "t", "cluster": "passage"}
    suite = Suite.model_validate({"name": "s", "role": "general", "include": [tmp_path], "tasks": [entry]})
    task = plan(load(suite), Rendering()).plan.tasks[0]
    assert [sample.cluster for sample in task.samples] == ["0", "0", "1", "1", "2", "2"]
    wrong = suite.model_copy(update={"tasks": (suite.tasks[0].model_copy(update={"cluster": "page"}),)})
    with pytest.raises(SuiteError, match="cluster 'page' is not a field of its documents; choose from query, choices"):
        plan(load(wrong), Rendering())
