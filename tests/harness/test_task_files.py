"""Data beside a task: whatever lm-eval accepts, found from the YAML that names it, part of the suite's digest."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from evalsvc.errors import SuiteError
from evalsvc.harness.plan import plan
from evalsvc.harness.suites import Suite, find_changed_files
from evalsvc.harness.tasks import load
from evalsvc.records.plans import Plan, Rendering
from tests.support.tasks import CHOICE

FORMS: dict[str, dict[str, Any]] = {
    "file": {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "rows/test-0.jsonl"}}},
    "pattern": {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "rows/test-*.jsonl"}}},
    "any depth": {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "**/test-*.jsonl"}}},
    "one pattern": {"dataset_path": "json", "dataset_kwargs": {"data_files": "rows/test-*"}, "test_split": "train"},
    "list": {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": ["rows/test-1.jsonl", "rows/test-0.jsonl"]}},
    },
    "folder of files": {"dataset_path": "json", "dataset_kwargs": {"data_dir": "rows"}},
    "files in a folder": {"dataset_path": "json", "dataset_kwargs": {"data_dir": "rows", "data_files": "test-*"}}
    | {"test_split": "train"},
    "dataset folder": {"dataset_path": "rows"},
    "dotted folder": {"dataset_path": "./rows/../rows"},
    "files of a dataset folder": {"dataset_path": "rows", "dataset_kwargs": {"data_files": {"test": "*-1.jsonl"}}},
    "part of a dataset folder": {"dataset_path": "../beside", "dataset_kwargs": {"data_dir": "rows"}},
    "archive": {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "rows.zip"}}},
}


def make_rows(word: str, part: int) -> str:
    rows = [{"query": f"{word} {part} {i}", "choices": ["a", "b"], "gold": i % 2} for i in range(3)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_archive(path: Path, word: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for part in range(2):
            archive.writestr(f"test-{part}.jsonl", make_rows(word, part))


def write_rows(folder: Path) -> None:
    (folder / "rows").mkdir(parents=True)
    write_archive(folder / "rows.zip", folder.name)
    for part in range(2):
        (folder / "rows" / f"test-{part}.jsonl").write_text(make_rows(folder.name, part))


def write_yaml(path: Path, **config: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))


def write_task(path: Path, **config: Any) -> None:
    write_yaml(path, **{"task": "t", "test_split": "test", "metadata": {"version": 1.0}, **CHOICE, **config})


def planned(folder: Path, task: str = "t") -> Plan:
    suite = {"name": "s", "role": "general", "include": [folder], "tasks": [task]}
    return plan(load(Suite.model_validate(suite)), Rendering()).plan


def questions(item: Plan) -> list[list[str]]:
    return [[json.loads(sample.doc)["query"] for sample in task.samples] for task in item.tasks]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data beside a task; another of the same names is where the user happens to be."""
    write_rows(tmp_path / "beside")
    write_rows(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "beside"


@pytest.mark.parametrize("form", FORMS)
def test_every_spelling_is_what_datasets_reads_from_the_yamls_folder(
    folder: Path, form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = FORMS[form]
    write_task(folder / "t.yaml", **config)
    item = planned(folder)
    with monkeypatch.context() as context:
        context.chdir(folder)
        path, kwargs = config["dataset_path"], config.get("dataset_kwargs", {})
        rows = datasets.load_dataset(path, **kwargs, cache_dir=str(tmp_path / "cache"))
    assert questions(item) == [rows[config.get("test_split", "test")]["query"]]
    assert find_changed_files(item.files) is None

    changed = folder / ("rows.zip" if form == "archive" else "rows/test-1.jsonl")
    if form == "file":
        changed = folder / "rows/test-0.jsonl"
    content = changed.read_bytes()
    if form == "archive":
        write_archive(changed, "BESIDE")
    else:
        changed.write_bytes(content.replace(b"beside", b"BESIDE"))
    assert "has changed since it was scored" in str(find_changed_files(item.files))
    again = planned(folder)
    assert again.suite_digest != item.suite_digest
    assert questions(again) != questions(item)
    changed.write_bytes(content)
    assert planned(folder) == item


def test_a_new_file_of_a_pattern_is_a_change(folder: Path) -> None:
    write_task(folder / "t.yaml", **FORMS["pattern"])
    item = planned(folder)
    (folder / "rows" / ".test-9.jsonl.swp").write_text("hidden")
    assert find_changed_files(item.files) is None
    (folder / "rows" / "test-2.jsonl").write_text('{"query": "new", "choices": ["a", "b"], "gold": 0}\n')
    assert "test-*.jsonl has changed" in str(find_changed_files(item.files))
    assert questions(planned(folder))[0][-1] == "new"


@pytest.mark.parametrize("form", ["pattern", "dataset folder"])
def test_data_is_found_from_the_yaml_that_names_it(folder: Path, form: str, tmp_path: Path) -> None:
    """An included YAML in another folder, one that only gives the arguments, and a group's two kinds of overrides."""
    write_task(folder / "base.yaml", task="not_asked", **FORMS[form])
    tasks = tmp_path / "tasks" / "deep"
    include = str(Path("..") / ".." / folder.name / "base.yaml")
    write_yaml(tasks / "t.yaml", include=include, task="t")
    write_task(tasks / "own.yaml", task="own", dataset_path="json", dataset_kwargs={"data_files": {"test": "*.jsonl"}})
    (tasks / "mine.jsonl").write_text('{"query": "mine", "choices": ["a", "b"], "gold": 0}\n')
    whole = [f"beside {part} {i}" for part in range(2) for i in range(3)]
    assert questions(planned(tasks)) == [whole]
    assert str(folder / "base.yaml") in [path for path, _ in planned(tasks).files]

    inline = {"task": "inline", "test_split": "test", **CHOICE, **FORMS[form]}
    nested = {"group": "nested", "task": [{"task": "own", **FORMS[form]}]}
    groups = tmp_path / "groups"
    write_yaml(groups / "a.yaml", group="a", task=[{"task": "own", **FORMS[form]}])
    write_yaml(groups / "b.yaml", group="b", task=["own"], **FORMS[form])
    write_yaml(groups / "c.yaml", group="c", task=[inline])
    write_yaml(groups / "d.yaml", group="d", task=[nested])
    write_yaml(groups / "e.yaml", group="e", task=["own"])
    write_rows(groups / "data")
    (groups / "data" / "rows").rename(groups / "rows")
    for name, suffix in (("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "mine")):
        suite = {"name": "s", "role": "general", "include": [groups, tasks], "tasks": [name]}
        item = plan(load(Suite.model_validate(suite)), Rendering()).plan
        data = [f"data {part} {i}" for part in range(2) for i in range(3)]
        assert questions(item) == [[suffix] if suffix else data], name
        assert str(groups / f"{name}.yaml") in [path for path, _ in item.files]


def test_a_dataset_folder_of_the_current_directory_is_refused(folder: Path) -> None:
    write_task(folder / "tasks" / "t.yaml", dataset_path="rows")
    with pytest.raises(
        SuiteError, match=r"'rows' is a folder in the current directory, but not beside the task's YAML"
    ):
        planned(folder / "tasks")


@pytest.mark.parametrize(
    "reference",
    [
        "!function code.run",
        "!function 'code.run'",
        '!function "code.run"',
        "!<!function> code.run",
        "!function\n      code.run",
    ],
)
def test_consent_is_asked_of_what_yaml_reads_not_of_how_it_is_spelt(folder: Path, reference: str) -> None:
    (folder / "code.py").write_text("open('RAN', 'w').close()\n\ndef run(docs):\n    return docs\n")
    write_task(folder / "t.yaml", **FORMS["file"])
    text = (folder / "t.yaml").read_text()
    (folder / "t.yaml").write_text(f"{text}process_docs: {reference}\n")
    with pytest.raises(SuiteError, match=r"task t runs its own Python code .* --allow-task-code"):
        planned(folder)
    write_yaml(folder / "u.yaml", group="g", task=["t"])
    (folder / "t.yaml").write_text(text)
    (folder / "u.yaml").write_text(f"group: g\ntask:\n- task: t\n  process_docs: {reference}\n")
    with pytest.raises(SuiteError, match="task g runs its own Python code"):
        planned(folder, "g")
    assert not Path("RAN").exists()
    suite = {"name": "s", "role": "general", "include": [folder], "tasks": ["g"]}
    loaded = load(Suite.model_validate(suite), allow_task_code=True)
    assert str(folder / "code.py") in [path for path, _ in loaded.files]


def test_a_function_of_an_installed_module_needs_consent(folder: Path) -> None:
    write_task(folder / "t.yaml", **FORMS["file"])
    text = (folder / "t.yaml").read_text()
    (folder / "t.yaml").write_text(f"{text}doc_to_text: !function os.system\n")
    with pytest.raises(SuiteError, match="runs its own Python code"):
        planned(folder)


def test_a_template_runs_no_code(folder: Path) -> None:
    template = "{{ cycler.__init__.__globals__.os.system('touch RAN') }}{{query}}"
    write_task(folder / "t.yaml", **{**FORMS["file"], "doc_to_text": template})
    with pytest.raises(SuiteError, match=r"access to attribute '__init__' .* is unsafe"):
        planned(folder)
    assert not Path("RAN").exists()
