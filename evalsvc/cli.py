"""The command line: parse, call, print, choose the exit code. Imports nothing heavy before a command needs it.

stdout carries the answer only; progress and log go to stderr. Exit codes: 0 done, 1 internal error, 2 usage or
configuration, 3 gate: fail, 4 gate: inconclusive, 5 evidence missing or not comparable.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from evalsvc.errors import EvalsvcError, EvidenceError
from evalsvc.settings import Compute, default_db, shared_dir

if TYPE_CHECKING:
    from rich.console import RenderableType

    from evalsvc.demo import Demo
    from evalsvc.driver import Job
    from evalsvc.store import Store

app = typer.Typer(
    name="evalsvc",
    help="Does your adapted checkpoint learn without forgetting? Paired learning and forgetting, with error bars.",
    epilog="Begin with: evalsvc demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
suites_app = typer.Typer(help="List, show and check suites.", no_args_is_help=True)
app.add_typer(suites_app, name="suites")


def _forward(address: str | None) -> None:
    """Run this very command on a cluster instead, if one is named."""
    if not address:
        return
    from evalsvc.cluster import run_remotely

    arguments = iter(sys.argv[1:])
    kept = [a for a in arguments if not (a.startswith("--address=") or (a == "--address" and next(arguments, None)))]
    raise typer.Exit(run_remotely(address, kept, answer=sys.stdout, log=sys.stderr))


Db = Annotated[
    Path | None, typer.Option("--db", envvar="EVALSVC_DB", help="The store's file.", show_default="evalsvc.duckdb")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="EVALSVC_ADDRESS",
        is_eager=True,
        callback=_forward,
        help="Run on this Ray cluster's head (http://head:8265); paths are the head's then.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Base = Annotated[str | None, typer.Option("--base", help="The base: label, name, path or digest.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Ray workers; 0 scores in this process.", show_default="one per GPU or core"),
]


# ----------------------------------------------------------------------------------------------------------- commands


@app.command(epilog="Example: evalsvc demo && evalsvc dashboard --db evalsvc-demo/evalsvc.duckdb")
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where models, store and report go.")] = Path("evalsvc-demo"),
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Show the main job, end to end, on tiny models that are trained on the spot: no network, some minutes."""
    with _working(quiet) as (note, progress):
        from evalsvc.demo import run

        made = run(folder, workers=workers, note=note, progress=progress)
    _show_demo(made, folder / "report.html")


def _show_demo(made: Demo, page: Path) -> None:
    from evalsvc import service
    from evalsvc.report import frontier_table

    store = _store(made.store)
    _print(frontier_table(service.placed(store, service.find_family(store, made.base))))
    _write_report(store, made.base, page)
    print(f"\nreport      {page}")
    print(f"dashboard   evalsvc dashboard --db {made.store}")
    print(f"one arm     evalsvc compare {made.jobs[-1].arm.checkpoint.label} --db {made.store}")
    _exit_on_failures(made.jobs)


@app.command(
    epilog="Examples: evalsvc submit runs/lora --base models/base --suite clinic --suite valley   |   "
    "evalsvc submit org/name@main --base org/base --suite suites/mine.yaml --method cpt"
)
def submit(
    checkpoint: Annotated[str, typer.Argument(help="Folder, training output folder (a trajectory), or hub id[@rev].")],
    base: Annotated[str | None, typer.Option(help="What it was adapted from: folder or hub id.")] = None,
    suite: Annotated[
        list[str] | None, typer.Option(help="Suite name or file; repeatable.", show_default="the base's")
    ] = None,
    method: Annotated[str | None, typer.Option(help="How it was adapted: full, lora, qlora, cpt, ...")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="the folder's name")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Training step.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(min=0, help="Cost: GPU-hours of training.")] = None,
    train_tokens: Annotated[int | None, typer.Option(min=0, help="Cost: tokens trained on.")] = None,
    peak_memory_gb: Annotated[float | None, typer.Option(min=0, help="Cost: peak memory of training.")] = None,
    workers: Workers = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto (float32 on CPU, else bfloat16), float32, bfloat16, float16.")
    ] = "auto",
    allow_task_code: Annotated[bool, typer.Option("--allow-task-code", help="Run Python code beside tasks.")] = False,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a checkpoint and its base on suites. What the store has already is not done again."""
    from evalsvc.checkpoints import Description
    from evalsvc.records import Cost

    said = Description(method, name, step, Cost(gpu_hours, train_tokens, peak_memory_gb))
    with _working(quiet) as (note, progress):
        from evalsvc.submission import Source, Submission
        from evalsvc.submission import submit as run_submission

        compute = Compute(workers, device, dtype)
        wanted = Submission((Source(checkpoint, said),), base, tuple(suite or ()), compute, allow_task_code)
        store = _store(db)
        jobs = run_submission(store, wanted, progress, note)
    _show_jobs(store, jobs, as_json)
    _exit_on_failures(jobs)


@app.command(epilog="Example: evalsvc status --json")
def status(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show how far runs have come."""
    from evalsvc import report
    from evalsvc.store import is_alive

    runs = _store(db).runs()
    alive = [is_alive(run.driver) for run in runs]
    if as_json:
        _print_json(report.runs_json(runs, alive))
    else:
        _print(report.runs_table(runs, alive))


