"""The files behind a task: its YAMLs, its Python code, and the data beside it.

lm-eval takes data from the current directory. Here, whatever a YAML names is found from that YAML's folder: data of the
task's own YAML, of one that it includes, and of a group that overrides it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval.api.task
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from evalsvc.errors import SuiteError
from evalsvc.files.yaml_files import find_tagged
from evalsvc.harness.suites import content_digest
from evalsvc.records.digests import digest
from evalsvc.settings import cache_dir

_FUNCTION = "!function"


def is_stock(path: Path) -> bool:
    """Whether a file came with lm-eval."""
    return path.is_relative_to(Path(lm_eval.api.task.__file__).parent.parent)


def find_yaml_files(path: Path) -> Iterator[Path]:
    """Yield a task's YAML and the YAMLs that it includes."""
    yield path
    for name in _list_included(load_yaml(path, resolve_func=False, recursive=False)):
        yield from find_yaml_files((path.parent / name).resolve())


def _list_included(config: Mapping[str, Any]) -> list[str]:
    names = config.get("include", [])
    return names if isinstance(names, list) else [names]


def find_local_files(entry: Entry) -> list[Path]:
    """Return the YAMLs and the Python files of a task or group that did not come with lm-eval."""
    if entry.yaml_path is None:
        return []
    files = []
    for path in find_yaml_files(entry.yaml_path):
        files.append(path)
        for reference in find_tagged(path, _FUNCTION):
            module = reference.rpartition(".")[0].replace(".", "/")
            code = (path.parent / f"{module}.py").resolve()
            files += [code] if code.is_file() else []
    return [path for path in dict.fromkeys(files) if not is_stock(path)]


