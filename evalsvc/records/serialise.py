"""Converts records to plain values, and mappings to records by field name, never by position."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)


INTERNAL: Mapping[str, bool] = MappingProxyType({"internal": True})
"""Metadata of a field that is not written: what a record was computed from."""


def to_plain(value: Any) -> Any:
    """Return a value as JSON types: records as dicts, arrays and tuples as lists, paths and times as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value) if "internal" not in f.metadata}
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, PurePath | date) else value


def replace_non_finite(value: Any, path: str = "") -> tuple[Any, dict[str, str]]:
    """Return a plain value with None for infinite and undefined numbers, which JSON does not have.

    Returns:
        The value; and the numbers that were replaced, as text by their path in it: {"tasks[0].high": "inf"}.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None, {path: str(value)}
    if isinstance(value, dict):
        parts = {key: replace_non_finite(part, f"{path}.{key}" if path else str(key)) for key, part in value.items()}
        return {key: part for key, (part, _) in parts.items()}, _join(replaced for _, replaced in parts.values())
    if isinstance(value, list):
        entries = [replace_non_finite(entry, f"{path}[{i}]") for i, entry in enumerate(value)]
        return [entry for entry, _ in entries], _join(replaced for _, replaced in entries)
    return value, {}


def _join(parts: Iterable[dict[str, str]]) -> dict[str, str]:
    return {path: text for part in parts for path, text in part.items()}


def build_record(kind: type[Record], values: Mapping[str, Any], /, **others: Any) -> Record:
    """Return a record with the values of the same names as its fields, and the `others`.

    Values without a field are ignored.

    Raises:
        TypeError: A field without a default has no value.
    """
    names = {field.name for field in fields(kind)} - set(others)
    return kind(**{name: value for name, value in values.items() if name in names}, **others)
