"""How long the dashboard's pages take on a large store, in a real browser: first paint, figures, a changed selection.

Run by hand, on a store that `large_store` made: python -m tests.benchmarks.pages FILE [PAGE ...]. For every page the
server is started anew: `cold` is the first visit of all, `warm` the first one of another browser. `paint` is the time
from the URL to the page's heading and controls, `whole` until nothing is drawn any more, `change` from the click or key
that changes a selection until its content has been drawn, by the browser's clock. CPU is the server's, children
included.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from playwright.sync_api import Browser, sync_playwright

from tests.support.dashboard import CHROMIUM, serve_dashboard

LIMIT = 120_000
STILL = 1000
"""Milliseconds until what was opened to choose from has stopped moving; people look that long, too."""
DONE = (
    "document.querySelector('[data-testid=stApp]')?.getAttribute('data-test-script-state') == 'notRunning' && "
    "document.querySelector('[data-testid=stMain] h1') && !document.querySelector('[data-testid=stSkeleton]') && "
    "[...document.querySelectorAll('[data-testid=stPlotlyChart]')].every(e => e.querySelector('.main-svg'))"
)
PRESSED = """() => ["pointerdown", "keydown"].forEach(what =>
    addEventListener(what, event => { window.pressed = event.timeStamp }, {capture: true}))"""
DRAWN = f"""async () => {{
    const frame = () => new Promise(requestAnimationFrame)
    while (!({DONE})) await frame()
    return await frame() - window.pressed  // the next frame begins when this one has been drawn
}}"""


class Page(NamedTuple):
    """A page and a change of its selection: the URL that one gets to by changing one control, and that control."""

    link: str
    label: str
    choice: str


PAGES = {
    "frontier": Page("/", "Joint 90 % ellipses", ""),
    "frontier, axis": Page("/", "x", "GPU-hours"),
    "frontier, suites": Page("/?suites=clinic+(domain)&suites=reasoning+(general)", "Suites (none", "law"),
    "compare": Page("/compare", "Arms", "full-001@500"),
    "samples": Page("/samples", "Suite", "mmlu"),
    "trajectory": Page("/trajectory", "Measure", "learning"),
    "advisor": Page("/advisor", "Must keep (suites)", "commands"),
    "gate": Page("/gate", "Suite that must be kept", "reasoning"),
    "claims": Page("/claims", "margin", "0.05"),
    "checkpoints": Page("/checkpoints", "Checkpoint", "full-001@500"),
    "runs": Page("/runs", "state", "failed"),
}


class Clock:
    """Wall time, and the server's CPU time."""

    def __init__(self, server: psutil.Process) -> None:
        self._server = server
        self._began = time.perf_counter(), self._cpu()

    def _cpu(self) -> float:
        times = self._server.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)

    def cpu(self) -> float:
        """Return how much CPU time the server has used since."""
        return self._cpu() - self._began[1]

    def __str__(self) -> str:
        return f"{time.perf_counter() - self._began[0]:6.2f} s ({self.cpu():5.2f})"


def visit(browser: Browser, address: str, page: Page, server: psutil.Process) -> tuple[str, str, Any]:
    """Open a page in a browser of its own; return its times and the tab."""
    tab = browser.new_context(viewport={"width": 1280, "height": 1200}).new_page()
    tab.set_default_timeout(LIMIT)
    clock = Clock(server)
    tab.goto(f"{address}{page.link}", wait_until="commit")
    tab.wait_for_selector("[data-testid=stMain] h1", timeout=LIMIT)
    painted = str(clock)
    tab.wait_for_function(DONE, timeout=LIMIT)
    return painted, str(clock), tab


def change(tab: Any, name: str, page: Page, server: psutil.Process) -> str:
    """Change one control and wait until what it selects is there."""
    if name == "claims":
        field = tab.get_by_role("spinbutton").first
        field.fill(page.choice)
        tab.wait_for_timeout(STILL)
        tab.evaluate(PRESSED)
        clock = Clock(server)
        field.press("Enter")
    else:
        if name.startswith("frontier"):
            tab.get_by_text("Axes, suites, methods").click()
            tab.wait_for_timeout(STILL)
        if name == "frontier":
            target = tab.get_by_text(page.label)
        elif name == "runs":
            target = tab.get_by_role("button", name=page.choice, exact=True)
        else:
            if name == "gate":
                tab.get_by_role("tab", name="Simulator").click()
            field = tab.get_by_role("combobox", name=page.label).first
            field.click()
            field.fill(page.choice)
            target = tab.get_by_role("option", name=page.choice)
        target.first.wait_for()
        tab.wait_for_timeout(STILL)
        tab.evaluate(PRESSED)
        clock = Clock(server)
        target.first.click()
    tab.wait_for_timeout(60)  # until the browser has told the server
    seconds = tab.wait_for_function(DRAWN, timeout=LIMIT).json_value() / 1000
    return f"{seconds:6.2f} s ({clock.cpu():5.2f})"


def main() -> None:
    """Measure, and print one row per page."""
    db, *only = sys.argv[1:]
    print("| page | paint, cold | whole, cold | paint, warm | whole, warm | change | memory |")
    print("|---|---|---|---|---|---|---|")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, page in PAGES.items():
            if only and name not in only:
                continue
            with serve_dashboard(Path(db)) as (address, server):
                cold = visit(browser, address, page, server)
                cold[2].close()
                warm = visit(browser, address, page, server)
                changed = change(warm[2], name, page, server)
                warm[2].close()
                memory = server.memory_info().rss / 1e9
            print(
                f"| {name} | {cold[0]} | {cold[1]} | {warm[0]} | {warm[1]} | {changed} | {memory:.1f} GB |", flush=True
            )
        browser.close()


if __name__ == "__main__":
    main()
