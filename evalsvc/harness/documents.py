"""Build the requests of a task's chosen documents: the very requests that lm-eval builds for all documents.

A `limit` is a seeded random sample. Only its documents are rendered wherever the others cannot change it. Few-shot
examples come from one random stream that advances with every document; for documents that are left out, it is advanced
without rendering. Tasks with code of their own, and those that draw from global generators, are built completely.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.api.samplers import ContextSampler, FirstNSampler
from lm_eval.api.task import ConfigurableTask, Task

from evalsvc.errors import SuiteError
from evalsvc.harness.faults import (
    count_printed_nulls,
    explain_building,
    find_choice_fault,
    find_constant_prompt,
    list_choice_notes,
    list_examples,
)
from evalsvc.harness.lm_eval_globals import GlobalGenerators
from evalsvc.harness.suites import Suite
from evalsvc.harness.tasks import LoadedTask
from evalsvc.records.plans import Rendering, count_golds
from evalsvc.stats.transitions import guessing_accuracy

Render = Callable[..., str]
"""Chat history (list of role/content dicts) and `add_generation_prompt` -> prompt."""


@dataclass(frozen=True, slots=True)
class BuiltRequests:
    """A task's requests.

    Attributes:
        instances: lm-eval's instances of the chosen documents, by document.
        chance: Accuracy of guessing among the choices; None if the task is not multiple choice.
        generators: The global random generators afterwards.
        notes: What is done as lm-eval does it, but hardly as the task's author means it, one line each.
    """

    instances: list[list[Instance]]
    chance: float | None
    generators: GlobalGenerators
    notes: tuple[str, ...]


def build_requests(loaded_task: LoadedTask, suite: Suite, rendering: Rendering, render: Render | None) -> BuiltRequests:
    """Build a task's requests, with the global random generators as they are.

    Raises:
        SuiteError: The task's templates or functions fail, or a gold cannot be right.
    """
    task, name = loaded_task.task, str(loaded_task.task.config.task)
    start = GlobalGenerators.capture()
    try:
        documents = task.eval_docs
        if not hasattr(documents, "__getitem__"):
            documents = list(documents)
        drawn = GlobalGenerators.capture()
        limit = loaded_task.entry.limit if loaded_task.entry.limit is not None else suite.defaults.limit
        chosen = choose_documents(range(len(documents)), limit, suite.defaults.seed, name)
        builder = _Builder(task, documents, suite.defaults.seed, rendering, render)
        is_complete = len(chosen) == len(documents) or not _can_leave_out(loaded_task)
        instances = builder.build(range(len(documents)) if is_complete else chosen)
        end = GlobalGenerators.capture()
        if not is_complete and not end.equals(drawn):
            drawn.install()
            instances = builder.build(range(len(documents)))
            end = GlobalGenerators.capture()
    except Exception as error:  # building runs the task's templates and functions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        fault = explain_building(task, error) or f"requests cannot be built: {reason}"
        raise SuiteError(f"suite {suite.name}: task {name}: {fault}") from error
    where = f"suite {suite.name}: task {name}"
    if without := [number for number in chosen if number not in instances]:
        no_choices = find_choice_fault([], None) if task.OUTPUT_TYPE == "multiple_choice" else None
        raise SuiteError(f"{where}: document {without[0]}: {no_choices or 'no request is built for it'}")
    by_document = [instances[number] for number in chosen]
    choices = None
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = [task.doc_to_choice(same_doc[0].doc) for same_doc in by_document]
    chosen_documents = [same_doc[0].doc for same_doc in by_document]
    golds = _count_golds(where, task, chosen, chosen_documents, choices)
    chance = guessing_accuracy(golds, list(map(len, choices))) if choices else None
    notes = tuple(_list_notes(task, chosen_documents, choices, are_drawn=not drawn.equals(start)))
    return BuiltRequests(by_document, chance, end, notes)


def _list_notes(
    task: Task, documents: Sequence[Any], choices: Sequence[Any] | None, *, are_drawn: bool
) -> Iterator[str]:
    """Yield what a user should know of a task's documents.

    Args:
        are_drawn: Whether the documents are drawn anew whenever the task is asked for them.
    """
    if are_drawn:
        yield (
            "draws its documents at random each time it is asked for them: it is graded on those of its prompts; "
            "lm-eval grades on a later draw, so that its own score differs"
        )
    if remark := find_constant_prompt(task, documents):
        yield remark
    if choices:
        yield from list_choice_notes(task, [[str(choice) for choice in several] for several in choices])
    for noun, several in (("documents", documents), ("few-shot examples", list_examples(task))):
        if nulls := count_printed_nulls(task, several):
            counts = ", ".join(f"{field!r} in {n:,}" for field, n in nulls.items())
            yield (
                f'null fields are rendered as the text "None", as in lm-eval: {counts} of {len(several):,} {noun}; '
                "correct the data, or test for null in the template"
            )
    until = (task.get_config("generation_kwargs") or {}).get("until")
    if task.OUTPUT_TYPE == "generate_until" and (until == "" or (isinstance(until, list) and "" in until)):
        yield "until has an empty text, which ends every answer after its first token, as in lm-eval; remove it"


def choose_documents(documents: Sequence[int], limit: int | None, seed: int, task: str) -> list[int]:
    """Return a seeded random sample of documents, in order; a larger limit keeps all of a smaller one's."""
    if limit is None or limit >= len(documents):
        return list(documents)
    shuffled = list(documents)
    random.Random(f"{seed}/{task}").shuffle(shuffled)
    return sorted(shuffled[:limit])