@app.command(epilog="Example: evalsvc results --arm lora@400 --suite clinic")
def results(
    arm: Annotated[str | None, typer.Option(help="Only this arm: label, name, path or digest.")] = None,
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show scores: of suites for all arms, of tasks for one arm or suite, of everything as JSON."""
    from evalsvc import report

    store = _store(db)
    chosen = None
    if arm:
        from evalsvc.service import find_arm

        chosen = find_arm(store.arms(), arm).number
    found = [
        result for result in store.results() if chosen in (None, result.arm.number) and suite in (None, result.suite)
    ]
    if as_json:
        _print_json(report.results_json(found))
    elif arm or suite:
        _print(report.results_table([result for result in found if result.primary or result.is_group]))
    else:
        _print(report.overview_table(found))


@app.command(epilog="Examples: evalsvc compare lora@400   |   evalsvc compare lora@400 --base full@400 --json")
def compare(
    arm: Annotated[str, typer.Argument(help="The adapted arm: label, name, path or digest.")],
    base: Annotated[str | None, typer.Option(help="Compare with this arm.", show_default="its own base")] = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Compare an arm with its base, item by item: what was lost, what was gained, and how sure that is."""
    from evalsvc import report, service

    found = service.compared(_store(db), arm, base)
    if as_json:
        _print_json(report.compared_json(found))
    else:
        _print(*report.comparison_tables(found))
        print(report.LEVEL_NOTE)


@app.command(epilog="Example: evalsvc frontier --base models/base --json")
def frontier(base: Base = None, db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show learning against forgetting for every arm of a base, and which arms no other arm dominates."""
    from evalsvc import report, service

    store = _store(db)
    found = service.placed(store, service.find_family(store, base))
    if as_json:
        _print_json(report.frontier_json(found))
    else:
        _print(report.frontier_table(found))


@app.command("report", epilog="Example: evalsvc report --output forgetting.html")
def write_report(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    base: Base = None,
    db: Db = None,
) -> None:
    """Write one HTML file that opens from disk: the frontier, its points, and every comparison."""
    _write_report(_store(db), base, output)
    print(output)


@app.command(epilog="Example: evalsvc dashboard --db evalsvc-demo/evalsvc.duckdb --port 8600")
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501, db: Db = None
) -> NoReturn:
    """Serve the dashboard on this machine's loopback address."""
    path = (db or default_db()).resolve()
    _store(path)
    app_file = shared_dir("dashboards") / "app.py"
    print(f"http://127.0.0.1:{port}  (store {path}; end with Ctrl-C)", flush=True)
    os.environ["EVALSVC_DB"] = str(path)
    options = {
        "server.address": "127.0.0.1",
        "server.port": str(port),
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    flags = [part for key, value in options.items() for part in (f"--{key}", value)]
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(app_file), *flags])  # noqa: S606 (no shell)


@app.command(epilog="Example: evalsvc doctor --json")
def doctor(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Say what works on this machine: versions, devices, threads, disk, offline flags, the store."""
    from evalsvc import report
    from evalsvc.doctor import examine

    findings = examine(db or default_db())
    if as_json:
        _print_json({"schema": 1, "findings": [finding._asdict() for finding in findings]})
    else:
        _print(report.findings_table(findings))
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


@suites_app.command("list", epilog="Example: evalsvc suites list --json")
def list_suites(as_json: Json = False) -> None:
    """List the suites that come with evalsvc."""
    from evalsvc import report
    from evalsvc.suites import shipped_suites

    found = list(shipped_suites())
    if as_json:
        _print_json({"schema": 1, "suites": [suite.model_dump(mode="json") for suite in found]})
    else:
        _print(report.suites_table(found))


@suites_app.command("show", epilog="Example: evalsvc suites show valley")
def show_suite(suite: Annotated[str, typer.Argument(help="Suite name or file.")], as_json: Json = False) -> None:
    """Show what a suite says."""
    from evalsvc.suites import find_suite

    found = find_suite(suite)
    if as_json:
        _print_json({"schema": 1, "suite": found.model_dump(mode="json"), "path": str(found.path)})
    else:
        print(f"# {found.path}\n{found.path.read_text(encoding='utf-8')}", end="")


@suites_app.command("check", epilog="Example: evalsvc suites check suites/mine.yaml")
def check_suite(
    suite: Annotated[str, typer.Argument(help="Suite name or file.")],
    allow_task_code: Annotated[bool, typer.Option("--allow-task-code", help="Run Python code beside tasks.")] = False,
    as_json: Json = False,
) -> None:
    """Load every task of a suite, check golds, metrics and filters, and say what margin its items can resolve."""
    from evalsvc import report
    from evalsvc.inspection import check

    tasks = check(suite, allow_task_code=allow_task_code)
    if as_json:
        _print_json({"schema": 1, "tasks": [task._asdict() for task in tasks]})
    else:
        _print(report.check_table(tasks))


# ------------------------------------------------------------------------------------------------------------ helpers


def _store(db: Path | None) -> Store:
    from evalsvc.store import Store

    store = Store(db or default_db())
    store.upgrade()
    return store


def _write_report(store: Store, base: str | None, path: Path) -> None:
    from datetime import UTC, datetime

    from evalsvc import page, service

    family = service.find_family(store, base)
    placed = service.placed(store, family)
    compared = []
    for arm in family.arms:
        with contextlib.suppress(EvidenceError):  # an unfinished arm is named in the frontier's caption
            compared.append(service.compared_arms(store, family.base, arm))
    try:
        path.write_text(page.html(placed, compared, datetime.now(UTC)), encoding="utf-8")
    except OSError as error:
        raise EvalsvcError(f"report {path}: cannot be written: {error.strerror}") from error


def _show_jobs(store: Store, jobs: list[Job], as_json: bool) -> None:
    from evalsvc import report

    mine = {(job.arm.key, job.planned.plan.digest): job for job in jobs}
    runs = [run for run in store.runs() if (run.arm.digest, run.plan) in mine]
    alive = [True] * len(runs)
    if not as_json:
        _print(report.runs_table(runs, alive))
        return
    answer = report.runs_json(runs, alive)
    for run, entry in zip(runs, answer["runs"], strict=True):
        entry["reused"] = mine[run.arm.digest, run.plan].reused
    _print_json(answer)


def _exit_on_failures(jobs: list[Job]) -> None:
    failed = [job for job in jobs if job.state != "done"]
    if failed:
        raise EvidenceError(
            f"{len(failed)} of {len(jobs)} runs failed (first: {failed[0].error}); see `evalsvc status`"
        )


def _print(*what: RenderableType) -> None:
    from rich.console import Console

    # Tables that go to a file or a pipe are not folded to a terminal's width.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(*what, sep="\n")


def _print_json(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, default=str))


@contextlib.contextmanager
def _working(quiet: bool) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
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

    def note(text: str) -> None:
        if not quiet:
            console.print(text, style="dim")

    def progress(done: int, total: int) -> None:
        if not task or done == 0:
            for old in task:
                bar.remove_task(old)
            task[:] = [bar.add_task("requests", total=total, rate="")]
        speed = bar.tasks[-1].speed
        bar.update(task[0], completed=done, rate=f"{speed:,.0f}/s" if speed else "")

    # Notes come from inside the context, so they are printed above the bar.
    with contextlib.redirect_stdout(sys.stderr), bar:
        try:
            yield note, progress
        except KeyboardInterrupt:
            note("interrupted; the same command resumes where it stopped")
            raise


def main() -> None:
    """Run the command line, and turn every error into one line and an exit code."""
    try:
        app()
    except EvalsvcError as error:
        print(f"evalsvc: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if os.environ.get("EVALSVC_DEBUG"):
            traceback.print_exc()
        hint = "set EVALSVC_DEBUG=1 for the traceback, and please report it"
        print(f"evalsvc: internal error: {type(error).__name__}: {error}; {hint}", file=sys.stderr)
        sys.exit(1)
