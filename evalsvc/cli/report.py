"""The commands `report` and `dashboard`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from evalsvc import api
from evalsvc.cli.options import SHARE, Base, Db
from evalsvc.settings import default_db, shared_dir

app = typer.Typer()


@app.command(rich_help_panel=SHARE, epilog="Example: evalsvc report --output forgetting.html --figures figures")
def report(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    base: Base = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Also write every figure as SVG and PNG to this folder; needs the extra figures."),
    ] = None,
    db: Db = None,
) -> None:
    """Write one HTML file that needs no server.

    It contains the dashboard's figures, tables, decisions and claims.
    """
    from evalsvc.charts import images
    from evalsvc.reports.html import write_report

    if figures is not None:
        images.check_installed()
    drawn = write_report(api.find_store(db), base, output)
    print(output)
    if figures is not None:
        print(*images.write_images(drawn, figures), sep="\n")


@app.command(rich_help_panel=SHARE, epilog="Example: evalsvc dashboard --db evalsvc-demo/evalsvc.duckdb --port 8600")
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501, db: Db = None
) -> NoReturn:
    """Serve the dashboard on this machine."""
    path = (db or default_db()).resolve()
    api.find_store(path)
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
        # A garbage collection after each script run takes longer than the page, and delays its last tables.
        "runner.postScriptGC": "false",
    }
    flags = [part for key, value in options.items() for part in (f"--{key}", value)]
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(app_file), *flags])  # noqa: S606 (no shell)
