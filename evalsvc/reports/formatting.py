"""How numbers, intervals and tables look, wherever they are printed.

Every JSON object carries `schema`; its names are those of the vocabulary.
"""

from __future__ import annotations

from rich.table import Table

SCHEMA = 1
LEVEL_NOTE = "Intervals are two-sided at 90 %: their ends are the one-sided 5 % bounds that decisions use."


# ------------------------------------------------------------------------------------------------------------ tables


def new_table(title: str, *columns: str, caption: str | None = None) -> Table:
    """Make a table; columns whose name begins with # hold numbers."""
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", header_style="bold")
    for column in columns:
        numeric = column.startswith("#")
        table.add_column(column.lstrip("#"), justify="right" if numeric else "left", no_wrap=numeric)
    return table


def format_number(value: float | None) -> str:
    """Format a level, "-" if there is none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3f}"


def format_signed(value: float | None) -> str:
    """Format a difference with its sign, "-" if there is none."""
    if value is None:
        return "-"
    rounded = round(value, 3) + 0.0  # + 0.0 takes the sign off a zero
    return f"{value:+.4g}" if abs(value) >= 100 else f"{rounded:+.3f}"


def format_interval(low: float | None, high: float | None) -> str:
    """Format an interval, "-" if there is none."""
    return "-" if low is None or high is None else f"{format_signed(low)} .. {format_signed(high)}"
