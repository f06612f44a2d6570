"""What commands print: answers on stdout, notes and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsvc.errors import EvalsvcError, EvidenceError
from evalsvc.settings import default_db

if TYPE_CHECKING:
    from rich.console import RenderableType

    from evalsvc.scoring.driver import RunJob
    from evalsvc.store.store import Store


def open_store(db: Path | None) -> Store:
    """Return the store that a flag or the environment names, brought up to date."""
    from evalsvc.store.store import Store

    store = Store(db or default_db())
    store.upgrade()
    return store


def write_report(store: Store, base: str | None, path: Path) -> dict[str, Any]:
    """Write the HTML report of a base and its arms, and return its figures by name."""
    from datetime import UTC, datetime

    from evalsvc.analysis import stored
    from evalsvc.charts.frontier import CROWD
    from evalsvc.reports import html
    from evalsvc.store import arms

    family = arms.find_family(store.arms(), base)
    placed = stored.load_frontier(store, family)
    best = {point.arm for point in placed.points if point.on_method_frontier}
    shown = [arm for arm in family.arms if len(family.arms) <= CROWD or arm.label in best]
    # An unfinished arm is named in the frontier's caption.
    found = stored.compare_many(store, family.base, shown)
    compared = [one for one in found if not isinstance(one, EvidenceError)]
    rest = html.rest_of(store, family.base.checkpoint.digest, family.base.checkpoint.digest)
    figures = html.figures_of(placed, compared, rest)
    try:
        path.write_text(html.html(placed, compared, rest, figures, datetime.now(UTC)), encoding="utf-8")
    except OSError as error:
        raise EvalsvcError(f"report {path}: cannot be written: {error.strerror}") from error
    return figures


def exit_on_failures(jobs: list[RunJob]) -> None:
    """Raise EvidenceError if a run failed."""
    failed = [job for job in jobs if job.state != "done"]
    if failed:
        raise EvidenceError(
            f"{len(failed)} of {len(jobs)} runs failed (first: {failed[0].error}); see `evalsvc status`"
        )


def show(*what: RenderableType) -> None:
    """Print tables."""
    from rich.console import Console

    # Tables that go to a file or a pipe are not folded to a terminal's width.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(*what, sep="\n")


def print_json(answer: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(answer, default=str))


@contextlib.contextmanager
def working(quiet: bool) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """Yield `note` and `progress` for a long command; whatever libraries print meanwhile goes to stderr."""
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
    doing = ["requests"]

    def note(text: str) -> None:
        doing[0] = text
        if not quiet:
            console.print(text, style="dim")

    def progress(done: int, total: int) -> None:
        if not task or done == 0 or bar.tasks[-1].description != doing[0]:
            for old in task:
                bar.remove_task(old)
            task[:] = [bar.add_task(doing[0], total=total, rate="")]
        speed = bar.tasks[-1].speed
        bar.update(task[0], completed=done, rate=f"{speed:,.0f}/s" if speed else "")

    # Notes come from inside the context, so they are printed above the bar.
    with contextlib.redirect_stdout(sys.stderr), bar:
        try:
            yield note, progress
        except KeyboardInterrupt:
            note("interrupted; the same command resumes where it stopped")
            raise
