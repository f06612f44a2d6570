"""Rows of the database as records: columns are found by their names, never by their places."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from evalsvc.store.database import Connection

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)

Row = dict[str, Any]
"""One row, by column name."""


def fetch_rows(cursor: Connection) -> list[Row]:
    """Return what a query found, each row by column name."""
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def build_record(kind: type[Record], row: Row, **others: Any) -> Record:
    """Return a record whose fields are the row's columns of the same names, and the `others`.

    Columns that the record has no field for are passed over.
    """
    names = {field.name for field in fields(kind)} - set(others)
    return kind(**{name: value for name, value in row.items() if name in names}, **others)
