"""Find, check and load the lm-eval tasks that a suite names.

Three things that lm-eval leaves to its caller are done here, before a request is built: data files are taken
relative to the task's YAML and get a cache of their own per content (`datasets` would serve stale rows when a file
changes but its modification time does not); a task's own Python code runs only if the user allows it; and golds are
checked, because a misspelt gold field raises no error and scores zero.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.task
import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from evalsvc.errors import SuiteError
from evalsvc.harness.suites import Suite, TaskEntry, file_digest
from evalsvc.records.digests import digest
from evalsvc.settings import cache_dir

_FUNCTION = re.compile(r"^[^#\n]*!function\s+([\w./]+)\.\w+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """An lm-eval task with its entry in the suite."""

    entry: TaskEntry
    task: Task
    group: str | None
    runs_code: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSuite:
    """A suite whose tasks are in memory. `digest` covers the suite file, task files, task code and local data.

    Attributes:
        files: Path and digest of each of these files.
    """

    suite: Suite
    tasks: tuple[LoadedTask, ...]
    groups: tuple[Group, ...]
    digest: str
    files: tuple[tuple[str, str], ...]


def load(suite: Suite, *, allow_task_code: bool = False) -> LoadedSuite:
    """Load every task of a suite, with shots and seeds set as `lm_eval.simple_evaluate` sets them.

    Raises:
        SuiteError: A name is unknown, a task cannot be loaded or would run code, or a gold is out of range.
    """
    with quiet():
        index = _index(suite)
        tasks: list[LoadedTask] = []
        groups: list[Group] = []
        content: list[str] = []
        files = {str(suite.path): suite.digest()}
        for entry in suite.tasks:
            code = False
            for leaf in _leaves(entry.task, index.task_index):
                paths = _files(leaf)
                content.append(_content(leaf, paths))
                files |= {str(path): file_digest(path) for path in paths}
                code = _check_code(suite, leaf, allow_task_code) or code
                _resolve_data(leaf)
            loaded, entry_groups = _load_entry(suite, entry, index, code)
            tasks += loaded
            groups += entry_groups
        _refuse_duplicates(suite, tasks)
        for loaded_task in tasks:
            _check_golds(suite, loaded_task.task)
    identity = digest("suite", suite.definition(), *sorted(content))
    return LoadedSuite(
        suite=suite, tasks=tuple(tasks), groups=tuple(groups), digest=identity, files=tuple(files.items())
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Hide lm-eval's and datasets' progress bars and warnings; evalsvc shows its own progress bar."""
    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, lm_eval.api.task.tqdm
    bars = datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = lambda iterable, **_: iterable
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        lm_eval.api.task.tqdm = bar
        if not bars:
            datasets.enable_progress_bars()


# ------------------------------------------------------------------------------------------------------------- index


@cache
def _stock_index() -> dict[str, Entry]:
    """Return the index of lm-eval's own tasks.

    Reading its 14,000 files takes about ten seconds, so the index is cached per installed version.
    """
    home = Path(lm_eval.api.task.__file__).parent.parent
    file = cache_dir() / "lm-eval" / f"{version('lm-eval')}-{digest(str(home))}.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return {name: Entry(name, Kind[kind], _path(path), cfg, set(tags)) for name, kind, path, cfg, tags in known}
    except (OSError, ValueError, KeyError):  # absent or damaged: build it again
        entries = dict(TaskManager().task_index)
    rows = [[e.name, e.kind.name, str(e.yaml_path or ""), e.cfg, sorted(e.tags)] for e in entries.values()]
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(rows), encoding="utf-8")
    unfinished.replace(file)
    return entries


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _index(suite: Suite) -> TaskManager:
    index = TaskManager(include_path=[str(folder) for folder in suite.include], include_defaults=False)
    try:
        for entry in suite.tasks:
            list(_leaves(entry.task, index.task_index))
        return index
    except KeyError:
        pass
    for name, known in _stock_index().items():
        index.task_index.setdefault(name, known)
    for entry in suite.tasks:
        try:
            list(_leaves(entry.task, index.task_index))
        except KeyError as error:
            raise SuiteError(_unknown(suite, str(error.args[0]), index.task_index)) from error
    return index


