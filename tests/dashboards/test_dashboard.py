"""The dashboard on a live store: its logic through AppTest, its looks in a real browser."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from evalsvc.gating.decisions import Question, decide
from evalsvc.gating.policy import LearningRule, Mode, Policy, RetentionRule
from evalsvc.records.arms import Arm, Cost, Finding
from evalsvc.records.plans import Failure, Response
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.store import Store
from tests.conftest import ROOT
from tests.support import dashboard
from tests.support.dashboard import CHROMIUM
from tests.support.evidence import fill_store
from tests.support.fakes import NUMERICS, grade_plan, make_arm, make_plan

APP = str(ROOT / "dashboards" / "app.py")
PAGES = ("compare", "samples", "trajectory", "advisor", "gate", "claims", "checkpoints", "runs")


def fill(db: Path, *numbers: int) -> Store:
    """Make a store with one base per number, each with a trajectory of two steps."""
    store = Store(db)
    domain, general = make_plan("d", 40, role="domain", text="d"), make_plan("g", 60, text="g")
    for number in numbers:
        base = make_arm(number)
        steps = [
            Arm(
                replace(
                    make_arm(100 * number + s, parent=base.checkpoint).checkpoint,
                    name="lora",
                    step=s,
                    trajectory="lora",
                ),
                NUMERICS,
            )
            for s in (10, 20)
        ]
        store.register([base, *steps], [domain, general], "host:1")
        for position, of in enumerate([base, *steps]):
            store.finish(of, domain, grade_plan(domain, [float(i < 10 + 12 * position) for i in range(40)]))
            store.finish(of, general, grade_plan(general, [float(i > 8 * position) for i in range(60)]))
    return store


@pytest.fixture
def app(db: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    import streamlit as st

    st.cache_resource.clear()
    monkeypatch.setenv("EVALSVC_DB", str(db))
    monkeypatch.syspath_prepend(str(ROOT / "dashboards"))
    return AppTest.from_file(APP, default_timeout=30)


def test_a_checkpoint_shows_its_dossier(app: AppTest, db: Path) -> None:
    base, lora, newest = (arm.checkpoint for arm in fill(db, 1).arms())
    page = app.switch_page("views/checkpoints.py").run()
    assert not page.exception
    assert page.code[0].value == f"evalsvc checkpoints compare {newest.digest[7:19]}"
    page.selectbox(key="checkpoint").select(f"{base.label} ({base.digest[7:19]})").run()
    assert "None: this is a base." in [caption.value for caption in page.caption]
    tensor = TensorChange(
        name="model.layers.0.self_attn.q_proj.weight",
        shape=(4, 4),
        changed=8,
        base_norm=2.0,
        norm=1.0,
        rank_90=3,
        effective_rank=2.5,
    )
    CheckpointFacts(db).keep_change(lora, WeightChange(100, 5, "|x| > 1", (tensor,)))
    CheckpointFacts(db).keep_findings(lora, [Finding("warning", "window", lora.label, "prompts are longer")])
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
    app.query_params.update({"methods": "lora", "ellipses": "true", "suites": ["d (domain)"]})
    app.run()
    assert not app.exception
    assert app.multiselect(key="suites").value == ["d"]  # and of the other role all
    assert len(app.dataframe[0].value) == 3
    assert app.multiselect(key="methods").value == ["lora"]
    assert app.toggle(key="ellipses").value
    app.selectbox(key="y").set_value("learning").run()
    assert "two different axes" in app.info[0].value
    app.selectbox(key="y").set_value("gpu_hours").run()
    assert not app.exception
    assert "No arm has a value on both axes" in app.warning[0].value


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
    totals = page.dataframe[0].value
    assert totals[["role", "suite"]].values.tolist() == [
        ["domain", "all"],
        ["general", "all"],
        ["domain", "d"],
        ["general", "g"],
    ]
    page.multiselect(key="arms").set_value(["lora@10", "lora@20"]).run()
    assert set(page.dataframe[0].value["arm"]) == {"lora@10", "lora@20"}
    page.multiselect(key="arms").set_value([]).run()
    assert "Choose at least one arm" in page.info[0].value


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
    assert "No items match" in page.info[0].value


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
    Store(db).register([make_arm(1)], [make_plan("g")], "host:1")
    time.sleep(0.1)
    import streamlit as st

    st.cache_resource.clear()
    app.run()
    assert "Start with `evalsvc demo`" in app.info[0].value
    db.write_text("broken " * 2000)
    st.cache_resource.clear()
    app.run()
    assert "is not a DuckDB database file" in app.error[0].value


def test_missing_scores_are_said(app: AppTest, db: Path) -> None:
    store = fill(db, 1)
    store.register(
        [make_arm(7, parent=make_arm(1).checkpoint)], [make_plan("d", 40, role="domain", text="d")], "host:1"
    )
    app.run()
    assert "Arms not placed: c7 lacks d, g" in app.warning[0].value


def gated(db: Path, margin: float = 0.5, mode: Mode = "fixed") -> None:
    """Keep a decision about the first step."""
    learning, retention = LearningRule(suites=("d",)), (RetentionRule(suite="g", margin=margin),)
    policy = Policy(version=1, mode=mode, learning=learning, retention=retention)
    decide(Store(db), Question(checkpoint=make_arm(110).checkpoint.digest, policy=policy))


def test_trajectory_marks_the_margin_and_says_which_step_breaks_it(app: AppTest, db: Path) -> None:
    fill(db, 1)
    page = open_page(app, "trajectory", margin="0.2")
    assert page.multiselect(key="runs").value == ["lora"]
    assert page.dataframe[0].value["forgetting"].round(3).tolist() == [0.133, 0.267]
    assert "step 20 is the first" in page.text[0].value
    page.selectbox(key="measure").set_value("g/g_task").run()
    assert not page.exception
    page.number_input(key="margin").set_value(0.3).run()
    assert "no step is estimated above the margin" in page.text[0].value


def test_claims_are_shown_by_verdict(app: AppTest, db: Path) -> None:
    fill(db, 1)
    page = open_page(app, "claims")
    assert "supported 0 · refuted 0 · undecided 3" in page.caption[0].value
    assert any(": too few; " in text.value for text in page.text)
    page.button_group(key="verdict").set_value(["supported"]).run()
    assert not any(": too few; " in text.value for text in page.text)


def test_runs_show_failures_and_how_to_resume(app: AppTest, db: Path) -> None:
    store = fill(db, 1)
    made, late = make_plan("g", 60, text="g"), make_arm(7, parent=make_arm(1).checkpoint)
    store.register([late], [made], "host:1")
    asked = [request.digest for request in made.requests]
    failures = tuple(Failure(request, "out of memory") for request in asked[:5])
    store.commit(
        [ShardResult(shard=Shard(key="k", arm=late, requests=tuple(asked)), responses=(), failures=failures)],
        {(late.key, made.digest): (0, 5)},
    )
    store.fail(late, made, "5 requests failed")
    page = open_page(app, "runs")
    frame = page.dataframe[0].value
    assert frame.iloc[0]["state"] == "failed"
    assert page.dataframe[1].value.to_dict("records") == [{"requests": 5, "reason": "out of memory"}]
    assert page.code[0].value == f"evalsvc submit /models/7 --base /models/1 --suite g --db {db}"


def test_gate_shows_kept_decisions_and_simulates(app: AppTest, db: Path) -> None:
    fill(db, 1)
    page = open_page(app, "gate", arm="lora@10", margin="0.3")
    assert "The store has no decision" in page.info[0].value
    assert "PASS" in page.success[0].value  # 8 of 60 lost
    page.number_input(key="margin").set_value(0.2).run()
    assert "INCONCLUSIVE" in page.warning[0].value
    page.number_input(key="factor").set_value(10.0).run()
    assert "PASS" in page.success[0].value
    gated(db)
    page.run()
    rules = page.dataframe[0].value
    assert rules["rule"].tolist() == ["learning/d", "retention/g"]
    assert rules["must exceed"].tolist() == [0.0, -0.5]
    assert page.dataframe[1].value["verdict"].tolist() == ["✓ pass"]
    next(button for button in page.button if button.label.startswith("Verify")).click().run()
    assert "The decision holds" in page.success[1].value


def test_gate_shows_the_looks_of_a_sequential_decision(app: AppTest, db: Path) -> None:
    fill(db, 1)
    gated(db, mode="group_sequential")
    page = open_page(app, "gate")
    looks = page.dataframe[1].value
    assert looks["interim look"].tolist() == list(range(1, len(looks) + 1))
    assert (looks["of"] == 100).all()
    assert looks["verdict"].iloc[-1] == "✓ pass"
    assert page.dataframe[0].value["look"].max() == len(looks)
    assert any("Mode group_sequential" in caption.value for caption in page.caption)


def test_gate_shows_the_runs_of_a_recipe_and_what_is_no_evidence(app: AppTest, db: Path) -> None:
    base, nothing = np.ones(200), np.zeros(200)
    for seed, lost in ((1, 4), (2, 6), (3, 5)):
        of = replace(make_arm(seed + 10, parent=make_arm(1).checkpoint).checkpoint, name=f"lora-{seed}", seed=seed)
        values = {"t": (base, (np.arange(200) >= lost).astype(float)), "none": (nothing, nothing)}
        fill_store(db, "core", values, adapted=Arm(of, NUMERICS))
    policy = Policy(version=1, retention=(RetentionRule(suite="core", margin=0.1),))
    decide(Store(db), Question(checkpoint="lora-*", policy=policy, is_recipe=True))
    page = open_page(app, "gate")
    runs, rules = page.dataframe[0].value, page.dataframe[1].value
    assert runs[["run", "arm", "seed"]].to_numpy().tolist() == [[1, "lora-1", 1], [2, "lora-2", 2], [3, "lora-3", 3]]
    assert "mean of 3 independent runs" in page.success[0].value
    assert rules["rule"].tolist() == ["retention/core"]
    assert not {"waived", "no evidence", "look", "needs n"} & set(rules)
    (notes,) = page.table[0].value["notes"]
    assert notes == "no evidence:\u200b core/none at zero; runs -0.010, -0.015, -0.013"


def test_advisor_takes_the_cheapest_that_passes(app: AppTest, db: Path) -> None:
    fill(db, 1)
    page = open_page(app, "advisor", margin="0.3")
    assert "Use lora" in page.success[0].value
    frame = page.dataframe[0].value
    assert frame["kind"].tolist() == ["base", "icl", "rag", "peft", "peft", "full", "cpt"]
    assert frame["verdict"].tolist()[3:5] == ["✓ pass", "· not needed"]
    page.number_input(key="gain").set_value(0.5).run()
    assert "No arm passes" in page.warning[0].value


@pytest.mark.parametrize("page", PAGES)
def test_every_page_says_how_to_begin_and_what_is_wrong(app: AppTest, db: Path, page: str) -> None:
    import streamlit as st

    shown = open_page(app, page)
    assert "no such file" in shown.error[0].value
    Store(db).register([], [], "host:1")
    st.cache_resource.clear()
    shown.run()
    assert not shown.exception
    assert shown.info
    edit(db, "DELETE FROM _migrations WHERE name = (SELECT max(name) FROM _migrations)")
    st.cache_resource.clear()
    assert said(shown) == f"store {db}: was written by an older evalsvc; run `evalsvc status` to upgrade it"
    edit(db, "INSERT INTO _migrations VALUES ('m999_future', now()::TIMESTAMP)")
    st.cache_resource.clear()
    assert "was written by a newer evalsvc (schema m999_future); upgrade this one" in said(shown)


def edit(db: Path, statement: str) -> None:
    """Change a store behind evalsvc's back."""
    connection = duckdb.connect(str(db))
    connection.execute(statement)
    connection.close()


