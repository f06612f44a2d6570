"""JSON and JSON lines, gzipped or not, whatever a file is called."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from evalsvc.errors import UsageError


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UsageError: The file cannot be read, or is not JSON.
    """
    try:
        return json.loads(_read_text(path))
    except ValueError as error:
        raise UsageError(f"{path}: is not valid JSON ({error})") from error


def read_json_or_lines(path: Path) -> Any:
    """Read JSON, or JSON lines as a list.

    Raises:
        UsageError: The file cannot be read, or a line is not JSON.
    """
    text = _read_text(path)
    try:
        return json.loads(text)
    except ValueError:
        values = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise UsageError(f"{path}: line {number} is not valid JSON ({error})") from error
    return values


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
