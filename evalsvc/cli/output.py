"""Output of commands: answers on stdout, notes and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from evalsvc.reports.report import Report


_SECONDS_BETWEEN_LINES = 30  # of progress, where there is no terminal


def print_report(report: Report, as_json: bool) -> None:
    """Print an answer on stdout: as one JSON object, or as tables."""
    if as_json:
        print(json.dumps(report.to_dict(), default=str, allow_nan=False))
    else:
        show(*report.tables())


def show(*parts: RenderableType) -> None:
    """Print tables and lines on stdout."""
    from rich.console import Console

    from evalsvc.reports.report import PIPE_WIDTH

    # Tables in a file or a pipe are not wrapped to a terminal's width.
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False).print(*parts, sep="\n")


def show_note(report: Report) -> None:
    """Print tables on stderr."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(*report.tables())


@contextlib.contextmanager
def working(quiet: bool, *, resumes: bool = True) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """Yield `note` and `progress` for a long command; output of libraries goes to stderr meanwhile.

    Progress is a bar on a terminal, and elsewhere, as in the log of a CI job, a line at most every 30 seconds.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    shows_bar = not quiet and console.is_terminal
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not shows_bar,
        transient=True,
    )
    task: list[TaskID] = []
    stage = ["requests"]
    printed = [time.monotonic()]

    def note(text: str) -> None:
        stage[0] = text
        if not quiet:
            console.print(text, style="dim", markup=False)

    def progress(done: int, total: int) -> None:
        if not total:
            return
        if not shows_bar:
            if not quiet and time.monotonic() - printed[0] >= _SECONDS_BETWEEN_LINES:
                printed[0] = time.monotonic()
                console.print(f"{stage[0]}: {done:,} of {total:,}", style="dim", markup=False)
            return
        if not task or done == 0 or bar.tasks[-1].description != stage[0]:
            for old in task:
                bar.remove_task(old)
            task[:] = [bar.add_task(stage[0], total=total, rate="")]
        speed = bar.tasks[-1].speed
        bar.update(task[0], completed=done, rate=f"{speed:,.0f}/s" if speed else "")

    # Notes are printed inside the context, so they appear above the bar.
    with contextlib.redirect_stdout(sys.stderr), bar:
        try:
            yield note, progress
        except KeyboardInterrupt:
            note(f"interrupted; run the same command again{' to resume' if resumes else ''}")
            raise
