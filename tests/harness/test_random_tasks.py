"""Tasks that draw at random have lm-eval's prompts, the same in every plan."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from evalsvc.harness.grade import grade
from evalsvc.harness.lm_eval_globals import GlobalGenerators, forget_task_modules
from evalsvc.harness.plan import Planned, plan
from evalsvc.harness.suites import Suite
from evalsvc.harness.tasks import load
from evalsvc.records.arms import Checkpoint
from evalsvc.records.plans import Rendering
from tests.support.harness import fake_responses, requests_by_sample, stock
from tests.support.tasks import CHOICE, make_choices, write_task

SHUFFLE = """
import random, datasets

def shuffle(docs):
    rows = []
    for doc in docs:
        order = random.sample(range(4), 4)
        rows.append({**doc, "choices": [doc["choices"][i] for i in order], "gold": order.index(doc["gold"])})
    return datasets.Dataset.from_list(rows)
"""
ASK = """
import random, numpy, torch

own = random.Random(3)

def ask(doc):
    drawn = numpy.random.randint(999), int(torch.randint(999, (1,))), own.random(), random.random()
    return f"{doc['query']} {drawn}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random")
    rng = random.Random(5)
    for name, code, reference in (
        ("shuffled", SHUFFLE, "process_docs: !function shuffled.shuffle"),
        ("asked", ASK, "doc_to_text: !function asked.ask"),
    ):
        path = write_task(folder, name, make_choices(rng, 9), **CHOICE)
        path.write_text(path.read_text() + reference + "\n")
        (folder / f"{name}.py").write_text(code)
    group = {"group": "both", "task": ["shuffled", "asked", "shots"], "metadata": {"version": 1}}
    (folder / "both.yaml").write_text(yaml.safe_dump(group))
    write_task(folder, "shots", make_choices(rng, 30), **CHOICE, num_fewshot=3, fewshot_split="test")
    return folder


def planned(folder: Path, task: str, **entry: Any) -> Planned:
    suite = {"name": "s", "role": "general", "include": [folder], "tasks": [{"task": task, **entry}]}
    return plan(load(Suite.model_validate(suite), allow_task_code=True), Rendering())


@pytest.mark.parametrize("entry", ["shuffled", "asked", "both"])
def test_prompts_are_lm_evals(folder: Path, base: Checkpoint, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    forget_task_modules()  # lm-eval would go on with the module's own generator
    expected = stock(folder, base, (entry,))["samples"]
    item = planned(folder, entry)
    assert [task.name for task in item.plan.tasks] == list(expected)
    for task, samples in expected.items():
        prompts = [[request.arguments for request in requests] for requests in requests_by_sample(item, task)]
        assert prompts == [[tuple(arguments) for arguments in sample["arguments"]] for sample in samples]


@pytest.mark.parametrize("entry", ["shuffled", "asked", "both"])
def test_every_plan_and_every_grading_is_the_same(folder: Path, entry: str) -> None:
    first = planned(folder, entry)
    responses = fake_responses(first)
    scores = grade(first, responses)
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    draws = GlobalGenerators.capture()
    assert planned(folder, entry).plan == first.plan
    assert grade(first, responses) == scores
    assert GlobalGenerators.capture().equals(draws)  # the caller's generators are left alone
    whole = {sample.digest for task in first.plan.tasks for sample in task.samples}
    few = planned(folder, entry, limit=4).plan
    assert {sample.digest for task in few.tasks for sample in task.samples} < whole


def test_documents_that_are_drawn_anew_are_graded_as_they_were_asked_and_it_is_said(folder: Path) -> None:
    item = planned(folder, "shuffled")
    assert "task shuffled: draws its documents at random" in item.notes[0]
    assert not any("draws its documents" in note for note in planned(folder, "asked").notes)
    for sample, requests in zip(item.plan.tasks[0].samples, requests_by_sample(item, "shuffled"), strict=True):
        choices = item.instances["shuffled"][sample.doc_id][0].doc["choices"]
        assert [request.arguments[1] for request in requests] == [f" {choice}" for choice in choices]


@pytest.mark.parametrize("limit", [1, 4, 29])
def test_few_shots_of_a_limit_are_those_of_the_whole(folder: Path, limit: int) -> None:
    whole = {sample.doc_id: sample for sample in planned(folder, "shots").plan.tasks[0].samples}
    few = planned(folder, "shots", limit=limit)
    assert len(few.plan.tasks[0].samples) == limit
    assert all(sample == whole[sample.doc_id] for sample in few.plan.tasks[0].samples)
    assert len(few.loaded.tasks[0].task.instances) == 4 * limit  # the others were not rendered
