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


def test_an_empty_stop_text_is_said(tmp_path: Path) -> None:
    config = {"output_type": "generate_until", "doc_to_text": "{{query}}", "doc_to_target": "{{gold}}"}
    for name, until in (("none", []), ("whole", ""), ("among", ["x", ""])):
        write_task(tmp_path, name, ROWS, **config, generation_kwargs={"until": until})
    notes = planned(tmp_path, "none", "whole", "among").notes
    assert [note.split(":")[0] for note in notes] == ["task whole", "task among"]
    assert all("ends every answer after its first token" in note for note in notes)
