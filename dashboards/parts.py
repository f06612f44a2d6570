"""Functions that several pages use. Text from data is escaped with `plain` before Streamlit renders it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import stored
import streamlit as st

from evalsvc.charts.style import CONFIG, prepare_for_screen
from evalsvc.errors import EvalsvcError

Row = TypeVar("Row")

SIGNED = st.column_config.NumberColumn(format="%+.3f")
LEVEL = st.column_config.NumberColumn(format="%.3f")
SHARE = st.column_config.NumberColumn(format="percent")


def plain(text: object) -> str:
    """Escape a text for Streamlit's Markdown: names are not rendered as images, links, icons or colours."""
    return re.sub(r"([\\`*_{}\[\]()#!|~<>$@])", r"\\\1", str(text)).replace(":", ":\u200b")


@contextmanager
def stop_on_error() -> Iterator[None]:
    """Show an evalsvc error instead of the rest of the page."""
    try:
        yield
    except EvalsvcError as error:
        st.error(re.sub(r"([\\*_{}\[\]#!|~<>$])", r"\\\1", str(error)))
        st.stop()


def base_of(state: stored.State) -> str:
    """Let the user choose a base, stored in the URL as `base`; if there is none, show how to start, and stop."""
    known = list(stored.families(state))
    if not known:
        st.info("The store has no adapted checkpoint yet. Start with `evalsvc demo`, or with:")
        st.code("evalsvc submit CHECKPOINT --base BASE --suite clinic --suite valley", language="shell")
        st.stop()
    return str(st.selectbox("Base", known, key="base", bind="query-params"))


def figure(drawn: Any, key: str, **options: Any) -> Any:
    """Show a figure at full width; its camera button saves an SVG."""
    drawn = prepare_for_screen(drawn, selects="on_select" in options)
    return st.plotly_chart(drawn, width="stretch", theme=None, key=key, config=CONFIG, **options)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """Show rows as a sortable table; unknown values are empty."""
    return st.dataframe(
        list(rows), width="stretch", hide_index=True, column_config=dict(columns or {}), placeholder="", **options
    )


def drop_empty(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without the columns that are empty in all of them."""
    used = [key for key in rows[0] if any(row[key] not in (None, "") for row in rows)] if rows else []
    return [{key: row[key] for key in used} for row in rows]


def page_of(rows: Sequence[Row], size: int) -> Sequence[Row]:
    """Return the rows of the page that the user chose, stored in the URL as `page`; all rows if one page is enough."""
    pages = -(-len(rows) // size)
    if pages <= 1:
        return rows
    page = int(st.number_input(f"Page (of {pages:,})", 1, pages, 1, key="page", bind="query-params"))
    return rows[(page - 1) * size : page * size]


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; text that a spreadsheet would read as a formula is quoted."""
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _no_formula(value) for key, value in row.items()})
    return out.getvalue()


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def margin() -> float:
    """Let the user choose the largest tolerated loss, stored in the URL as `margin`."""
    return float(
        st.number_input(
            "Margin: largest tolerated loss (mean score)",
            min_value=0.001,
            max_value=0.5,
            value=0.02,
            step=0.005,
            format="%.3f",
            key="margin",
            bind="query-params",
        )
    )
