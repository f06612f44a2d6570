"""The only reader of YAML, with limits, and pydantic models that refuse unknown keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from evalsvc.errors import UsageError
from evalsvc.files.bounded import read_bounded


class Strict(BaseModel):
    """The content of a file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_yaml(path: Path, noun: str, error_type: type[UsageError]) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Args:
        noun: Name of the kind of file in error messages: "suite", "policy".

    Raises:
        UsageError: Of type `error_type`: the file cannot be read, is not YAML, is not a mapping, names a key twice, or
            is larger, more deeply nested or more repetitive than anybody writes.
    """
    where = f"{noun} {path}"
    text = read_bounded(path, where, error_type, _MOST_BYTES)
    try:
        loader = _Plain(text)
        node = loader.get_single_node()
        if node is not None:
            _check_nodes(node)
        data = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise error_type(f"{where}: {_describe_fault(error)}") from error
    except ValueError as error:  # such as the 30th of February
        raise error_type(f"{where}: {error}") from error
    except RecursionError as error:
        raise error_type(f"{where}: is nested too deeply") from error
    if data is None:
        raise error_type(f"{where}: is empty, must be a mapping of keys to values")
    if not isinstance(data, dict):
        raise error_type(f"{where}: contains a {type(data).__name__}, must be a mapping of keys to values")
    return data


_MOST_BYTES = 4 << 20
"""Largest YAML file."""
_MOST_NODES = 100_000
"""Values in a YAML file, those counted again that it refers to by an alias."""


class _Plain(yaml.SafeLoader):
    """A safe loader that says where a scalar has no value, such as a date that does not exist."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Return the value of a node."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            raise ValueError(f"line {node.start_mark.line + 1}: {node.value!r}: {error}") from error


def _check_nodes(root: yaml.Node) -> None:
    """Refuse what grows when it is read, and keys that are named twice, of which YAML takes the last.

    Raises:
        ValueError: In words, with the line.
    """
    counts: dict[int, int] = {}
    opened: set[int] = set()
    stack: list[tuple[yaml.Node, bool]] = [(root, False)]
    while stack:
        node, is_done = stack.pop()
        children = _list_children(node)
        if is_done:
            opened.discard(id(node))
            counts[id(node)] = 1 + sum(counts[id(child)] for child in children)
            if counts[id(node)] > _MOST_NODES:
                raise ValueError(f"line {node.start_mark.line + 1}: its aliases stand for over {_MOST_NODES:,} values")
        elif id(node) not in counts:
            if id(node) in opened:
                raise ValueError(f"line {node.start_mark.line + 1}: contains itself")
            opened.add(id(node))
            _check_keys(node)
            stack += [(node, True), *((child, False) for child in children)]


def _list_children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_keys(node: yaml.Node) -> None:
    seen: set[str] = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: key {key.value!r} appears twice; keep one of them")
            seen.add(key.value)


def _describe_fault(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" at line {mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"not valid YAML{where}: {problem}"


class _AnyTag(yaml.SafeLoader):
    """Reads tags such as lm-eval's !function as nothing."""


_AnyTag.add_multi_constructor("!", lambda *_: None)


def find_fault(path: Path) -> str | None:
    """Return why a file with any tags is not YAML, in words; None if it is."""
    try:
        yaml.load(path.read_bytes(), Loader=_AnyTag)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        return _describe_fault(error)
    return None


def find_tagged(path: Path, tag: str) -> list[str]:
    """Return the scalar values in a YAML file that carry a tag, as YAML reads it, however it is written.

    A file that is not YAML has none.
    """
    values: list[str] = []
    seen: set[int] = set()
    try:
        nodes: list[Any] = [yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)]
    except yaml.YAMLError:
        return []
    while nodes:
        node = nodes.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            values += [node.value] if node.tag == tag else []
        else:
            children = node.value if isinstance(node, yaml.SequenceNode) else [n for pair in node.value for n in pair]
            nodes += reversed(children)
    return values


_SHAPES = {
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type"), "a mapping"),
    "string_type": "text, in quotes if it looks like a number",
}
"""What a YAML file calls the types that pydantic names as Python does."""


def first_problem(error: ValidationError, manual: str = "docs/pages/reference/suite.md for the keys of a suite") -> str:
    """Return the first validation error as one line: key, rule and value. Unknown keys come first: most are misspelt.

    Args:
        manual: Reference to the documentation of the keys.
    """
    errors = sorted(error.errors(include_url=False), key=lambda entry: entry["type"] != "extra_forbidden")
    first = errors[0]
    places = [_name_place(e["loc"]) for e in errors]
    where, message = places[0], first["msg"].removeprefix("Value error, ")
    if shape := _SHAPES.get(first["type"]):
        message = f"must be {shape}"
    if first["type"] == "extra_forbidden":
        missing = {
            str(e["loc"][-1]): place
            for e, place in zip(errors, places, strict=True)
            if e["type"] == "missing" and e["loc"][:-1] == first["loc"][:-1]
        }
        near = difflib.get_close_matches(str(first["loc"][-1]), missing, n=1)
        message = f"unknown key; did you mean {near[0]}?" if near else f"unknown key; see {manual}"
        places = [place for place in places if not near or place != missing[near[0]]]
    elif first["type"] != "missing" and where and not isinstance(first["input"], dict | list):
        message = f"{message}, got {first['input']!r}"
    whole = {place for place in places if any(inner.startswith((f"{place}[", f"{place}.")) for inner in places)}
    also = ", ".join(dict.fromkeys(place for place in places if place not in {"", where, *whole}))
    return f"{where + ': ' if where else ''}{message}{f' (also wrong: {also})' if also else ''}"


def _name_place(keys: Iterable[int | str]) -> str:
    """Return the place of a value in a file, such as `retention[0].margin`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
