"""Base class of reports: JSON object, DataFrame, tables, HTML.

Every JSON object has a key `schema`, and can be read by strict parsers.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evalsvc.records.arms import Checkpoint
from evalsvc.records.comparisons import Missing
from evalsvc.records.serialise import replace_non_finite, to_plain

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
PIPE_WIDTH = 200
"""Width in characters of tables that are not printed to a terminal."""


class Report(ABC):
    """The answer to one question. Subclasses are frozen records.

    Attributes:
        ROWS: Key of `to_dict()` whose entries are the rows of `to_pandas()`.
    """

    ROWS: ClassVar[str]
    __slots__ = ()

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Return the JSON object without `schema`: records by key."""

    @abstractmethod
    def tables(self) -> list[Table | Text]:
        """Return the printed tables and lines."""

    def to_dict(self) -> dict[str, Any]:
        """Return the object that the command prints with --json.

        Infinite and undefined numbers are None, and named in `not_finite`, which is missing where there are none.
        """
        content, replaced = replace_non_finite(to_plain(self.content()))
        return {"schema": SCHEMA, **content, **({"not_finite": replaced} if replaced else {})}

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of `to_pandas()`."""
        entries: list[dict[str, Any]] = self.to_dict()[self.ROWS]
        return entries

    def to_pandas(self) -> pd.DataFrame:
        """Return a DataFrame; fields of nested records become columns such as `cost.gpu_hours`."""
        import pandas as pd  # takes a second to import

        table = pd.json_normalize(self.rows())
        empty = [name for name in table if table[name].isna().all()]
        # A record that some rows lack is a column of its own there, beside those of its fields.
        stray = [name for name in empty if any(other.startswith(f"{name}.") for other in table)]
        return table.astype(dict.fromkeys(empty, float)).drop(columns=stray)

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=PIPE_WIDTH, record=True, highlight=False)
        console.print(*self.tables(), sep="\n")
        return console.export_text()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.rows())} {self.ROWS}>"

    def _repr_html_(self) -> str:
        return "\n".join(_to_html(part) for part in self.tables())


def _to_html(part: Table | Text) -> str:
    """Return a table or a line as HTML; all text in it is escaped."""
    if isinstance(part, Text):
        return f"<p>{_escape(part)}</p>"
    align = [f' style="text-align:{column.justify}"' for column in part.columns]
    head = "".join(_cell("th", column.header, style) for column, style in zip(part.columns, align, strict=True))
    body = []
    for row, *cells in zip(part.rows, *(column.cells for column in part.columns), strict=True):
        bold = ' style="font-weight:bold"' if row.style == "bold" else ""
        body.append(
            f"<tr{bold}>{''.join(_cell('td', cell, style) for cell, style in zip(cells, align, strict=True))}</tr>"
        )
    title = f"<caption>{_escape(part.title)}</caption>" if part.title else ""
    note = f"<p>{_escape(part.caption)}</p>" if part.caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>{note}"


def _cell(tag: str, text: object, style: str) -> str:
    return f"<{tag}{style}>{_escape(text)}</{tag}>"


def _escape(text: object) -> str:
    return escape(str(text)).replace("\n", "<br>")


def describe_missing(missing: Sequence[Missing]) -> str:
    """Return in words which arms are left out, what they lack, and how to score them on newer versions of suites."""
    return "; ".join(
        f"{entry.arm} lacks {', '.join(entry.lacks) or 'scores'}"
        + (
            f" (has scores on another version of {', '.join(entry.outdated)}; run: evalsvc submit {entry.arm})"
            if entry.outdated
            else ""
        )
        for entry in missing
    )


def describe_arm(checkpoint: Checkpoint, label: str | None = None) -> dict[str, Any]:
    """Return the keys that every JSON object has for a checkpoint, or for an arm with another label."""
    return {
        "arm": label or checkpoint.label,
        "checkpoint": checkpoint.path,
        "digest": checkpoint.digest,
        "method": checkpoint.method,
        "step": checkpoint.step,
    }
