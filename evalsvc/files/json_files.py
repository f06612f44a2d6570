"""The only reader of JSON: size, depth and numbers have limits, and what is wrong is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalsvc.errors import EvalsvcError, UsageError
from evalsvc.files.bounded import read_bounded

MOST_BYTES_OF_SETTINGS = 256 << 20
"""Largest file of settings; a tokenizer's takes some ten megabytes."""
_DEEPEST = 200
"""Levels of objects and lists within each other in a file of settings."""


def read_json(path: Path, noun: str = "", error_type: type[EvalsvcError] = UsageError) -> Any:
    """Return the content of a JSON file of any size, gzipped or not, whatever it is called.

    Args:
        noun: Beginning of error messages; the path if it is empty.

    Raises:
        EvalsvcError: Of type `error_type`: the file cannot be read, or is not JSON.
    """
    noun = noun or str(path)
    return _parse(_decode(read_bounded(path, noun, error_type), noun, error_type), noun, error_type)


def read_object(path: Path, error_type: type[EvalsvcError], noun: str = "") -> dict[str, Any]:
    """Return the JSON object in a file of settings.

    Raises:
        EvalsvcError: Of type `error_type`: the file cannot be read, is not JSON, is nested too deeply, or no object.
    """
    noun = noun or str(path)
    return parse_object(read_bounded(path, noun, error_type, MOST_BYTES_OF_SETTINGS), noun, error_type)


def parse_object(data: bytes, noun: str, error_type: type[EvalsvcError]) -> dict[str, Any]:
    """Return the JSON object that bytes contain.

    Raises:
        EvalsvcError: Of type `error_type`: they are not JSON, are nested too deeply, or no object.
    """
    value = _parse(_decode(data, noun, error_type), noun, error_type)
    if not isinstance(value, dict):
        raise error_type(f"{noun}: contains a {type(value).__name__}, must be a JSON object")
    _check_depth(value, noun, error_type)
    return value


def read_json_or_lines(path: Path) -> Any:
    """Return the content of a JSON file, or of JSON lines as a list.

    Raises:
        UsageError: The file cannot be read, or a line is not JSON.
    """
    text = _decode(read_bounded(path, str(path), UsageError), str(path), UsageError)
    try:
        return json.loads(text, parse_int=_parse_int)
    except (ValueError, RecursionError):
        lines = text.split("\n")
    return [
        _parse(line, f"{path}: line {number}", UsageError) for number, line in enumerate(lines, start=1) if line.strip()
    ]


def _decode(data: bytes, noun: str, error_type: type[EvalsvcError]) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise error_type(f"{noun}: is not UTF-8 text ({error.reason} at byte {error.start:,})") from error


def _parse(text: str, noun: str, error_type: type[EvalsvcError]) -> Any:
    try:
        return json.loads(text, parse_int=_parse_int)
    except ValueError as error:
        raise error_type(f"{noun}: is not valid JSON ({error})") from error
    except RecursionError as error:
        raise error_type(f"{noun}: is nested too deeply") from error


def _parse_int(digits: str) -> int:
    """Return a whole number; tokenizers have one of 31 digits, and one of over 300 fails as a floating-point number."""
    if len(digits) > 300:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return int(digits)


def _check_depth(value: Any, noun: str, error_type: type[EvalsvcError]) -> None:
    """Refuse what is nested so deeply that reading it again would fail."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise error_type(f"{noun}: is nested too deeply, in more than {_DEEPEST} levels")
