"""Suite files: YAML in, checked `Suite` out; it never loads a task.

`docs/pages/reference/suite.md` describes the keys of a suite file. Whether tasks, metrics and filters exist is checked
by `tasks` and `plan`, because only lm-eval knows.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from evalsvc.errors import SuiteError
from evalsvc.files.yaml_files import Strict, first_problem, read_yaml
from evalsvc.records.digests import canonical, digest
from evalsvc.records.vocabulary import Role
from evalsvc.settings import shared_dir

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


_TAKEN = frozenset({"conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize"})
"""Arguments of transformers' `apply_chat_template` that are no switches of a template."""


class TaskEntry(Strict):
    """One line of a suite: an lm-eval task, group or tag, with overrides of its defaults."""

    task: str = Field(min_length=1)
    shots: int | None = Field(default=None, ge=0)
    metric: str | None = None
    filter: str | None = None
    limit: int | None = Field(default=None, ge=1)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    chance: float | None = Field(default=None, ge=0, lt=1)
    cluster: str | None = Field(default=None, min_length=1)
    format_of: str | None = Field(default=None, min_length=1)


class Defaults(Strict):
    """Settings of every task of a suite that does not override them."""

    shots: int | None = Field(default=None, ge=0)
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=1234, ge=0)


class Suite(Strict):
    """A named list of tasks with one role."""

    name: Name
    role: Role
    description: str = ""
    include: tuple[Path, ...] = ()
    defaults: Defaults = Defaults()
    chat_template: Literal["off", "on"] = "off"
    template_args: dict[str, Any] = Field(default_factory=dict)
    think_end: str | int | None = None
    system_prompt: str | None = None
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    path: Path = Field(default=Path(), exclude=True)

    @field_validator("include", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("chat_template", mode="before")
    @classmethod
    def _yaml_bool(cls, value: Any) -> Any:
        # YAML 1.1 reads the words on and off as booleans.
        if value == "auto":
            raise ValueError("is off unless a suite says on, as in lm-eval; remove it, or set chat_template: on")
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("think_end")
    @classmethod
    def _is_a_token(cls, value: Any) -> Any:
        if value == "" or (isinstance(value, int) and value < 0):
            raise ValueError("must be the text that ends what a model thinks, or the id of its token")
        return int(value) if isinstance(value, str) and value.isdecimal() else value  # as lm-eval reads it

    @field_validator("tasks", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return [{"task": v} if isinstance(v, str) else v for v in value] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _template_args_reach_a_template(self) -> Suite:
        if self.template_args and self.chat_template == "off":
            raise ValueError("template_args: no chat template is applied; set chat_template: on")
        if taken := sorted(_TAKEN & self.template_args.keys()):
            raise ValueError(f"template_args: {taken[0]!r} is set by evalsvc; remove it")
        return self

    @model_validator(mode="after")
    def _no_duplicates(self) -> Suite:
        names = [entry.task for entry in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"tasks: {name!r} appears {names.count(name)} times; name each task once per suite")
        return self

    @model_validator(mode="after")
    def _formats_have_an_original(self) -> Suite:
        originals = {entry.task for entry in self.tasks if entry.format_of is None}
        for entry in self.tasks:
            if entry.format_of is not None and entry.format_of not in originals:
                raise ValueError(
                    f"tasks: {entry.task!r}: format_of {entry.format_of!r} is not among {sorted(originals)}; "
                    "name the task of this suite whose items it repeats in another prompt format"
                )
        return self

    def definition(self) -> str:
        """Return the canonical JSON of the file's content, without local folders.

        What 0.1.0 did not know counts only where it is set, so that the suites that it scored have not changed.
        """
        content = self.model_dump(mode="json", exclude={"include"})
        added = [name for name in ("template_args", "think_end") if content[name] in ({}, None)]
        if self.chat_template == "off":
            content["chat_template"] = "auto"  # 0.1.0's name of its default
        return canonical({name: value for name, value in content.items() if name not in added})

    def digest(self) -> str:
        """Return the digest of `definition`; `harness` adds the tasks' own content."""
        return digest("suite", self.definition())


def load_suite(path: Path) -> Suite:
    """Read one suite file.

    Raises:
        SuiteError: It cannot be read, is not YAML, or breaks a rule; the message names file and key.
    """
    data = read_yaml(path, "suite", SuiteError)
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        raise SuiteError(f"suite {path}: {first_problem(error)}") from error
    folders = tuple((path.parent / folder).resolve() for folder in suite.include)
    for folder in folders:
        if not folder.is_dir():
            raise SuiteError(f"suite {path}: include: {folder} is not a folder; give it relative to the suite file")
    return suite.model_copy(update={"include": folders, "path": path.resolve()})


def find_suite(name: str) -> Suite:
    """Return the suite in the file `name`, else the shipped suite of that name.

    Raises:
        SuiteError: Neither exists; the message lists the shipped names.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise SuiteError(f"suite {name}: no such file")
        return load_suite(path)
    shipped = {suite.name: suite for suite in shipped_suites()}
    if name not in shipped:
        near = difflib.get_close_matches(name, shipped, n=1)
        hint = f"did you mean {near[0]}?" if near else "name a suite of your own by its file"
        raise SuiteError(f"suite {name!r}: neither a file nor a shipped suite ({', '.join(sorted(shipped))}); {hint}")
    return shipped[name]


def shipped_suites() -> Iterator[Suite]:
    """Yield the suites that come with evalsvc, by role and name."""
    root = shared_dir("suites")
    for role in get_args(Role):
        for path in sorted((root / role).glob("*.yaml")):
            yield load_suite(path)


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def content_digest(location: str) -> str | None:
    """Return the digest of what is at a place: a file, a folder with all its files, or the files of a pattern.

    Names count relative to the place, and hidden files do not count. None if nothing is there.
    """
    path = Path(location)
    if path.is_file():
        return file_digest(path)
    parts = (*path.parts, "**") if path.is_dir() else path.parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    root = Path(*parts[:fixed])
    # Path.glob would also find hidden files, and refuses some patterns that `datasets` accepts.
    names = glob.glob("/".join(parts[fixed:]), root_dir=root, recursive=True)  # noqa: PTH207
    files = sorted(name for name in set(names) if (root / name).is_file())
    return digest("files", *(part for name in files for part in (name, file_digest(root / name)))) if files else None


def find_changed_files(files: Sequence[tuple[str, str]]) -> str | None:
    """Return which of a planned suite's files has changed, as a sentence; None if none has. Absent files are skipped.

    Args:
        files: Path, or pattern of paths, and digest of each; the first is the suite file, which is compared by
            `Suite.digest`.
    """
    for number, (name, stored) in enumerate(files):
        try:
            now = content_digest(name) if number else _suite_file_digest(Path(name))
        except SuiteError as error:
            return str(error)
        if now is not None and now != stored:
            return f"{name} has changed since it was scored (stored {stored}, on disk {now})"
    return None


def _suite_file_digest(path: Path) -> str | None:
    return load_suite(path).digest() if path.is_file() else None
