"""Reads and writes rows by column name, never by position. The only module with INSERT statements."""

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
        source: FROM, JOIN, WHERE and so on; empty for a single row.
        values: Values of the `$name` parameters in the expressions and the source.
        conflict: ON CONFLICT clause, for rows whose key is already in the table.
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
        conflict: ON CONFLICT clause, if its key is already in the table.
    """
    columns = {**{name: f"${name}" for name in values}, **(computed or {})}
    insert(connection, table, columns, values=values, conflict=conflict)


def next_number(table: str, column: str) -> str:
    """Return the SQL expression of the largest number in a column plus 1."""
    return f"(SELECT coalesce(max({column}), 0) + 1 FROM {table})"


def as_table(types: Mapping[str, pa.DataType], records: Sequence[Any], **columns: Sequence[Any]) -> pa.Table:
    """Return records as a table with a column for each type.

    Args:
        types: By column name.
        records: Records with an attribute for each column that is not in `columns`.
        columns: Values of further columns, one per record.
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
    """Insert rows of a table in memory, which `source` refers to as `incoming`; see `insert`."""
    connection.register("incoming", incoming)
    insert(connection, table, columns, source, values=values, conflict=conflict)
    connection.unregister("incoming")
