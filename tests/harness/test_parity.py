"""Prompts and scores are lm-eval's own, for every kind of task."""

from __future__ import annotations

import ast
import gc
from pathlib import Path
from typing import Any, Literal

import lm_eval.api.task
import pytest

from evalsvc.checkpoints.discover import open_base
from evalsvc.engine.scorer import Scorer
from evalsvc.harness.grade import grade
from evalsvc.harness.lm_eval_globals import quiet
from evalsvc.harness.plan import Planned, plan
from evalsvc.harness.suites import Suite, TaskEntry
from evalsvc.harness.tasks import load
from evalsvc.records.arms import Checkpoint
from evalsvc.records.digests import canonical
from evalsvc.records.plans import Rendering, Response
from evalsvc.scoring.rendering import plan_suite
from tests.support import tiny
from tests.support.harness import requests_by_sample, stock

GREEDY = ("mc", "mc_shots", "mc_info", "cloze", "roll", "gen", "family")


def planned(folder: Path, *tasks: str | TaskEntry, **suite: Any) -> Planned:
    entries = tuple(TaskEntry(task=t) if isinstance(t, str) else t for t in tasks)
    return plan(load(Suite(name="s", role="general", include=(folder,), tasks=entries, **suite)), Rendering())


def scored(item: Planned, checkpoint: Checkpoint) -> dict[str, Response]:
    scorer = Scorer()
    found: dict[str, Response] = {}
    for shard in tiny.make_shards(item.plan.requests, checkpoint):
        result = scorer.score(shard)
        assert not result.failures
        found |= {response.request: response for response in result.responses}
    return found


def test_scores_are_lm_evals_to_the_last_digit(
    task_folder: Path, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(task_folder)
    expected = stock(task_folder, base, GREEDY)
    item = planned(task_folder, *GREEDY)
    graded = grade(item, scored(item, base))

    compared = 0
    for result in graded.results:
        theirs = expected["results"][result.task][f"{result.metric},{result.filter}"]
        if result.metric in {"perplexity", "word_perplexity", "bits_per_byte"}:
            assert result.value == pytest.approx(theirs, rel=1e-5)
        else:
            assert result.value == theirs, result
        stderr = expected["results"][result.task].get(f"{result.metric}_stderr,{result.filter}")
        if isinstance(stderr, float) and result.metric != "perplexity":
            assert result.stderr == pytest.approx(stderr, rel=1e-9), result
        compared += 1
    assert compared == len([k for r in expected["results"].values() for k in r if "," in k and "_stderr" not in k])


def test_loglikelihoods_and_texts_are_lm_evals(
    task_folder: Path, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(task_folder)
    expected = stock(task_folder, base, GREEDY)
    item = planned(task_folder, *GREEDY)
    responses = scored(item, base)
    for task, samples in expected["samples"].items():
        first = samples[0]["filter"]
        asked = requests_by_sample(item, task)
        for sample, requests in zip([s for s in samples if s["filter"] == first], asked, strict=True):
            for theirs, request in zip(sample["resps"], requests, strict=True):
                ours = responses[request.digest]
                if ours.text is not None:
                    assert ours.text == theirs[0]
                elif ours.greedy is None:
                    assert ours.loglikelihood == pytest.approx(theirs[0], abs=1e-4, rel=1e-6)
                else:
                    assert ours.loglikelihood == pytest.approx(theirs[0][0], abs=1e-4, rel=1e-6)
                    assert ours.greedy == theirs[0][1]


@pytest.mark.parametrize("limit", [None, 7])
def test_prompts_of_random_few_shots_are_lm_evals_also_when_sampled(
    task_folder: Path, base: Checkpoint, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(task_folder)
    expected = {s["doc_id"]: s["arguments"] for s in stock(task_folder, base, ("mc_shots",))["samples"]["mc_shots"]}
    item = planned(task_folder, TaskEntry(task="mc_shots", limit=limit))
    samples = item.plan.tasks[0].samples
    assert len(samples) == (limit or 20)
    for sample, requests in zip(samples, requests_by_sample(item, "mc_shots"), strict=True):
        assert [request.arguments for request in requests] == [tuple(a) for a in expected[sample.doc_id]]


def test_planning_leaves_nothing_changed_in_the_process_and_shares_no_parsed_choices(task_folder: Path) -> None:
    planned(task_folder, "mc_shots")
    assert lm_eval.api.task.ast is ast
    assert gc.isenabled()
    with quiet():
        for text in ("['a', 'b']", "[['a'], {'b': 1}]"):
            value = lm_eval.api.task.ast.literal_eval(text)
            value[0] += value[0]
            value.append("c")
            assert lm_eval.api.task.ast.literal_eval(text) == ast.literal_eval(text)


def test_shots_of_a_suite_override_a_tasks_own(
    task_folder: Path, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(task_folder)
    expected = stock(task_folder, base, ("mc_shots",), num_fewshot=4)["samples"]["mc_shots"]
    item = planned(task_folder, TaskEntry(task="mc_shots", shots=4))
    asked = requests_by_sample(item, "mc_shots")
    assert [[r.arguments for r in rs] for rs in asked] == [[tuple(a) for a in s["arguments"]] for s in expected]


@pytest.mark.parametrize(
    ("chat_template", "template_args"),
    [("off", {}), ("on", {}), ("on", {"enable_thinking": False}), ("on", {"enable_thinking": True})],
)
def test_prompts_are_lm_evals_with_and_without_a_chat_template(
    task_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chat_template: Literal["on", "off"],
    template_args: dict[str, Any],
) -> None:
    monkeypatch.chdir(task_folder)
    tiny.make_llama().save_pretrained(tmp_path / "chat")
    tiny.make_tokenizer(tiny.SWITCHED).save_pretrained(tmp_path / "chat")
    chat = open_base(str(tmp_path / "chat"))
    tasks = ("mc_shots", "gen", "cloze")
    expected = stock(
        task_folder,
        chat,
        tasks,
        {"chat_template_args": template_args},
        apply_chat_template=chat_template == "on",
        system_instruction="Be brief.",
    )["samples"]
    suite = Suite(
        name="s",
        role="general",
        include=(task_folder,),
        tasks=tuple(TaskEntry(task=task) for task in tasks),
        system_prompt="Be brief.",
        chat_template=chat_template,
        template_args=template_args,
    )
    item = plan_suite(suite, chat, False)
    for task in tasks:
        theirs = [s for s in expected[task] if s["filter"] == expected[task][0]["filter"]]
        for sample, requests in zip(theirs, requests_by_sample(item, task), strict=True):
            arguments = [[a if isinstance(a, str) else canonical(a) for a in pair] for pair in sample["arguments"]]
            assert [list(request.arguments) for request in requests] == arguments
            prompt = requests[0].arguments[0]
            assert prompt.startswith("<system>Be brief.<user>" if chat_template == "on" else "Be brief.")
            assert prompt.endswith("<think></think>") == (template_args.get("enable_thinking") is False)


def test_repeated_samples_are_different_requests_and_are_voted_on(task_folder: Path, base: Checkpoint) -> None:
    item = planned(task_folder, "votes")
    assert len(item.plan.requests) == 4 * 3
    responses = scored(item, base)
    assert len({r.text for r in responses.values()}) > 4
    again = scored(item, base)
    assert responses == again  # each sampled answer has a seed of its own
    graded = grade(item, responses)
    assert [(r.metric, r.filter, r.n) for r in graded.results] == [("exact_match", "vote", 4)]