def said(page: AppTest) -> str:
    """Run a page that can only say what is wrong, in one line."""
    page.run()
    assert not page.exception
    assert [len(page.error), len(page.dataframe), len(page.get("plotly_chart"))] == [1, 0, 0]
    text = page.error[0].value.replace("\\", "")
    assert "\n" not in text
    return text


@contextmanager
def writer(code: str, db: Path) -> Iterator[subprocess.Popen[str]]:
    """Run code in a process of its own, up to its first line of output."""
    command = [sys.executable, "-c", code, str(db)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout
        assert process.stdout.readline()
        yield process
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(60)


HOLD = """
import sys
from pathlib import Path
from evalsvc.store.database import Database
with Database(Path(sys.argv[1])).write():
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_IT_OTHERWISE = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("code", [HOLD, HOLD_IT_OTHERWISE], ids=["a long write", "a shell"])
def test_a_locked_store_says_so(app: AppTest, db: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import stored
    import streamlit as st

    monkeypatch.setattr(stored, "WAIT", 0.3)
    fill(db, 1)
    with writer(code, db):
        for page in PAGES:
            st.cache_resource.clear()
            app.switch_page(f"views/{page}.py")
            assert "locked by another process for more than 0.3 s; close that process" in said(app)
    app.switch_page("views/frontier.py").run()
    assert not app.error
    assert len(app.dataframe[0].value) == 3


WRITE = """
import sys, time
from pathlib import Path
from evalsvc.store.store import Store
from tests.support.fakes import make_arm, grade_plan, make_plan
store = Store(Path(sys.argv[1]))
domain, general = make_plan("d", 40, role="domain", text="d"), make_plan("g", 60, text="g")
print("ready", flush=True)
for number in range(500, 559):
    late = make_arm(number, parent=make_arm(1).checkpoint)
    store.register([late], [domain, general], "host:1")
    store.finish(late, domain, grade_plan(domain, [float(i < 10 + number - 500) for i in range(40)]))
    store.finish(late, general, grade_plan(general, [float(i > number - 500) for i in range(60)]))
    time.sleep(0.3)
"""


def test_while_a_run_writes_every_page_shows_one_consistent_picture(app: AppTest, db: Path) -> None:
    fill(db, 1)
    seen = set()
    with writer(WRITE, db) as process:
        for page in ("compare", "samples", "runs", "compare", "samples", "runs"):
            app.switch_page("views/frontier.py").run()
            assert not app.exception
            assert not [error.value for error in app.error]
            frame = app.dataframe[0].value.set_index("arm")
            missing = " ".join(warning.value for warning in app.warning)
            late = [name for name in frame.index if name.startswith("c5")]
            seen.add(len(late))
            for name in late:  # all of an arm's items or none, paired with the base's
                number = int(name[1:]) - 500
                assert frame.loc[name, "learning"] == pytest.approx(min(number, 30) / 40)
                assert frame.loc[name, "forgetting"] == pytest.approx(number / 60)
                assert name not in missing
            # Arms are finished one after another: whoever is shown, those before are too.
            assert sorted(late) == [f"c{number}" for number in range(500, 500 + len(late))]
            app.switch_page(f"views/{page}.py").run()
            assert not app.exception
            assert not [error.value for error in app.error]
        process.kill()
    assert len(seen) > 2


STYLE_SHEET = 'st.html(Path(__file__).with_name("figures.css"))'
"""The one place where Streamlit is given something to take as it is: a file of ours, and no text of anybody's."""
CHOICES = {"selectbox", "multiselect", "number_input", "text_input", "toggle", "pills", "slider", "checkbox"}


@pytest.mark.parametrize("path", sorted((ROOT / "dashboards").rglob("*.py")), ids=lambda path: path.name)
def test_every_choice_is_in_the_url_and_no_text_is_markup(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert "unsafe_allow_html" not in source
    assert "st.html" not in source.replace(STYLE_SHEET, "")
    assert ":material/" not in source  # an icon that is fetched from elsewhere
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHOICES:
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert given.get("bind") == "'query-params'", f"line {node.lineno}: {node.func.attr}"
    for node in tree.body[1:]:  # Streamlit shows a bare text on the page
        assert not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or path.parent.name != "views"


# ------------------------------------------------------------------------------------------------------------ browser

EVIL = "<img src=x onerror=alert(1)> ![x](http://203.0.113.9/x.png) :red[x] $x$"


def fill_richly(db: Path) -> None:
    """Make a store in which every page has something to show, under a name that tries to be markup."""
    store = fill(db, 1, 2)
    base = make_arm(1)
    names = [("full", "full", None), ("cpt", "cpt", None), (EVIL, "lora", None), *((EVIL, "full", s) for s in (10, 20))]
    domain, general = make_plan("d", 40, role="domain", text="d"), make_plan("g", 60, text="g")
    asked = {request.digest for what in (domain, general) for request in what.requests}
    arms = []
    for number, (name, method, step) in enumerate(names):
        made = replace(
            make_arm(900 + number, parent=base.checkpoint).checkpoint,
            name=name,
            method=method,
            step=step,
            trajectory=name if step else None,
            cost=Cost(gpu_hours=1.0 + number, train_tokens=10**6 * (number + 1)),
        )
        arms.append(Arm(made, NUMERICS))
    store.register(arms, [domain, general], "host:1")
    for position, of in enumerate([base, *arms]):
        answers = tuple(
            Response(request=d, loglikelihood=-1.0 - n % 3, greedy=n % 3 == 0) for n, d in enumerate(sorted(asked))
        )
        store.commit([ShardResult(shard=Shard(key="k", arm=of, requests=tuple(asked)), responses=answers)], {})
        if position:
            store.finish(of, domain, grade_plan(domain, [float(i < 8 + 6 * position) for i in range(40)]))
            store.finish(of, general, grade_plan(general, [float((i * 7) % 60 > 5 * position) for i in range(60)]))
            store.add_drift(of, general, "g_task", {general.tasks[0].samples[0].digest: [0.01 * position] * 5})
    late = make_arm(7, parent=base.checkpoint)
    store.register([late], [general], "host:1")
    store.fail(late, general, f"stopped {EVIL}")
    tensors = tuple(
        TensorChange(
            name=f"model.layers.{layer}.{part}.weight",
            shape=(4, 4),
            changed=8,
            base_norm=2.0,
            norm=0.1 * (layer + 1),
            rank_90=3,
            effective_rank=2.5,
        )
        for layer in range(6)
        for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")
    )
    for of in arms:
        CheckpointFacts(db).keep_change(of.checkpoint, WeightChange(100, 5, "|x| > 1", tensors))
        CheckpointFacts(db).keep_findings(of.checkpoint, [Finding("warning", "window", of.label, f"prompts {EVIL}")])
    gated(db)
    gated(db, 0.1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`evalsvc dashboard` as users start it, on a store made for it, or on the one to take screenshots of."""
    db = tmp_path_factory.mktemp("served") / "store.duckdb"
    if given := os.environ.get("EVALSVC_SCREENSHOTS_OF"):
        shutil.copy(given, db)
    else:
        fill_richly(db)
    with dashboard.serve_dashboard(db) as (address, _):
        yield address


def serious(message: Any) -> bool:
    """Whether a console message is an error; Streamlit itself asks for its health below a page's path, then above."""
    return message.type == "error" and "/_stcore/" not in str(message.location.get("url"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests, so that the dashboard's scripts are fetched and compiled once."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"needs Chromium at {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--disable-quic", "--disable-gpu"],
        )
        yield launched.new_context(viewport={"width": 1280, "height": 1200})
        launched.close()


@pytest.fixture
def page(browser: Any, served: str) -> Iterator[Any]:
    """A page on which no error may be logged and no request may leave the machine."""
    errors: list[str] = []
    outside: list[str] = []
    tab = browser.new_page()
    tab.on("console", lambda m: errors.append(f"{m.text} {m.location}") if serious(m) else None)
    tab.on("pageerror", lambda e: errors.append(str(e)))
    tab.on(
        "request",
        lambda r: outside.append(r.url) if not r.url.startswith((served, "data:", "ws:", "blob:")) else None,
    )
    yield tab
    tab.close()
    assert not errors
    assert not outside


def settled(page: Any) -> None:
    """Wait until a page has run to its end, and shows no exception."""
    page.wait_for_selector("[data-testid=stMain] h1", timeout=180_000)
    page.wait_for_function(
        "document.querySelector('[data-testid=stApp]').getAttribute('data-test-script-state') == 'notRunning'",
        timeout=180_000,
    )
    page.wait_for_timeout(700)
    assert page.locator("[data-testid=stException]").count() == 0


LINKS = {
    "frontier": "/?base=c1&ellipses=true",
    "compare": "/compare?base=c1&arms=full&arms=cpt&margin=0.05",
    "samples": "/samples?base=c1&arm=cpt&suite=g&fate=lost",
    "trajectory": "/trajectory?base=c1",
    "advisor": "/advisor?base=c1&margin=0.3",
    "gate": "/gate",
    "simulator": "/gate?base=c1&arm=cpt&margin=0.15",
    "claims": "/claims",
    "checkpoints": "/checkpoints?checkpoint=full+(000000000000)",
    "runs": "/runs",
}


@pytest.mark.slow
def test_every_page_in_a_real_browser(page: Any, served: str) -> None:
    shots = os.environ.get("EVALSVC_SCREENSHOTS")
    dark = LINKS if shots else ("frontier", "simulator", "claims", "trajectory")  # one theme for all figures
    for (name, link), scheme in product(LINKS.items(), ("light", "dark")):
        if scheme == "dark" and name not in dark:
            continue
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": 1280, "height": 1200})
        if scheme == "light":
            page.goto(f"{served}{link}")
        settled(page)
        if name == "simulator":
            page.get_by_role("tab", name="Simulator").click()
        tables = {"claims", "runs", "advisor", "samples"}
        if name not in tables | ({"checkpoints"} if "EVALSVC_SCREENSHOTS_OF" in os.environ else set()):
            page.locator(".js-plotly-plot .cartesianlayer:visible").first.wait_for(timeout=180_000)
        assert page.locator("img[src=x]").count() == 0
        page.wait_for_timeout(300)
        if shots:
            page.screenshot(path=f"{shots}/{name}-{scheme}.png", full_page=True)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(500)
        if shots:
            page.screenshot(path=f"{shots}/{name}-{scheme}-390.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        readable(page)


def readable(page: Any) -> None:
    """Check that the text of figures stands out from the page: a contrast of 4.5 or more (WCAG 2.2, AA)."""
    colours = page.evaluate(
        "[getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor].concat("
        "[...document.querySelectorAll('.js-plotly-plot svg text')].map(e => getComputedStyle(e).fill))"
    )
    shades = [luminance(colour) for colour in dict.fromkeys(colours)]
    for shade in shades[1:]:
        lighter, darker = max(shade, shades[0]), min(shade, shades[0])
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, colours


STYLED = """window.styled = 0; new MutationObserver(found => {
    window.styled += found.filter(one => one.target.classList.contains('point')).length
}).observe(document, {subtree: true, attributes: true, attributeFilter: ['d']})"""


def test_the_style_sheet_asks_for_nothing_from_elsewhere() -> None:
    sheet = (ROOT / "dashboards" / "figures.css").read_text(encoding="utf-8")
    assert not [word for word in ("<", "@import", "url(", "//") if word in sheet]


@pytest.mark.slow
def test_a_figure_is_drawn_once(page: Any, served: str) -> None:
    page.add_init_script(STYLED)
    page.goto(f"{served}/?base=c1")
    points = page.locator(".js-plotly-plot .scatterlayer path.point")
    points.first.wait_for(timeout=180_000)
    settled(page)
    # Plotly shapes every marker, then styles all of them.
    assert page.evaluate("window.styled") == 2 * points.count()


def luminance(colour: str) -> float:
    """Return the relative luminance of "rgb(...)"."""
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.slow
def test_a_deep_link_and_a_selection_in_a_real_browser(page: Any, served: str) -> None:
    page.goto(f"{served}/compare?base=c1&arms=full&arms=cpt&margin=0.05")
    settled(page)
    assert page.get_by_text("Compare", exact=True).count() >= 1
    for name in ("full", "cpt"):
        assert page.locator("[data-baseweb=tag]", has_text=name).or_(page.get_by_text(name, exact=True)).count() >= 1
    assert "margin=0.05" in page.url
    page.goto(f"{served}/?base=c1")
    settled(page)
    points = page.locator(".js-plotly-plot .scatterlayer .points path")
    points.nth(0).wait_for(timeout=180_000)
    points.nth(0).hover(force=True)
    page.wait_for_timeout(300)
    points.nth(0).click(force=True)
    page.get_by_text("Selected:").wait_for(timeout=20_000)
    first = page.get_by_text("Selected:").inner_text()
    # The table is a canvas: the box that ticks its third row stands in its first column.
    rows = page.locator("[data-testid=stDataFrame] canvas").first
    rows.scroll_into_view_if_needed()
    rows.click(position={"x": 16, "y": 3.5 * 35}, force=True)
    page.get_by_text(f"{first}, ").wait_for(timeout=20_000)
    page.get_by_role("link", name="Compare them").click()
    page.wait_for_url("**/compare?**", timeout=20_000)
    settled(page)
    assert "arms=" in page.url


@pytest.mark.slow
def test_pages_and_choices_are_reached_by_keyboard(page: Any, served: str) -> None:
    page.goto(f"{served}/?base=c1")
    settled(page)
    reached: list[str] = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.ariaLabel || document.activeElement.innerText || '')"))
        if reached[-1].endswith("Base"):
            break
    assert {"Compare", "Gate", "Runs"} <= {text.strip() for text in reached}
    for key in ("ArrowDown", "ArrowDown", "Enter"):  # opens the list, goes to its second base, takes it
        page.keyboard.press(key)
        page.wait_for_timeout(300)
    page.wait_for_url("**base=c2**", timeout=20_000)
    settled(page)
