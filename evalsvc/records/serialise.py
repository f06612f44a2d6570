"""Records as JSON-ready dicts, and records from mappings: fields are found by their names, never by their places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)


def as_dict(record: Any) -> dict[str, Any]:
    """Return a record as a JSON-ready dict, arrays as lists."""

    def plain(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in items}

    return asdict(record, dict_factory=plain)


def build_record(kind: type[Record], values: Mapping[str, Any], /, **others: Any) -> Record:
    """Return a record whose fields are the values of the same names, and the `others`.

    Values that the record has no field for are ignored.

    Raises:
        TypeError: A field without a default has no value.
    """
    names = {field.name for field in fields(kind)} - set(others)
    return kind(**{name: value for name, value in values.items() if name in names}, **others)
