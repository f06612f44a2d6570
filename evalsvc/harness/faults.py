"""Faults of a task's documents and templates: lm-eval fails without naming them, scores them zero, or says nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from traceback import walk_tb
from typing import Any

from lm_eval.api.task import ConfigurableTask, Task

_MARKER = "\u2400"
"""Stands in for null when a document is rendered a second time."""


def find_choice_fault(choices: Sequence[Any] | None, gold: Any) -> str | None:
    """Return what is wrong with a document's choices or gold, and the next step; None if nothing is.

    Args:
        gold: Index or text of the right choice, or several of them.
    """
    if isinstance(choices, str):
        return f"its choices are the text {choices!r}, must be a list; correct the document or doc_to_choice"
    if not choices:
        return "has no choices, and needs at least one; correct or remove the document, or correct doc_to_choice"
    if wrong := [choice for choice in choices if not isinstance(choice, str)]:
        return f"choice {wrong[0]!r} is no text; correct the document or doc_to_choice"
    for answer in gold if isinstance(gold, list) else [gold]:
        if (isinstance(answer, str) and answer not in choices) or answer is None:
            return f"gold {answer!r} is not among its choices {choices!r}; correct the document or doc_to_target"
        if isinstance(answer, int) and not 0 <= answer < len(choices):
            return f"gold {answer} is out of range for {len(choices)} choices; correct the document or doc_to_target"
    return None


def explain_loading(error: Exception) -> str | None:
    """Return why lm-eval cannot load a task: a template, or its first document, on which lm-eval tries them."""
    if fault := _find_template_fault(error):
        return fault
    if re.fullmatch('Instruction ".+" corresponds to no data!', str(error)) or isinstance(error, StopIteration):
        return "a file of its data has no documents"  # which datasets says so
    *_, (last, _) = walk_tb(error.__traceback__)
    if last.f_code is not ConfigurableTask.__init__.__code__:
        return None
    choices = last.f_locals.get("test_choice")
    if not isinstance(choices, list):
        return None
    fault = find_choice_fault(choices, last.f_locals.get("test_target"))
    if fault is None and "" in choices:
        fault = "has an empty choice, which lm-eval cannot load; correct the document or doc_to_choice"
    return fault and f"document 0: {fault}"


def _find_template_fault(error: Exception) -> str | None:
    """Return which template of a task failed, why, and what it may name; None if it is none of them that failed."""
    readers = {
        getattr(ConfigurableTask, name).__code__: name for name in ("doc_to_text", "doc_to_target", "doc_to_choice")
    }
    for frame, _ in walk_tb(error.__traceback__):
        if name := readers.get(frame.f_code):
            task = frame.f_locals["self"]
            template = task.get_config(name)
            if template is None:
                return f"has no {name}, which a task of output_type {task.OUTPUT_TYPE} needs; add it"
            if not isinstance(template, str):
                return None
            is_no_list = isinstance(
                error, ValueError | SyntaxError
            )  # of `ast.literal_eval`, with which lm-eval reads choices
            reason = "is neither a field nor a list of choices" if is_no_list else str(error)
            return f"{name} {template!r}: {reason}; fields of its data: {', '.join(task.features)}"
    return None


def explain_building(task: Task, error: Exception) -> str | None:
    """Return why the requests of a task cannot be built: too few examples to show, a document's choices, a template."""
    if not isinstance(task, ConfigurableTask):
        return None
    shots, examples = int(task.config.num_fewshot or 0), list_examples(task)
    # lm-eval draws one more where the document itself may be among the examples.
    is_among = task.fewshot_cfg.split == task.config.test_split
    usable = max(0, len(examples) - is_among)
    if shots > usable:
        return (
            f"{shots} shots need {shots + is_among} examples{', as its own is left out' if is_among else ''}, but "
            f"{_name_examples(task)} has {len(examples)}; set shots to at most {usable}, or name a larger "
            "fewshot_split in the task"
        )
    if task.OUTPUT_TYPE != "multiple_choice":
        return _find_template_fault(error)
    documents: Sequence[Any] = ()
    with suppress(Exception):  # this may be what fails
        documents = list(task.eval_docs)
    for noun, several in (("document", documents), ("few-shot document", examples)):
        for number, document in enumerate(several):
            with suppress(Exception):
                gold = task.doc_to_target(document)
                if fault := find_choice_fault(task.doc_to_choice(document), gold if isinstance(gold, int) else []):
                    return f"{noun} {number}: {fault}"
    return _find_template_fault(error)