def _unknown(suite: Suite, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; it is neither in the `include` folders nor in lm-eval"
    return f"suite {suite.name}: unknown task {name!r}{hint}"


def _leaves(name: str, index: dict[str, Entry]) -> Iterator[Entry]:
    """Yield the entries of all tasks behind a name.

    Raises:
        KeyError: With the name that is not in the index.
    """
    entry = index[name]
    if entry.kind is Kind.TAG:
        for child in sorted(entry.tags):
            yield from _leaves(child, index)
    elif entry.kind is Kind.GROUP:
        yield from _members(entry.cfg or {}, index)
    else:
        yield entry


def _members(config: dict[str, Any], index: dict[str, Entry]) -> Iterator[Entry]:
    children = config.get("task")
    for child in children if isinstance(children, list) else []:
        name = child if isinstance(child, str) else child.get("group") or child.get("task")
        if isinstance(name, str) and name in index:
            yield from _leaves(name, index)
        elif isinstance(child, str):
            raise KeyError(child)
        elif isinstance(child, dict) and "group" in child:  # a group that is defined where it is used
            yield from _members(child, index)


# --------------------------------------------------------------------------------------------------- files of a task


def _is_stock(path: Path) -> bool:
    return path.is_relative_to(Path(lm_eval.api.task.__file__).parent.parent)


def _task_files(path: Path) -> Iterator[Path]:
    """Yield a task's YAML, the YAMLs that it includes, and the Python files that these refer to."""
    yield path
    for module in _FUNCTION.findall(path.read_text(encoding="utf-8")):
        code = path.parent / f"{module.replace('.', '/')}.py"
        if code.is_file():
            yield code
    included = load_yaml(path, resolve_func=False, recursive=False).get("include", [])
    for name in included if isinstance(included, list) else [included]:
        yield from _task_files((path.parent / name).resolve())


def _files(entry: Entry) -> list[Path]:
    """Return all local files that a task's prompts and golds depend on."""
    if entry.yaml_path is None or _is_stock(entry.yaml_path):
        return []
    return [*_task_files(entry.yaml_path), *_data_files(_dataset_kwargs(entry))]


def _content(entry: Entry, files: Sequence[Path]) -> str:
    """Return the digest of a task's files, or of its name and lm-eval's version."""
    if entry.yaml_path is None:
        return str(entry.name)
    if _is_stock(entry.yaml_path):
        return digest(entry.name, "lm_eval", version("lm_eval"))
    return digest(entry.name, *(path.read_bytes().decode("utf-8", "surrogateescape") for path in files))


def _check_code(suite: Suite, entry: Entry, allowed: bool) -> bool:
    """Return whether a task runs code that did not come with lm-eval.

    Raises:
        SuiteError: It does, and that is not allowed.
    """
    if entry.yaml_path is None:
        return False
    config = entry.cfg or {}
    if config.get("unsafe_code"):
        reason = "executes code that the model generates"
    elif not _is_stock(entry.yaml_path) and entry.kind is Kind.PY_TASK:
        reason = "is a Python class"
    elif not _is_stock(entry.yaml_path) and any(path.suffix == ".py" for path in _task_files(entry.yaml_path)):
        reason = "runs its own Python code"
    else:
        return False
    if allowed:
        return True
    raise SuiteError(
        f"suite {suite.name}: task {entry.name} {reason} ({entry.yaml_path}); "
        "read the code, and pass --allow-task-code if you trust it"
    )


def _dataset_kwargs(entry: Entry) -> dict[str, Any]:
    """Return the task's `dataset_kwargs` with local paths made absolute, relative to the task's YAML."""
    root = (entry.yaml_path or Path()).parent

    def make_absolute(value: Any) -> Any:
        if isinstance(value, str):
            return value if "://" in value else str((root / value).resolve())
        if isinstance(value, list):
            return [make_absolute(element) for element in value]
        return {key: make_absolute(element) for key, element in value.items()} if isinstance(value, dict) else value

    kwargs = dict((entry.cfg or {}).get("dataset_kwargs") or {})
    return {key: make_absolute(value) if key in {"data_files", "data_dir"} else value for key, value in kwargs.items()}


def _data_files(kwargs: dict[str, Any]) -> list[Path]:
    def flatten(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            for element in value.values() if isinstance(value, dict) else value:
                yield from flatten(element)

    files = [Path(name) for name in flatten(kwargs.get("data_files"))]
    folder = kwargs.get("data_dir")
    files += sorted(path for path in Path(folder).rglob("*") if path.is_file()) if folder else []
    return [path for path in files if path.is_file()]


def _resolve_data(entry: Entry) -> None:
    """Make data paths independent of the current directory, and the cache dependent on the data's content."""
    kwargs = _dataset_kwargs(entry)
    files = _data_files(kwargs)
    if entry.yaml_path is None or not files:
        return
    content = digest(*(path.read_bytes().decode("utf-8", "surrogateescape") for path in files))
    config = load_yaml(entry.yaml_path, resolve_func=True)
    config["dataset_kwargs"] = {**kwargs, "cache_dir": str(cache_dir() / "datasets" / content)}
    entry.cfg, entry.yaml_path = config, None


# ------------------------------------------------------------------------------------------------------------ loading


def _load_entry(
    suite: Suite, entry: TaskEntry, index: TaskManager, runs_code: bool
) -> tuple[list[LoadedTask], list[Group]]:
    # Tasks may use the global random generators while loading; the seeds are those of `simple_evaluate`.
    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(1234)
    try:
        loaded = index.load([entry.task])
    except Exception as error:  # loading runs whatever the task's author wrote
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SuiteError(f"suite {suite.name}: task {entry.task} cannot be loaded: {reason}") from error
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
    groups = list(loaded["groups"].values())
    group = entry.task if groups else None
    tasks = [LoadedTask(entry, task, group, runs_code) for task in loaded["tasks"].values()]
    for loaded_task in tasks:
        _set_shots(suite, entry, loaded_task.task)
    return tasks, groups


def _set_shots(suite: Suite, entry: TaskEntry, task: Task) -> None:
    if getattr(task, "MULTIMODAL", False):
        raise SuiteError(f"suite {suite.name}: task {task.task_name} needs images or sound; evalsvc scores text")
    fixed = task.get_config("num_fewshot")
    if entry.shots and fixed == 0:
        raise SuiteError(
            f"suite {suite.name}: task {task.task_name} fixes num_fewshot to 0, so lm-eval would ignore "
            f"shots: {entry.shots}; remove shots, or copy the task with another num_fewshot"
        )
    shots = entry.shots if entry.shots is not None else suite.defaults.shots
    if fixed != 0:
        task.set_config("num_fewshot", shots if shots is not None else fixed or 0)
    task.set_fewshot_seed(suite.defaults.seed)


def _refuse_duplicates(suite: Suite, tasks: list[LoadedTask]) -> None:
    seen: dict[str, str] = {}
    for loaded_task in tasks:
        name = loaded_task.task.task_name
        if name in seen:
            raise SuiteError(
                f"suite {suite.name}: task {name} is included twice, by {seen[name]!r} and {loaded_task.entry.task!r}; "
                "remove one of them"
            )
        seen[name] = loaded_task.entry.task


# -------------------------------------------------------------------------------------------------------------- golds


def _check_golds(suite: Suite, task: Task) -> None:
    """Refuse a task whose golds cannot be right.

    Raises:
        SuiteError: A document's gold is not one of its choices, or doc_to_target names no field; the message names it.
    """
    if not isinstance(task, ConfigurableTask) or task.config.process_results is not None:
        return
    where = f"suite {suite.name}: task {task.task_name}"
    named = task.config.doc_to_target
    if task.OUTPUT_TYPE != "multiple_choice":
        if isinstance(named, str) and re.fullmatch(r"[A-Za-z_]\w*", named) and named not in task.features:
            raise SuiteError(
                f"{where}: doc_to_target {named!r} is not a field of its data (fields: {', '.join(task.features)}), "
                "so every document would have this word as its gold"
            )
        return
    gold_of: Callable[[Any], Any] = task.doc_to_text if task.multiple_input else task.doc_to_target
    for doc_id, doc in enumerate(task.eval_docs):
        choices, gold = task.doc_to_choice(doc), gold_of(doc)
        for answer in gold if isinstance(gold, list) else [gold]:
            if isinstance(answer, str) and answer not in choices:
                raise SuiteError(f"{where}: document {doc_id}: gold {answer!r} is not among its choices {choices!r}")
            if isinstance(answer, int) and not 0 <= answer < len(choices):
                raise SuiteError(
                    f"{where}: document {doc_id}: gold {answer} is out of range for {len(choices)} choices"
                )
