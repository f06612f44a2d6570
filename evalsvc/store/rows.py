"""Rows of the database, read and written by column name, never by place. The only place that writes INSERT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from evalsvc.store.database import Connection

Row = dict[str, Any]
"""One row, by column name."""

NOW = "now()::TIMESTAMP"


def fetch_rows(cursor: Connection) -> list[Row]:
    """Return the rows of a query, each by column name."""
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def fetch_row(cursor: Connection) -> Row | None:
    """Return the first row of a query by column name, None if there is none."""
    rows = fetch_rows(cursor)
    return rows[0] if rows else None


def insert(
    connection: Connection,
    table: str,
    columns: Mapping[str, str],
    source: str = "",
    *,
    values: Mapping[str, Any] | None = None,
    conflict: str = "",
) -> None:
    """Insert the rows of a query.

    Args:
        columns: SQL expression of each column, by column name.
        source: FROM, JOIN, WHERE and so on; none for a single row.
        values: Values of the `$name` parameters in the expressions and the source.
        conflict: What happens to rows whose key is in the table (ON CONFLICT ...).
    """
    connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} {source} {conflict}",
        dict(values or {}),
    )


def insert_row(
    connection: Connection,
    table: str,
    values: Mapping[str, Any],
    computed: Mapping[str, str] | None = None,
    conflict: str = "",
) -> None:
    """Insert one row.

    Args:
        values: By column name.
        computed: SQL expressions by column name.
        conflict: What happens if its key is in the table (ON CONFLICT ...).
    """
    columns = {**{name: f"${name}" for name in values}, **(computed or {})}
    insert(connection, table, columns, values=values, conflict=conflict)


def next_number(table: str, column: str) -> str:
    """Return the SQL of the number that comes after the largest in a column."""
    return f"(SELECT coalesce(max({column}), 0) + 1 FROM {table})"


def as_table(types: Mapping[str, pa.DataType], records: Sequence[Any], **columns: Sequence[Any]) -> pa.Table:
    """Return records as a table with a column for each type.

    Args:
        types: By column name.
        records: Have an attribute for each column that is not among `columns`.
        columns: Values of columns, one per record.
    """
    values = {
        name: columns[name] if name in columns else [getattr(record, name) for record in records] for name in types
    }
    return pa.table({name: pa.array(values[name], kind) for name, kind in types.items()})


def insert_table(
    connection: Connection,
    incoming: pa.Table,
    table: str,
    columns: Mapping[str, str],
    source: str = "FROM incoming i",
    *,
    values: Mapping[str, Any] | None = None,
    conflict: str = "",
) -> None:
    """Insert rows of a table in memory, which the source calls `incoming`; see `insert`."""
    connection.register("incoming", incoming)
    insert(connection, table, columns, source, values=values, conflict=conflict)
    connection.unregister("incoming")
