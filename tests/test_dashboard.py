"""The dashboard on a live store: its logic through AppTest, its looks in a real browser."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from evalsvc.changes import Change, TensorChange
from evalsvc.dossiers import Dossiers
from evalsvc.records import Arm, Finding
from evalsvc.store import Store
from tests.conftest import ROOT
from tests.fakes import NUMERICS, arm, plan
from tests.test_store import graded

APP = str(ROOT / "dashboards" / "app.py")
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


def fill(db: Path, *numbers: int) -> Store:
    """Make a store with one base per number, each with a trajectory of two steps."""
    store = Store(db)
    domain, general = plan("d", 40, role="domain", text="d"), plan("g", 60, text="g")
    for number in numbers:
        base = arm(number)
        steps = [
            Arm(
                replace(
                    arm(100 * number + s, parent=base.checkpoint).checkpoint, name="lora", step=s, trajectory="lora"
                ),
                NUMERICS,
            )
            for s in (10, 20)
        ]
        store.register([base, *steps], [domain, general], "host:1")
        for position, of in enumerate([base, *steps]):
            store.finish(of, domain, graded(domain, [float(i < 10 + 12 * position) for i in range(40)]))
            store.finish(of, general, graded(general, [float(i > 8 * position) for i in range(60)]))
    return store


@pytest.fixture
def app(db: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    import streamlit as st

    st.cache_data.clear()
    monkeypatch.setenv("EVALSVC_DB", str(db))
    monkeypatch.syspath_prepend(str(ROOT / "dashboards"))
    return AppTest.from_file(APP, default_timeout=30)


def test_a_checkpoint_shows_its_dossier(app: AppTest, db: Path) -> None:
    lora = fill(db, 1).arms()[1].checkpoint
    page = app.switch_page("views/checkpoints.py").run()
    assert not page.exception
    assert "Nothing: it is a base." in [caption.value for caption in page.caption]
    tensor = TensorChange("model.layers.0.self_attn.q_proj.weight", (4, 4), 8, 2.0, 1.0, 3, 2.5)
    Dossiers(db).keep_change(lora, Change(100, 5, "|x| > 1", (tensor,)))
    Dossiers(db).keep_findings(lora, [Finding("warning", "window", lora.label, "prompts are longer")])
    page.selectbox(key="checkpoint").select(f"{lora.label} ({lora.digest[7:19]})").run()
    assert not page.exception
    assert [warning.value for warning in page.warning] == ["window: prompts are longer"]
    assert page.dataframe[1].value["layers"].tolist() == ["attention"]
    assert page.dataframe[1].value["relative norm"].tolist() == [0.5]


def test_the_frontier_shows_every_arm_with_intervals(app: AppTest, db: Path) -> None:
    fill(db, 1)
    app.run()
    assert not app.exception
    assert len(app.get("plotly_chart")) == 1
    frame = app.dataframe[0].value
    assert set(frame["arm"]) == {"c1", "lora@10", "lora@20"}
    assert (frame["learning low"] <= frame["learning"]).all()
    assert "positive forgetting is worse" in app.caption[0].value


def open_page(app: AppTest, name: str, **selection: str) -> AppTest:
    """Open a page by a link."""
    app.switch_page(f"views/{name}.py")
    for key, value in selection.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def test_axes_methods_and_suites_come_from_the_url(app: AppTest, db: Path) -> None:
    fill(db, 1)
    app.query_params.update({"methods": "lora", "ellipses": "true", "suites": ["d", "g"]})
    app.run()
    assert not app.exception
    assert app.multiselect(key="methods").value == ["lora"]
    assert app.toggle(key="ellipses").value
    app.selectbox(key="y").set_value("learning").run()
    assert "two different axes" in app.info[0].value
    app.selectbox(key="y").set_value("gpu_hours").run()
    assert not app.exception
    assert "No arm can be placed" in app.warning[0].value


def test_compare_shows_arms_of_the_url_with_margin(app: AppTest, db: Path) -> None:
    fill(db, 1)
    page = open_page(app, "compare", arms="lora@10", margin="0.05")
    assert page.multiselect(key="arms").value == ["lora@10"]
    assert page.number_input(key="margin").value == 0.05
    tasks = page.dataframe[1].value
    assert tasks["task"].tolist() == ["d_task", "g_task"]
    # 10 of 40 right before, 22 after; 60 of 60 before, all but 9 after.
    assert tasks["difference"].round(3).tolist() == [0.3, -0.133]
    assert tasks["lost"].tolist() == [0, 8]
    page.multiselect(key="arms").set_value(["lora@10", "lora@20"]).run()
    assert set(page.dataframe[0].value["arm"]) == {"lora@10", "lora@20"}
    page.multiselect(key="arms").set_value([]).run()
    assert "Choose one arm" in page.info[0].value


def test_samples_of_a_fate_with_both_answers(app: AppTest, db: Path) -> None:
    fill(db, 1)
    page = open_page(app, "samples", arm="lora@10", suite="g")
    frame = page.dataframe[0].value
    assert set(frame["fate"]) == {"lost"}
    assert len(frame) == 8
    assert "lost 8" in page.caption[0].value
    page.text_input(key="text").set_value('"i": 3}').run()
    assert page.dataframe[0].value["text"].tolist() == ['{"i": 3}']
    page.text_input(key="text").set_value("no such text").run()
    assert "No item is so" in page.info[0].value


def test_a_base_is_chosen_by_url_or_by_hand(app: AppTest, db: Path) -> None:
    fill(db, 1, 2)
    app.query_params["base"] = "c2"
    app.run()
    assert app.selectbox[0].value == "c2"
    app.selectbox[0].set_value("c1").run()
    assert set(app.dataframe[0].value["arm"]) >= {"c1"}


def test_no_store_an_empty_one_and_a_broken_one_say_so(app: AppTest, db: Path) -> None:
    app.run()
    assert "no such file; submit a checkpoint first" in app.error[0].value
    Store(db).register([arm(1)], [plan("g")], "host:1")
    time.sleep(0.1)
    import streamlit as st

    st.cache_data.clear()
    app.run()
    assert "Begin with `evalsvc demo`" in app.info[0].value
    db.write_text("broken " * 2000)
    st.cache_data.clear()
    app.run()
    assert "is not a DuckDB database file" in app.error[0].value


def test_missing_scores_are_said(app: AppTest, db: Path) -> None:
    store = fill(db, 1)
    store.register([arm(7, parent=arm(1).checkpoint)], [plan("d", 40, role="domain", text="d")], "host:1")
    app.run()
    assert "Not placed, scores are missing: c7" in app.warning[0].value


# ------------------------------------------------------------------------------------------------------------ browser


@pytest.fixture
def served(db: Path) -> Iterator[str]:
    """`evalsvc dashboard` as users start it."""
    fill(db, 1, 2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "evalsvc", "dashboard", "--db", str(db), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def test_the_frontier_in_a_real_browser(served: str) -> None:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"needs Chromium at {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    outside: list[str] = []

    def watch(page: Any) -> None:
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on(
            "request",
            lambda r: outside.append(r.url) if not r.url.startswith((served, "data:", "ws:", "blob:")) else None,
        )

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking", "--disable-quic"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1200})
        watch(page)
        page.goto(f"{served}/?base=c2")
        page.wait_for_selector(".js-plotly-plot .scatterlayer .points path", timeout=60_000)
        assert page.get_by_text("Learning and forgetting").is_visible()
        assert page.get_by_role("combobox").input_value() == "c2"
        shots = Path(os.environ.get("EVALSVC_SCREENSHOTS") or ROOT / "screenshots")
        shots.mkdir(exist_ok=True)
        page.screenshot(path=shots / "frontier.png", full_page=True)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(500)
        page.screenshot(path=shots / "frontier-390.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert not errors
    assert not outside
