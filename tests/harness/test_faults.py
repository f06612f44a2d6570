"""Faults of documents are named, with advice that works; what lm-eval does without a word is done, and said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsvc.errors import SuiteError
from evalsvc.harness.plan import Planned, plan
from evalsvc.harness.suites import Suite
from evalsvc.harness.tasks import load
from evalsvc.records.arms import Checkpoint
from evalsvc.records.plans import Rendering
from tests.support.commands import Run
from tests.support.harness import requests_by_sample, stock
from tests.support.tasks import CHOICE, write_task

ROWS = [{"query": f"q{i}", "choices": ["a", "b"], "gold": i % 2} for i in range(8)]
SHOTS = {**CHOICE, "fewshot_split": "train"}


def planned(folder: Path, *tasks: str | dict[str, Any]) -> Planned:
    suite = {"name": "s", "role": "general", "include": [folder], "tasks": list(tasks)}
    return plan(load(Suite.model_validate(suite)), Rendering())


def change(rows: list[dict[str, Any]], number: int, **values: Any) -> list[dict[str, Any]]:
    """Return rows of which one has other values."""
    return [{**row, **values} if i == number else row for i, row in enumerate(rows)]


def write_with_examples(
    folder: Path, rows: list[dict[str, Any]], examples: list[dict[str, Any]], **config: Any
) -> Path:
    """Write a task `t` with a split of few-shot examples; returns the file of the examples."""
    write_task(folder, "examples", examples).unlink()
    files = {"test": "data/t.jsonl", "train": "data/examples.jsonl"}
    write_task(folder, "t", rows, dataset_kwargs={"data_files": files}, **config)
    return folder / "data" / "examples.jsonl"


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"choices": []}, "has no choices, and needs at least one; correct or remove the document"),
        ({"choices": ["a", None]}, "choice None is no text; correct the document or doc_to_choice"),
        ({"gold": 2}, "gold 2 is out of range for 2 choices; correct the document or doc_to_target"),
    ],
)
def test_choices_that_cannot_be_scored_are_named(
    tmp_path: Path, number: int, values: dict[str, Any], message: str
) -> None:
    """lm-eval says `list index out of range`, or nothing: the first document is tried when a task is loaded."""
    for field in ("choices", "{{choices}}"):
        write_task(tmp_path, "t", change(ROWS, number, **values), **{**CHOICE, "doc_to_choice": field})
        with pytest.raises(SuiteError, match=rf"^suite s: task t.*: document {number}: {re.escape(message)}"):
            planned(tmp_path, "t")
    write_task(tmp_path, "t", ROWS, **CHOICE)
    assert len(planned(tmp_path, "t").plan.tasks[0].samples) == len(ROWS)


@pytest.mark.parametrize("text", ["", "\n"])
def test_data_without_documents(tmp_path: Path, text: str) -> None:
    write_task(tmp_path, "t", ROWS, **CHOICE)
    (tmp_path / "data" / "t.jsonl").write_text(text)
    with pytest.raises(SuiteError, match=r"task t cannot be loaded: a file of its data has no documents$"):
        planned(tmp_path, "t")


def test_an_empty_first_choice_and_a_null_gold(tmp_path: Path) -> None:
    write_task(tmp_path, "t", [{**row, "choices": ["a", ""]} for row in ROWS], **CHOICE)
    with pytest.raises(SuiteError, match="document 0: has an empty choice, which lm-eval cannot load; correct"):
        planned(tmp_path, "t")
    rows = change(ROWS, 0, gold=None)
    write_task(tmp_path, "t", rows, **CHOICE)
    with pytest.raises(SuiteError, match="document 0: gold None is not among its choices"):
        planned(tmp_path, "t")


@pytest.mark.parametrize("values", [{"choices": []}, {"gold": 2}])
def test_an_example_that_cannot_be_shown_is_named(tmp_path: Path, values: dict[str, Any]) -> None:
    write_with_examples(tmp_path, ROWS, change(ROWS[:3], 1, **values), **SHOTS)
    assert planned(tmp_path, "t").plan.tasks[0].shots == 0
    with pytest.raises(SuiteError, match=r"task t: few-shot document 1: (has no choices|gold 2 is out of range)"):
        planned(tmp_path, {"task": "t", "shots": 3})


@pytest.mark.parametrize("sampler", ["default", "first_n"])
@pytest.mark.parametrize(("split", "needed", "most"), [("train", 5, 3), ("test", 6, 2)])
def test_more_shots_than_examples_are_refused_with_the_most_that_work(
    tmp_path: Path, sampler: str, split: str, needed: int, most: int
) -> None:
    """With examples from its own split a document is left out itself."""
    config = {**CHOICE, "fewshot_split": split, "fewshot_config": {"sampler": sampler}}
    write_with_examples(tmp_path, ROWS[:3], ROWS[3:6], **config)
    message = (
        rf"^suite s: task t: 5 shots need {needed} examples(, as its own is left out)?, but split {split} has 3; "
        "set shots to at most (\\d), or name a larger fewshot_split in the task$"
    )
    with pytest.raises(SuiteError, match=message) as error:
        planned(tmp_path, {"task": "t", "shots": 5})
    match = re.search(message, str(error.value))
    assert match is not None
    assert (int(match[2]), bool(match[1])) == (most, split == "test")
    assert planned(tmp_path, {"task": "t", "shots": most}).plan.tasks[0].shots == most
    with pytest.raises(SuiteError, match=f"{most + 1} shots need"):
        planned(tmp_path, {"task": "t", "shots": most + 1})


# ----------------------------------------------------------------------------------------------- templates and choices


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"doc_to_choice": "choises"}, "doc_to_choice 'choises': is neither a field nor a list of choices"),
        ({"doc_to_text": "{{qeury}}"}, "doc_to_text '{{qeury}}': 'qeury' is undefined"),
        ({"doc_to_target": "{{glod}}"}, "doc_to_target '{{glod}}': 'glod' is undefined"),
        ({"doc_to_target": "glod"}, r".* \(doc_to_target 'glod' is no field of its data"),
    ],
)
def test_a_misspelt_field_is_refused_with_its_key_and_the_fields(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    """lm-eval says `malformed node or string on line 1: <ast.Name object at 0x7fbb...>`."""
    write_task(tmp_path, "t", ROWS, **{**CHOICE, **config})
    with pytest.raises(SuiteError, match=f"^suite s: task t.*: {message}; fields.*: query, choices, gold") as error:
        planned(tmp_path, "t")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_target", "doc_to_choice"])
def test_a_key_that_is_missing_is_named(tmp_path: Path, key: str, capfd: pytest.CaptureFixture[str]) -> None:
    write_task(tmp_path, "t", ROWS, **{name: value for name, value in CHOICE.items() if name != key})
    with pytest.raises(
        SuiteError, match=f"t.*: has no {key}, which a task of output_type multiple_choice needs; add it$"
    ):
        planned(tmp_path, "t")
    assert capfd.readouterr() == ("", "")


def test_a_template_that_fails_on_a_later_document_is_named(tmp_path: Path) -> None:
    write_task(tmp_path, "t", change(ROWS, 3, query=None), **{**CHOICE, "doc_to_text": "{{query[0]}}"})
    with pytest.raises(SuiteError, match=r"task t: doc_to_text '\{\{query\[0\]\}\}': .*; fields of its data: query"):
        planned(tmp_path, "t")


@pytest.mark.parametrize(
    ("choices", "note"),
    [
        (["a"], "one choice only, which is always right"),
        (["a", "b", "a"], "equal choices, of which the first counts"),
        (["a", "b", ""], "an empty choice, by whose length acc_norm divides"),
        (["red", "blue", "red wine"], "a choice that is the beginning of another, which can hardly be less likely"),
    ],
)
def test_choices_that_win_whatever_a_model_knows_are_said(tmp_path: Path, choices: list[str], note: str) -> None:
    assert planned(tmp_path / "before", self_contained(tmp_path / "before", ROWS)).notes == ()
    rows = change(change(ROWS, 3, choices=choices, gold=0), 5, choices=choices, gold=0)
    (said,) = planned(tmp_path / "after", self_contained(tmp_path / "after", rows)).notes
    assert said.startswith(f"task t: 2 of 8 documents: {note}")
    assert said.endswith("; correct the data or doc_to_choice")


def test_choices_that_are_one_text_are_refused(tmp_path: Path) -> None:
    """lm-eval takes its letters for choices."""
    write_task(tmp_path, "t", [{**row, "choices": "ab"} for row in ROWS], **CHOICE)
    with pytest.raises(SuiteError, match=r"document 0: its choices are the text 'ab', must be a list; correct the"):
        planned(tmp_path, "t")


def test_a_template_in_a_list_of_choices_is_said_not_to_be_rendered(tmp_path: Path) -> None:
    config = {**CHOICE, "doc_to_choice": ["{{choices[0]}}", "{{choices[1]}}"]}
    write_task(tmp_path, "t", ROWS, **config)
    item = planned(tmp_path, "t")
    assert {request.arguments[1] for request in item.plan.requests} == {" {{choices[0]}}", " {{choices[1]}}"}
    said = "doc_to_choice is a list, in which lm-eval renders no template: its choices are the texts in braces"
    assert item.notes == (f"task t: {said}",)


def self_contained(folder: Path, rows: list[dict[str, Any]]) -> str:
    """Write a task `t`, and return its name."""
    folder.mkdir()
    write_task(folder, "t", rows, **CHOICE)
    return "t"


@pytest.mark.parametrize(("prompt", "is_said"), [("qeury", True), ("query", False), ("", False), ("{{query}}", False)])
def test_a_prompt_that_is_the_same_for_all_documents_is_said(tmp_path: Path, prompt: str, is_said: bool) -> None:
    """An empty one is no misspelling: whole sentences are compared so."""
    write_task(tmp_path, "t", ROWS, **{**CHOICE, "doc_to_text": prompt})
    plan_of_task = planned(tmp_path, "t")
    prompts = {request.arguments[0] for request in plan_of_task.plan.requests}
    assert len(prompts) == (1 if is_said or not prompt else len(ROWS))
    said = (
        "task t: every document has the same prompt, 'qeury': doc_to_text names no field of its data "
        "(query, choices, gold)"
    )
    assert plan_of_task.notes == ((said,) if is_said else ())


# -------------------------------------------------------------------------------------------------------- null fields

NULLS = [
    {"query": f"q{i}", "hint": None if i % 3 else "h", "meta": {"by": None if i == 2 else "x"}, "pair": pair, "gold": 0}
    for i in range(8)
    for pair in [["a", None if i in (1, 2) else "b"]]
]
PLAIN = {**CHOICE, "doc_to_choice": ["a", "b"]}
NULL_TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "printed": ({"doc_to_text": "{{query}} {{hint}}"}, "'hint' in 5"),
    "lower": ({"doc_to_text": "{{query}} {{hint | lower}} {{meta.by}}"}, "'hint' in 5, 'meta' in 1"),
    "choices": ({"doc_to_text": "{{query}}", "doc_to_choice": "{{[pair[0], pair[1] | string]}}"}, "'pair' in 2"),
    "guarded": ({"doc_to_text": "{% if hint %}{{hint}}{% endif %}{{query}}"}, ""),
    "tested": ({"doc_to_text": "{{query}}{{ ' ' ~ hint if hint is not none else '' }}"}, ""),
    "replaced": ({"doc_to_text": "{{hint or query}}"}, ""),
    "other": ({"doc_to_text": "{{query}} None"}, ""),
}


def test_null_that_is_rendered_as_text_is_said_and_scored_as_lm_eval_scores_it(
    tmp_path: Path, base: Checkpoint, evalsvc: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, (config, _) in NULL_TASKS.items():
        write_task(tmp_path, name, NULLS, **{**PLAIN, **config})
    item = planned(tmp_path, *NULL_TASKS)
    monkeypatch.chdir(tmp_path)
    samples = stock(tmp_path, base, tuple(NULL_TASKS))["samples"]
    expected = []
    for name, (_, counts) in NULL_TASKS.items():
        prompts = [[request.arguments for request in requests] for requests in requests_by_sample(item, name)]
        assert prompts == [[tuple(pair) for pair in sample["arguments"]] for sample in samples[name]]
        assert any("None" in text for requests in prompts for pair in requests for text in pair) == (
            bool(counts) or name == "other"
        )
        if counts:
            expected.append(
                f'task {name}: null fields are rendered as the text "None", as in lm-eval: {counts} of 8 documents; '
                "correct the data, or test for null in the template"
            )
    assert item.notes == tuple(expected)

    suite = {"name": "s", "role": "general", "include": ".", "tasks": list(NULL_TASKS)}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite))
    assert evalsvc("suites", "check", tmp_path / "s.yaml", "--json").json["notes"] == expected
    assert all(f"warning: {note}" in evalsvc("suites", "check", tmp_path / "s.yaml").out for note in expected[:1])


def test_null_in_few_shot_examples_is_said(tmp_path: Path) -> None:
    whole = [{**row, "hint": "h"} for row in NULLS]
    write_with_examples(tmp_path, whole, NULLS, **{**PLAIN, **NULL_TASKS["printed"][0], "fewshot_split": "train"})
    assert planned(tmp_path, "t").notes == ()
    shown = planned(tmp_path, {"task": "t", "shots": 2})
    assert any("None" in request.arguments[0] for request in shown.plan.requests)
    assert shown.notes == (
        'task t: null fields are rendered as the text "None", as in lm-eval: '
        "'hint' in 5 of 8 few-shot examples; correct the data, or test for null in the template",
    )


def test_an_empty_stop_text_is_said(tmp_path: Path) -> None:
    config = {"output_type": "generate_until", "doc_to_text": "{{query}}", "doc_to_target": "{{gold}}"}
    for name, until in (("none", []), ("whole", ""), ("among", ["x", ""])):
        write_task(tmp_path, name, ROWS, **config, generation_kwargs={"until": until})
    notes = planned(tmp_path, "none", "whole", "among").notes
    assert [note.split(":")[0] for note in notes] == ["task whole", "task among"]
    assert all("ends every answer after its first token" in note for note in notes)