def _can_leave_out(loaded_task: LoadedTask) -> bool:
    """Whether documents that are not chosen need not be rendered."""
    task = loaded_task.task
    if loaded_task.runs_code or type(task) is not ConfigurableTask:
        return False
    return not task.config.num_fewshot or type(task.sampler) in (ContextSampler, FirstNSampler)


class _Builder:
    """Builds requests with lm-eval's own `build_all_requests`."""

    def __init__(self, task: Task, documents: Any, seed: int, rendering: Rendering, render: Render | None) -> None:
        self._task, self._documents, self._seed = task, documents, seed
        self._options: dict[str, Any] = {
            "system_instruction": rendering.system_prompt,
            "apply_chat_template": render is not None,
            "fewshot_as_multiturn": True,
            "chat_template": render,
            "tokenizer_name": rendering.template or "",
        }

    def build(self, numbers: Sequence[int]) -> dict[int, list[Instance]]:
        """Return the instances of some documents, by number."""
        task: Any = self._task
        is_complete = len(numbers) == len(self._documents)
        pairs: Iterable[tuple[int, Any]] = (
            enumerate(self._documents) if is_complete else ((number, self._documents[number]) for number in numbers)
        )
        task.set_fewshot_seed(self._seed)
        sampler = getattr(task, "sampler", None)
        task.doc_iterator = lambda **_: pairs
        if sampler is not None and not is_complete and type(sampler) is ContextSampler:
            task.sampler = _SparseSampler(sampler, self._documents, numbers)
        try:
            task.build_all_requests(rank=0, world_size=1, **self._options)
        finally:
            del task.doc_iterator
            if sampler is not None:
                task.sampler = sampler
        instances: dict[int, list[Instance]] = defaultdict(list)
        for instance in task.instances:
            instances[cast(int, instance.doc_id)].append(instance)
        for same_doc in instances.values():
            same_doc.sort(key=lambda instance: instance.idx)
        return instances


class _SparseSampler:
    """lm-eval's sampler of few-shot examples, asked for some documents only: for the others it samples in vain."""

    def __init__(self, sampler: ContextSampler, documents: Any, numbers: Sequence[int]) -> None:
        self._sampler, self._documents = sampler, documents
        self._numbers = iter(numbers)
        self._next = 0

    def sample(self, n: int, eval_doc: Any = None) -> Sequence[Any]:
        """Return the examples of the next of the documents."""
        number = next(self._numbers)
        for left_out in range(self._next, number):
            self._sampler.sample(n, None if eval_doc is None else self._documents[left_out])
        self._next = number + 1
        return cast(Sequence[Any], self._sampler.sample(n, eval_doc))


def _count_golds(
    where: str, task: Task, numbers: Sequence[int], documents: Sequence[Any], all_choices: Sequence[Any] | None
) -> list[int]:
    """Return the number of golds of every document; 1 where the task's own code tells what is right.

    A misspelt gold field raises no error in lm-eval, and scores zero, so golds that cannot be right are refused.

    Raises:
        SuiteError: A document's gold is not one of its choices, or doc_to_target names no field; the message names it.
    """
    counts = [1] * len(documents)
    if not isinstance(task, ConfigurableTask) or task.config.process_results is not None:
        return counts
    named, fields = task.config.doc_to_target, ", ".join(task.features)
    is_misspelt = isinstance(named, str) and re.fullmatch(r"[A-Za-z_]\w*", named) and named not in task.features
    if all_choices is None:
        if is_misspelt:
            raise SuiteError(
                f"{where}: doc_to_target {named!r} is not a field of its data (fields: {fields}), "
                "so every document would have this word as its gold"
            )
        return counts
    hint = f" (doc_to_target {named!r} is no field of its data; fields: {fields})" if is_misspelt else ""
    gold_of: Callable[[Any], Any] = task.doc_to_text if task.multiple_input else task.doc_to_target
    for position, (number, document, choices) in enumerate(zip(numbers, documents, all_choices, strict=True)):
        gold = gold_of(document)
        counts[position] = count_golds(gold)
        if fault := find_choice_fault(choices, gold):
            raise SuiteError(f"{where}: document {number}: {fault}{hint}")
    return counts
