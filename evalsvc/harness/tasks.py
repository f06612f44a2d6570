"""Find, check and load the lm-eval tasks that a suite names.

A task's own Python code runs only if the user allows it, and a task that draws at random is loaded as lm-eval's command
line loads it: with its seeds, by itself.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.api.task
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind

from evalsvc.errors import SuiteError
from evalsvc.files.yaml_files import find_fault
from evalsvc.harness.faults import explain_loading
from evalsvc.harness.lm_eval_globals import GlobalGenerators, forget_task_modules, quiet, seed_generators
from evalsvc.harness.suites import Suite, TaskEntry, content_digest, file_digest
from evalsvc.harness.task_files import LocalDataFactory, find_local_files, has_functions, is_stock, why_code_runs
from evalsvc.records.digests import digest
from evalsvc.settings import cache_dir


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """An lm-eval task with its entry in the suite.

    Attributes:
        generators: The global random generators when all tasks of the entry were loaded: its requests are built from
            there, in order, as lm-eval builds them.
    """

    entry: TaskEntry
    task: Task
    group: str | None
    runs_code: bool
    generators: GlobalGenerators


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSuite:
    """A suite whose tasks are in memory. `digest` covers the suite file, task files, task code and local data.

    Attributes:
        files: Path, or pattern of paths, and digest of each of these files.
    """

    suite: Suite
    tasks: tuple[LoadedTask, ...]
    groups: tuple[Group, ...]
    digest: str
    files: tuple[tuple[str, str], ...]


def load(suite: Suite, *, allow_task_code: bool = False) -> LoadedSuite:
    """Load every task of a suite, with shots and seeds set as `lm_eval.simple_evaluate` sets them.

    Raises:
        SuiteError: A name is unknown, or a task cannot be loaded or would run code.
    """
    with quiet():
        index = _index(suite)
        factory = index._factory = LocalDataFactory()
        tasks: list[LoadedTask] = []
        groups: list[Group] = []
        content: list[str] = []
        files = {str(suite.path): suite.digest()}
        for entry in suite.tasks:
            members = list(_members(entry.task, index.task_index))
            code = [_check_code(suite, member, allow_task_code) for member in members]
            own = {str(path): file_digest(path) for member in members for path in find_local_files(member)}
            factory.shots = entry.shots if entry.shots is not None else suite.defaults.shots
            loaded, entry_groups = _load_entry(
                suite, entry, index, any(code), with_torch=any(map(has_functions, members))
            )
            own |= {place: data for place in factory.locations if (data := content_digest(place))}
            factory.locations.clear()
            content += [entry.task, *(_content(member) for member in members), *sorted(own.values())]
            files |= own
            tasks += loaded
            groups += entry_groups
        _refuse_duplicates(suite, tasks)
    identity = digest("suite", suite.definition(), *content)
    return LoadedSuite(
        suite=suite, tasks=tuple(tasks), groups=tuple(groups), digest=identity, files=tuple(files.items())
    )


# ------------------------------------------------------------------------------------------------------------- index


class _Entries(dict[str, Entry]):
    """lm-eval's index of tasks: those of a suite's folders, and of its own those that something asks for."""

    def __missing__(self, name: str) -> Entry:
        kind, path, config, tags = _stock_index()[name]
        self[name] = entry = Entry(name, Kind[kind], Path(path) if path else None, config, set(tags))
        return entry

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in _stock_index()

    def get(self, name: str, default: Any = None) -> Any:
        """Return an entry, or the default."""
        try:
            return self[name]
        except KeyError:
            return default


@cache
def _stock_index() -> dict[str, Any]:
    """Return lm-eval's own tasks: name -> kind, YAML file, a group's configuration, a tag's tasks.

    Reading its 14,000 files takes about ten seconds, so the index is cached per installed version.
    """
    home = Path(lm_eval.api.task.__file__).parent.parent
    file = cache_dir() / "lm-eval" / f"{version('lm-eval')}-{digest('names', str(home))}.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    except (OSError, ValueError):  # absent or damaged: build it again
        pass
    rows = {
        entry.name: [
            entry.kind.name,
            str(entry.yaml_path or ""),
            entry.cfg if entry.kind is Kind.GROUP else None,
            sorted(entry.tags) if entry.kind is Kind.TAG else [],
        ]
        for entry in TaskManager().task_index.values()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(rows), encoding="utf-8")
    unfinished.replace(file)
    return rows


def _index(suite: Suite) -> TaskManager:
    index = TaskManager(include_path=[str(folder) for folder in suite.include], include_defaults=False)
    index._index = _Entries(index.task_index)
    for entry in suite.tasks:
        try:
            list(_members(entry.task, index.task_index))
        except KeyError as error:
            known = [*index.task_index, *_stock_index()]
            raise SuiteError(_unknown(suite, str(error.args[0]), known)) from error
    return index


def _unknown(suite: Suite, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; it is neither in the `include` folders nor in lm-eval"
    return f"suite {suite.name}: unknown task {name!r}{_find_broken_file(suite, name) or hint}"


def _find_broken_file(suite: Suite, name: str) -> str | None:
    """Return the file of a task that lm-eval passes over in silence, because it is not YAML; None if there is none."""
    for file in (file for folder in suite.include for file in sorted(folder.rglob("*.yaml")) if file.is_file()):
        is_its_own = file.stem == name or f"task: {name}" in file.read_text(encoding="utf-8", errors="replace")
        if is_its_own and (fault := find_fault(file)):
            return f": {file}: {fault}; put texts with braces in quotes"
    return None


def _members(name: str, index: dict[str, Entry]) -> Iterator[Entry]:
    """Yield the entries behind a name: the group itself, and all groups and tasks in it.

    Raises:
        KeyError: With the name that is not in the index.
    """
    entry = index[name]
    if entry.kind is Kind.TAG:
        for child in sorted(entry.tags):
            yield from _members(child, index)
        return
    yield entry
    if entry.kind is Kind.GROUP:
        yield from _children(entry.cfg or {}, index)


def _children(config: dict[str, Any], index: dict[str, Entry]) -> Iterator[Entry]:
    children = config.get("task")
    for child in children if isinstance(children, list) else []:
        name = child if isinstance(child, str) else child.get("group") or child.get("task")
        if isinstance(name, str) and name in index:
            yield from _members(name, index)
        elif isinstance(child, str):
            raise KeyError(child)
        elif isinstance(child, dict) and "group" in child:  # a group that is defined where it is used
            yield from _children(child, index)


def _content(entry: Entry) -> str:
    """Return the digest of a task's name, and of lm-eval's version if it came with lm-eval."""
    stock = entry.yaml_path is not None and is_stock(entry.yaml_path)
    return digest(entry.name, *(("lm_eval", version("lm_eval")) if stock else ()))


def _check_code(suite: Suite, entry: Entry, allowed: bool) -> bool:
    """Return whether a task or group runs code that did not come with lm-eval.

    Raises:
        SuiteError: It does, and that is not allowed.
    """
    reason = why_code_runs(entry)
    if reason and not allowed:
        raise SuiteError(
            f"suite {suite.name}: task {entry.name} {reason} ({entry.yaml_path}); "
            "read the code, and pass --allow-task-code if you trust it"
        )
    return reason is not None


# ------------------------------------------------------------------------------------------------------------ loading


def _load_entry(
    suite: Suite, entry: TaskEntry, index: TaskManager, runs_code: bool, *, with_torch: bool
) -> tuple[list[LoadedTask], list[Group]]:
    forget_task_modules()
    with seed_generators(with_torch=with_torch):
        try:
            loaded = index.load([entry.task])
        except SuiteError as error:
            raise SuiteError(f"suite {suite.name}: {error}") from error
        except Exception as error:  # loading runs whatever the task's author wrote
            reason = explain_loading(error) or (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SuiteError(f"suite {suite.name}: task {entry.task} cannot be loaded: {reason}") from error
        generators = GlobalGenerators.capture()
    groups = list(loaded["groups"].values())
    group = entry.task if groups else None
    tasks = [LoadedTask(entry, task, group, runs_code, generators) for task in loaded["tasks"].values()]
    for loaded_task in tasks:
        _set_shots(suite, entry, loaded_task.task)
    return tasks, groups


def _set_shots(suite: Suite, entry: TaskEntry, task: Task) -> None:
    if getattr(task, "MULTIMODAL", False):
        raise SuiteError(f"suite {suite.name}: task {task.config.task} needs images or sound; evalsvc scores text")
    fixed = task.get_config("num_fewshot")
    if entry.shots and fixed == 0:
        raise SuiteError(
            f"suite {suite.name}: task {task.config.task} fixes num_fewshot to 0, so lm-eval would ignore "
            f"shots: {entry.shots}; remove shots, or copy the task with another num_fewshot"
        )
    shots = entry.shots if entry.shots is not None else suite.defaults.shots
    if fixed != 0:
        task.set_config("num_fewshot", shots if shots is not None else fixed or 0)


def _refuse_duplicates(suite: Suite, tasks: list[LoadedTask]) -> None:
    seen: dict[str, str] = {}
    for loaded_task in tasks:
        name = loaded_task.task.config.task
        if name in seen:
            raise SuiteError(
                f"suite {suite.name}: task {name} is included twice, by {seen[name]!r} and {loaded_task.entry.task!r}; "
                "remove one of them"
            )
        seen[name] = loaded_task.entry.task