def why_code_runs(entry: Entry) -> str | None:
    """Return how a task or group runs code that did not come with lm-eval; None if it runs none."""
    if entry.yaml_path is None:
        return None
    config = load_yaml(entry.yaml_path, resolve_func=False) if entry.cfg is None else entry.cfg
    members = config.get("task")
    overrides = [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []
    if any(part.get("unsafe_code") for part in (config, *overrides)):
        return "executes code that the model generates"
    own = [path for path in find_yaml_files(entry.yaml_path) if not is_stock(path)]
    if not any(find_tagged(path, _FUNCTION) for path in own):
        return None
    return "is a Python class" if entry.kind is Kind.PY_TASK else "runs its own Python code"


def has_functions(entry: Entry) -> bool:
    """Whether a task or group runs Python code, of lm-eval or of its own."""
    return entry.yaml_path is not None and any(
        find_tagged(path, _FUNCTION) for path in find_yaml_files(entry.yaml_path)
    )


# ------------------------------------------------------------------------------------------------------------- data


class _Path(str):
    """A `dataset_path`, with the folder of the YAML that names it."""

    folder: Path


class _Arguments(dict[str, Any]):
    """`dataset_kwargs`, with the folder of the YAML that names them."""

    folder: Path


class LocalDataFactory(TaskFactory):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's factory of tasks, with data that is found from the YAML that names it and cached by its content.

    `datasets` would serve stale rows when a file changes but its modification time does not.

    Attributes:
        locations: Files, folders and patterns of the local data of the tasks that it has built.
        shots: Few-shot examples that the tasks get instead of their own number of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.locations: list[str] = []
        self.shots: int | None = None

    def _load_full_config(self, entry: Entry, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        if entry.yaml_path is not None and not is_stock(entry.yaml_path):
            own = {
                key: folder for key, folder in _find_folders(entry.yaml_path).items() if key not in (overrides or {})
            }
            _mark(config, own)
        return config if entry.kind is Kind.GROUP else self._leave_out_examples(self._resolve(config))

    def _build_group_members(
        self,
        member_list: list[str | dict[str, Any]],
        group_name: str,
        overrides: dict[str, Any] | None,
        registry: dict[str, Entry],
    ) -> Any:
        members = [
            self._leave_out_examples(self._resolve({**(overrides or {}), **member}))
            if isinstance(member, dict) and "group" not in member and member.get("task") not in registry
            else member
            for member in member_list
        ]
        return super()._build_group_members(members, group_name, overrides, registry)

    def _leave_out_examples(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a configuration that takes no few-shot examples from data if none are shown.

        lm-eval would read all of a training split. Functions are called all the same: they may draw at random.
        """
        own, examples = config.get("num_fewshot"), config.get("fewshot_config") or {}
        shots = own if self.shots is None or own == 0 else self.shots
        if shots or "class" in config or "process_docs" in config or any(map(callable, examples.values())):
            return config
        return {**config, "fewshot_config": {**examples, "split": None, "samples": []}}

    def _resolve(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a task's configuration with absolute paths of its local data."""
        name, arguments = config.get("dataset_path"), config.get("dataset_kwargs")
        if not isinstance(name, _Path) and not isinstance(arguments, _Arguments):
            return config
        path, arguments, locations = _locate(config["task"], name, arguments)
        contents = [content for location in locations if (content := content_digest(location))]
        if contents:
            arguments = {**arguments, "cache_dir": str(cache_dir() / "datasets" / digest(*contents))}
        self.locations += locations
        return {**config, "dataset_path": path, "dataset_kwargs": arguments or None}


def _find_folders(path: Path) -> dict[str, Path]:
    """Return the folder of the YAML that gives each key its value."""
    config = load_yaml(path, resolve_func=False, recursive=False)
    folders: dict[str, Path] = {}
    for name in _list_included(config):
        folders |= _find_folders((path.parent / name).resolve())
    return folders | dict.fromkeys(config, path.parent)


def _mark(config: dict[str, Any], folders: Mapping[str, Path]) -> None:
    """Note in a configuration, and in a group's own overrides of its tasks, which folder its data is found from."""
    for key, mark in (("dataset_path", _Path), ("dataset_kwargs", _Arguments)):
        value = config.get(key)
        if value is not None and key in folders and not isinstance(value, _Path | _Arguments):
            config[key] = mark(value)
            config[key].folder = folders[key]
    members = config.get("task")
    for member in members if isinstance(members, list) else []:
        if isinstance(member, dict):
            _mark(member, dict.fromkeys(member, folders.get("task", Path())))


def _locate(task: str, name: Any, arguments: Any) -> tuple[str | None, dict[str, Any], list[str]]:
    """Return a task's `dataset_path` and `dataset_kwargs` with absolute paths, and where its local data is.

    Raises:
        SuiteError: The dataset is a folder in the current directory, not beside the YAML.
    """
    folder: Path = arguments.folder if isinstance(arguments, _Arguments) else name.folder
    kwargs = dict(arguments or {})
    path = None if name is None else str(name)
    if path is not None and path not in _PACKAGED_DATASETS_MODULES:
        beside = Path(os.path.normpath(getattr(name, "folder", folder) / path))
        if not isinstance(name, _Path) or not beside.is_dir():
            if isinstance(name, _Path) and Path(path).is_dir():
                raise SuiteError(
                    f"task {task}: dataset_path {path!r} is a folder in the current directory, but not beside the "
                    f"task's YAML ({beside}); give it relative to the YAML"
                )
            return path, kwargs, []  # a dataset of the Hub, whose data_files are its own
        root = beside / (kwargs.get("data_dir") or "")  # which `datasets` takes from the dataset's folder
        return str(beside), kwargs, [str(beside), *_flatten(_make_absolute(kwargs.get("data_files"), root))]
    files, data_dir = kwargs.get("data_files"), kwargs.get("data_dir")
    if path is not None and files is None and data_dir is None:
        data_dir = "."  # `datasets` takes all files of the current directory
    if data_dir is not None:
        folder = Path(os.path.normpath(folder / data_dir))
        kwargs["data_dir"] = str(folder)
    if files is None:
        return path, kwargs, [] if data_dir is None else [str(folder)]
    kwargs["data_files"] = _make_absolute(files, folder)
    return path, kwargs, _flatten(kwargs["data_files"])


def _make_absolute(value: Any, folder: Path) -> Any:
    """Return `data_files`, in whichever of `datasets`' forms, with absolute paths; addresses stay as they are."""
    if isinstance(value, str):
        inside, separator, file = value.rpartition("::")  # zip://rows.jsonl::archive.zip
        return value if "://" in file else f"{inside}{separator}{os.path.normpath(folder / file)}"
    if isinstance(value, Mapping):
        return {key: _make_absolute(element, folder) for key, element in value.items()}
    return [_make_absolute(element, folder) for element in value] if isinstance(value, Sequence) else value


def _flatten(value: Any) -> list[str]:
    """Return the local files and patterns in `data_files`."""
    if isinstance(value, str):
        file = value.rpartition("::")[2].removeprefix("file://")
        return [] if "://" in file else [file]
    elements = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return [file for element in elements for file in _flatten(element)]
