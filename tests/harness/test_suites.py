"""Suite files: what is wrong is said with file and key."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from evalsvc.errors import SuiteError
from evalsvc.harness.suites import find_suite, load_suite, shipped_suites
from evalsvc.records.vocabulary import Role

HEAD = "name: mine\nrole: general\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "tasks: [a, {task: b, metrik: c}]", r"tasks\[1\].metrik: unknown key"),
        (HEAD + "tasks: [a]\nchat: on", r"chat: unknown key"),
        (HEAD.replace("general", "generl") + "tasks: [a]", r"role: .*'general'.* got 'generl'"),
        (HEAD + "tasks: [a, a]", r"'a' appears 2 times"),
        (HEAD + "tasks: []", r"tasks: "),
        (HEAD, r"tasks: Field required"),
        (HEAD + "tasks: [{task: a, limit: 0}]", r"tasks\[0\].limit: .* got 0"),
        (HEAD + "tasks: [{task: a, weight: .inf}]", r"tasks\[0\].weight: "),
        ("name: ../up\nrole: general\ntasks: [a]", r"name: .* got '../up'"),
        (HEAD + "include: nowhere\ntasks: [a]", r"include: .*nowhere is not a folder"),
        (HEAD + "tasks: [a, {task: b, format_of: c}]", r"'b': format_of 'c' is not among \['a'\]"),
        (HEAD + "chat_template: auto\ntasks: [a]", r"chat_template: is off unless a suite says on"),
        (HEAD + "template_args: {a: 1}\ntasks: [a]", r"template_args: no chat template is applied"),
        (HEAD + "chat_template: on\ntemplate_args: {tokenize: 1}\ntasks: [a]", r"template_args: 'tokenize' is set by"),
        (HEAD + "think_end: ''\ntasks: [a]", r"think_end: must be the text that ends what a model thinks"),
        (HEAD + "tasks: [", r"not valid YAML at line 3"),
        ("- a\n- b", r"contains a list, must be a mapping"),
        ("\x00", r"not valid YAML|cannot be read"),
    ],
)
def test_each_mistake_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SuiteError, match=message) as caught:
        load_suite(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_short_form_and_yaml_booleans(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, HEAD + "chat_template: off\ntasks: [a, {task: b, shots: 5}]"))
    assert suite.chat_template == "off"
    assert load_suite(write(tmp_path, HEAD + "chat_template: on\nthink_end: '7'\ntasks: [a]")).think_end == 7
    assert [(t.task, t.shots) for t in suite.tasks] == [("a", None), ("b", 5)]


def test_the_hash_covers_what_is_said_not_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = load_suite(write(tmp_path / "a", HEAD + "tasks: [a]"))
    two = load_suite(write(tmp_path / "b", "role: general\nname: mine\ntasks:\n- task: a\n"))
    other = load_suite(write(tmp_path / "b", HEAD + "tasks: [{task: a, limit: 5}]"))
    assert one.digest() == two.digest() != other.digest()


def test_includes_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    path = write(tmp_path, HEAD + "include: tasks\ntasks: [a]")
    monkeypatch.chdir("/")
    assert load_suite(path).include == (tmp_path / "tasks",)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(SuiteError, match=r"'nope': neither a file nor a shipped suite \(.*valley"):
        find_suite("nope")


def test_a_missing_file_is_said_to_be_missing() -> None:
    with pytest.raises(SuiteError, match=r"mine.yaml: no such file"):
        find_suite("some/mine.yaml")


def test_shipped_suites_load_and_stand_in_the_folder_of_their_role() -> None:
    found = list(shipped_suites())
    assert {suite.role for suite in found} >= {"domain", "general", "instruction", "drift", "diversity"}
    assert len({suite.name for suite in found}) == len(found)
    assert all(suite.path.parent.name == suite.role and suite.description for suite in found)
    assert all(suite.path.parent.name in get_args(Role) for suite in found)
