"""Formats numbers, intervals and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

LEVEL_NOTE = "Intervals are two-sided at 90 %; their ends are the one-sided 5 % bounds that decisions use."

# ------------------------------------------------------------------------------------------------------------ tables


class PlainTable(Table):
    """A table that shows text literally: names from checkpoints, suites and items are not markup."""

    def add_row(
        self, *renderables: RenderableType | None, style: StyleType | None = None, end_section: bool = False
    ) -> None:
        """Add a row; strings are shown without control characters."""
        cells = (Text(drop_controls(cell)) if isinstance(cell, str) else cell for cell in renderables)
        super().add_row(*cells, style=style, end_section=end_section)


def new_table(title: str, *columns: str, caption: str | None = None) -> Table:
    """Make a table; columns whose name begins with # contain numbers."""
    table = PlainTable(
        title=Text(drop_controls(title), style="table.title"),
        title_justify="left",
        caption=None if caption is None else Text(drop_controls(caption), style="table.caption"),
        caption_justify="left",
        header_style="bold",
    )
    for column in columns:
        is_number = column.startswith("#")
        table.add_column(column.lstrip("#"), justify="right" if is_number else "left", no_wrap=is_number)
    return table


def new_line(text: str, style: str = "") -> Text:
    """Make a line of text that is never wrapped."""
    return Text(drop_controls(text), style=style, no_wrap=True, overflow="ignore")


def drop_controls(text: str) -> str:
    """Return text with control characters replaced by spaces, except line breaks."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def label_tasks(tasks: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return what to call each (suite, task): the task's name, or SUITE/TASK if several suites have it."""
    distinct = list(dict.fromkeys(tasks))
    counts = Counter(task for _, task in distinct)
    return {(suite, task): task if counts[task] == 1 else f"{suite}/{task}" for suite, task in distinct}


# ----------------------------------------------------------------------------------------------------------- numbers


def format_number(value: float | None) -> str:
    """Format a level, "-" if there is none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3f}"


def format_signed(value: float | None) -> str:
    """Format a difference with its sign, "-" if there is none: -0.000 is below zero, which +0.000 would hide."""
    if value is None:
        return "-"
    shown = value if abs(value) > 1e-9 else 0.0  # nearer to zero, the sign is one of rounding
    return f"{shown:+.4g}" if abs(shown) >= 100 else f"{shown:+.3f}"


def format_interval(low: float | None, high: float | None) -> str:
    """Format the interval of a difference, "-" if there is none."""
    return "-" if low is None or high is None else f"{format_signed(low)} .. {format_signed(high)}"


def format_levels(low: float | None, high: float | None) -> str:
    """Format the interval of a level, "-" if there is none."""
    return "-" if low is None or high is None else f"{format_number(low)} .. {format_number(high)}"


def format_count(value: int | None) -> str:
    """Format a count, "-" if it is not known."""
    return "-" if value is None else f"{value:,}"


def format_nouns(count: int, noun: str, plural: str | None = None) -> str:
    """Format a number of things: "1 task", "2 tasks"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def format_amount(value: float | None) -> str:
    """Format a cost, "-" if it is not known."""
    return format_count(value) if value is None or isinstance(value, int) else f"{value:,.3g}"


def format_percent(value: float | None) -> str:
    """Format a share as a percentage, "-" if there is none."""
    return "-" if value is None else f"{value:.0%}"


def format_p_value(p: float | None) -> str:
    """Format a p-value, "-" if there is none."""
    if p is None:
        return "-"
    return "<.001" if p < 0.001 else f"{p:.3f}"


def format_duration(seconds: float) -> str:
    """Format a duration in hours, minutes or seconds."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
