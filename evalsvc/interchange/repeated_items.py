"""Finds imported items that stand in several tasks, where only their names are known.

An imported item without content is a document of its own in every task, because names such as "17" recur. Items that
have the same names in another task, and scores that agree, are the same items, be it in another format: they become the
same documents, so that they count once in whatever is computed over both tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalsvc.interchange.arms import Imported, ImportedTask
from evalsvc.records.digests import canonical
from evalsvc.records.plans import Sample

Key = tuple[str, str]
"""Suite and task."""
Values = dict[str, float]
"""Score by name of the item."""
FEWEST = 5
"""Number of common items below which nothing is concluded."""
CORRELATION, AGREEMENT = 0.5, 0.95
"""Of scores of the same items, also in other prompt formats; the agreement where all scores of one task are equal."""
ByTask = dict[Key, Values]


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where the items of a task stood before."""

    suite: str
    task: str
    names: frozenset[str]


def link_repeated_items(
    imported: Sequence[Imported], stored: Iterable[tuple[str, str, str, str, float]]
) -> list[Imported]:
    """Return imported arms, with the items that stand in another task as the same documents, and notes that say so.

    Args:
        stored: Arm's key, suite, task, document and score of each stored item that is known by its name.
    """
    known: dict[str, ByTask] = {}
    for arm, suite, task, document, value in stored:
        named = json.loads(document)
        if not named.keys() <= {"item", "task"}:
            continue
        known.setdefault(arm, {}).setdefault((suite, named.get("task", task)), {})[named["item"]] = value
    new: dict[str, ByTask] = {}
    for entry in imported:
        for of_arm in entry.tasks:
            if (values := _list_values(of_arm)) is not None:
                new.setdefault(entry.arm.key, {})[entry.plan.suite, of_arm.name] = values
    origins: dict[Key, _Origin] = {}
    for key in dict.fromkeys(key for tasks in new.values() for key in tasks):
        if (origin := _find_origin(key, new, known)) is not None:
            origins[key] = origin
        for arm, tasks in new.items():
            if key in tasks and key not in origins:
                known.setdefault(arm, {})[key] = tasks[key]
    return [_link(entry, origins) for entry in imported]


def _list_values(task: ImportedTask) -> Values | None:
    """Return the scores of a task by name of the item; None if the items have content."""
    primary = task.metrics[0]
    scores = {s.sample: s.value for s in task.scores if (s.metric, s.filter) == (primary.name, primary.filter)}
    names = {sample.digest: _read_name(sample) for sample in task.samples}
    if None in names.values() or len(set(names.values())) < len(names):
        return None
    return {name: value for digest, name in names.items() if name and (value := scores.get(digest)) is not None}


def _read_name(sample: Sample) -> str | None:
    """Return the name of an item without content."""
    if not sample.doc.startswith('{"item":'):
        return None
    document = json.loads(sample.doc)
    return str(document["item"]) if list(document) == ["item"] else None


def _find_origin(key: Key, new: Mapping[str, ByTask], known: Mapping[str, ByTask]) -> _Origin | None:
    """Return the first other task with the same items, whose scores agree in every arm."""
    for other in dict.fromkeys(other for arm in new for other in known.get(arm, {})):
        pairs = [(new[arm][key], known[arm][other]) for arm in new if key in new[arm] and other in known.get(arm, {})]
        if other[1] != key[1] and pairs and all(_is_repeated(*pair) for pair in pairs):
            return _Origin(*other, frozenset(pairs[0][0].keys() & pairs[0][1].keys()))
    return None


def _is_repeated(values: Values, other: Values) -> bool:
    """Whether at least half of the items of one task are in the other, with scores that agree.

    Scores of other items with the same names are independent: their correlation is about 0, give or take 1 / sqrt(n).
    """
    common = list(values.keys() & other.keys())
    if 2 * len(common) < min(len(values), len(other)) or len(common) < FEWEST:
        return False
    first, second = (np.array([scores[name] for name in common]) for scores in (values, other))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return bool((first != second).mean() <= 1 - AGREEMENT)
    return bool(np.corrcoef(first, second)[0, 1] >= max(CORRELATION, 3 / np.sqrt(len(common))))


def _link(entry: Imported, origins: Mapping[Key, _Origin]) -> Imported:
    """Return an arm with the items of its tasks as the documents of their origin."""
    of_task = {task: origin for (suite, task), origin in origins.items() if suite == entry.plan.suite}
    if not any(task.name in of_task for task in entry.tasks):
        return entry
    notes = [
        f"{task.name}: {len(origin.names):,} items have the names of {origin.suite}/{origin.task}, with scores "
        "that agree, and count once with them; give other items other names"
        for task in entry.tasks
        if (origin := of_task.get(task.name))
    ]

    def link_samples(task: str, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        origin = of_task.get(task)
        return tuple(
            replace(sample, doc=canonical({"item": name, "task": origin.task}))
            if origin and (name := _read_name(sample)) in origin.names
            else sample
            for sample in samples
        )

    planned = tuple(replace(task, samples=link_samples(task.name, task.samples)) for task in entry.plan.tasks)
    return replace(
        entry,
        plan=replace(entry.plan, tasks=planned),
        tasks=tuple(replace(task, samples=link_samples(task.name, task.samples)) for task in entry.tasks),
        notes=(*entry.notes, *notes),
    )
