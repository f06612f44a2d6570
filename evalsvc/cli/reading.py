"""Commands that read the store: results, compare, frontier, report, dashboard, doctor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from evalsvc.cli.options import Address, Base, Db, Json
from evalsvc.cli.output import open_store, print_json, show
from evalsvc.cli.output import write_report as write
from evalsvc.settings import default_db, shared_dir

app = typer.Typer()


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

    store = open_store(db)
    chosen = None
    if arm:
        from evalsvc.service import find_arm

        chosen = find_arm(store.arms(), arm).number
    found = [
        result for result in store.results() if chosen in (None, result.arm.number) and suite in (None, result.suite)
    ]
    if as_json:
        print_json(report.results_json(found))
    elif arm or suite:
        show(report.results_table([result for result in found if result.primary or result.is_group]))
    else:
        show(report.overview_table(found))


@app.command(epilog="Examples: evalsvc compare lora@400   |   evalsvc compare lora@400 --base full@400 --json")
def compare(
    arm: Annotated[str, typer.Argument(help="The adapted arm: label, name, path or digest.")],
    base: Annotated[str | None, typer.Option(help="Compare with this arm.", show_default="its own base")] = None,
    other_prompts: Annotated[
        bool, typer.Option("--other-prompts", help="Pair by document where the two arms had different prompts.")
    ] = False,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Compare an arm with its base, item by item: what was lost, what was gained, and how sure that is."""
    from evalsvc import details, report, service

    found = service.compared(open_store(db), arm, base, other_prompts)
    if as_json:
        print_json(report.compared_json(found))
    else:
        show(*report.comparison_tables(found), *details.comparison_tables(found))
        print(report.LEVEL_NOTE)


@app.command(
    epilog="Examples: evalsvc frontier --base models/base --json   |   "
    "evalsvc frontier --axes learning,forgetting,gpu_hours --at-learning 0.3"
)
def frontier(
    base: Base = None,
    axes: Annotated[
        str,
        typer.Option(
            help="What dominance is about: learning, forgetting, gpu_hours, train_tokens, peak_memory_gb, "
            "train_samples, annotation_cost, trainable_share, tokens_per_query."
        ),
    ] = "learning,forgetting",
    at_learning: Annotated[
        float | None, typer.Option(help="Compare methods' forgetting here.", show_default="as far as all get")
    ] = None,
    at_forgetting: Annotated[
        float | None, typer.Option(help="Compare methods' learning here.", show_default="as far as all get")
    ] = None,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show learning against forgetting for every arm of a base, and which arms no other arm dominates."""
    from evalsvc import details, report, service
    from evalsvc.frontier import Wish, compare_methods, placed

    store = open_store(db)
    wish = Wish(tuple(name.strip() for name in axes.split(",")), at_learning, at_forgetting)
    plane = service.plane(store, service.find_family(store, base))
    found, equal = placed(plane, wish), compare_methods(plane, wish)
    if as_json:
        print_json(report.frontier_json(found, equal))
    else:
        show(report.frontier_table(found), *details.frontier_tables(found, equal))


@app.command("report", epilog="Example: evalsvc report --output forgetting.html --figures figures")
def write_report(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    base: Base = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Also write every figure as SVG and PNG into this folder; needs evalsvc[figures]."),
    ] = None,
    db: Db = None,
) -> None:
    """Write one HTML file that opens from disk: the dashboard's figures, its tables, decisions and claims."""
    drawn = write(open_store(db), base, output)
    print(output)
    if figures is not None:
        from evalsvc.charts import write_images

        print(*write_images(drawn, figures), sep="\n")


@app.command(epilog="Example: evalsvc dashboard --db evalsvc-demo/evalsvc.duckdb --port 8600")
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501, db: Db = None
) -> NoReturn:
    """Serve the dashboard on this machine's loopback address."""
    path = (db or default_db()).resolve()
    open_store(path)
    app_file = shared_dir("dashboards") / "app.py"
    print(f"http://127.0.0.1:{port}  (store {path}; end with Ctrl-C)", flush=True)
    os.environ["EVALSVC_DB"] = str(path)
    options = {
        "server.address": "127.0.0.1",
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        # Walking a large store's objects takes longer than a page, and comes before its last tables are sent.
        "runner.postScriptGC": "false",
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
        print_json({"schema": 1, "findings": [finding._asdict() for finding in findings]})
    else:
        show(report.findings_table(findings))
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