def list_examples(task: Task) -> list[Any]:
    """Return the documents among which a task's few-shot examples are drawn; none if it shows none."""
    return list(getattr(getattr(task, "sampler", None), "df", [])) if task.config.num_fewshot else []


def _name_examples(task: ConfigurableTask) -> str:
    """Return where a task's few-shot examples come from, in lm-eval's order."""
    config, examples = task.config, task.fewshot_cfg
    if examples.split is None and examples.samples is not None:
        return "fewshot_config"
    split = examples.split or config.training_split or config.validation_split or config.test_split
    return f"split {split}"


# ------------------------------------------------------------------------------------------- choices and prompts


def list_choice_notes(task: Task, all_choices: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield what makes one choice win whatever a model knows, with the number of documents that have it.

    Args:
        task: With choices, which are prompts where it has several inputs.
    """
    total = len(all_choices)
    written = task.config.doc_to_choice
    if isinstance(written, list | dict) and any("{{" in choice for choice in all_choices[0]):
        yield "doc_to_choice is a list, in which lm-eval renders no template: its choices are the texts in braces"
    for n, text in (
        (sum(len(choices) == 1 for choices in all_choices), "one choice only, which is always right"),
        (sum("" in choices for choices in all_choices), "an empty choice, by whose length acc_norm divides"),
        (sum(len(set(choices)) < len(choices) for choices in all_choices), "equal choices, of which the first counts"),
        (
            0 if task.multiple_input else sum(map(_has_prefix, all_choices)),
            "a choice that is the beginning of another, which can hardly be less likely than the longer",
        ),
    ):
        if n:
            yield f"{n:,} of {total:,} documents: {text}; correct the data or doc_to_choice"


def _has_prefix(choices: Sequence[str]) -> bool:
    """Whether a choice that is not empty is the beginning of another one."""
    ordered = sorted(set(choices) - {""})
    return any(longer.startswith(shorter) for shorter, longer in pairwise(ordered))


def find_constant_prompt(task: Task, documents: Sequence[Any]) -> str | None:
    """Return a remark if all documents have the same prompt, as they have if its template misspells a field."""
    if not isinstance(task, ConfigurableTask) or len(documents) < 2:
        return None
    template = task.config.doc_to_text
    if not isinstance(template, str) or not template or template in task.features or "{" in template:
        return None
    return (
        f"every document has the same prompt, {template!r}: doc_to_text names no field of its data "
        f"({', '.join(task.features)})"
    )


# -------------------------------------------------------------------------------------------------------- null fields


def count_printed_nulls(task: Task, documents: Sequence[Any]) -> Counter[str]:
    """Count the documents in which a null field is rendered as the text "None", by field.

    A document is rendered twice, with null and with a marker in its place. Only if the two differ in nothing but the
    marker was null printed: a template that tests for null renders something else.
    """
    printed: Counter[str] = Counter()
    if not isinstance(task, ConfigurableTask):
        return printed
    config = task.config
    templates: list[tuple[Callable[[Any], Any], str]] = [
        (render, template)
        for render, template in (
            (task.doc_to_text, config.doc_to_text),
            (task.doc_to_target, config.doc_to_target),
            (task.doc_to_choice, config.doc_to_choice),
        )
        if isinstance(template, str)  # a function may draw at random
    ]
    for document in documents:
        nulls = [name for name, value in document.items() if _has_null(value)] if isinstance(document, Mapping) else []
        names = [name for render, template in templates for name in _list_printed(render, template, document, nulls)]
        printed.update(dict.fromkeys(names).keys())
    return printed


def _list_printed(
    render: Callable[[Any], Any], template: str, document: Mapping[str, Any], nulls: Sequence[str]
) -> Iterator[str]:
    """Yield the null fields that a template renders as text."""
    named = [name for name in nulls if name in template]
    plain = _render(render, document) if named else ""
    for name in named if "none" in plain else ():
        other = _render(render, {**document, name: _mark(document[name])})
        if _MARKER in other and other.replace(_MARKER, "none") == plain:
            yield name


def _render(render: Callable[[Any], Any], document: Mapping[str, Any]) -> str:
    """Return what a template renders, in lower case; empty if it fails, as it may on a text in place of null."""
    with suppress(Exception):
        rendered = render(document)
        return ("\n".join(map(str, rendered)) if isinstance(rendered, list) else str(rendered)).lower()
    return ""


def _has_null(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


def _mark(value: Any) -> Any:
    """Return a value with the marker in place of every null in it."""
    if isinstance(value, Mapping):
        return {key: _mark(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mark(inner) for inner in value]
    return _MARKER if value is None else value
