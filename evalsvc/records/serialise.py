"""Converts records to plain values, and mappings to records by field name, never by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)


def to_plain(value: Any) -> Any:
    """Return a value as JSON types: records as dicts, arrays and tuples as lists, paths and times as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, PurePath | date) else value


def build_record(kind: type[Record], values: Mapping[str, Any], /, **others: Any) -> Record:
    """Return a record with the values of the same names as its fields, and the `others`.

    Values without a field are ignored.

    Raises:
        TypeError: A field without a default has no value.
    """
    names = {field.name for field in fields(kind)} - set(others)
    return kind(**{name: value for name, value in values.items() if name in names}, **others)
