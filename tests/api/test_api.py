"""The Python API: lazy, documented, and equal to what the commands print with --json."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evalsvc as ev
from tests.support.commands import Run
from tests.support.evidence import fill_store, make_binary
from tests.support.tasks import write_suites

FUNCTIONS = (
    "submit results compare frontier trajectory gate plan_gate verify advise import_lm_eval import_items open".split()
)
RETENTION = {"version": 1, "retention": [{"suite": "core", "margin": 0.05}]}


@pytest.fixture(scope="module")
def filled(models: Path, task_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store with a base and a training run of two steps."""
    folder = tmp_path_factory.mktemp("filled")
    store = ev.open(folder / "store.duckdb")
    suites = write_suites(folder, task_folder)
    cost = ev.Cost(gpu_hours=1.5)
    runs = store.submit(
        models / "run", base=models / "base", suites=suites, cost=cost, workers=0, device="cpu", progress=print
    )
    runs.raise_for_failures()
    return store


@pytest.fixture
def decided(db: Path) -> Any:
    """A store with two arms on 400 items, of which one lost 3 and gained 2."""
    fill_store(db, "core", {"a": make_binary(3, 2, 400)})
    return ev.open(db)


def path_of(store: Any) -> Path:
    path: Path = store.store.path
    return path


# ------------------------------------------------------------------------------------------------------------- import


def test_names_are_those_of_the_docstring_and_resolve() -> None:
    api = str(ev.__doc__).split("The packages,")[0]
    documented = re.findall(r"^    (\w+) ", api, re.MULTILINE)
    assert sorted([*documented, "__version__"]) == sorted(ev.__all__)
    for name in ev.__all__:
        assert getattr(ev, name) is not None
        assert name in dir(ev)
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = ev.absent


def test_import_loads_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import evalsvc\n"
        "names = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "outside = names - set(sys.stdlib_module_names) - {'evalsvc'}\n"
        "sys.exit(f'loaded: {outside}' if outside or 'evalsvc.api' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_submodule_shadows_a_name() -> None:
    code = (
        "import importlib, pkgutil, evalsvc\n"
        "modules = [module.name for module in pkgutil.iter_modules(evalsvc.__path__)]\n"
        "for name in set(modules) - {'__main__'}: importlib.import_module(f'evalsvc.{name}')\n"
        f"functions = [getattr(evalsvc, name) for name in {FUNCTIONS!r}]\n"
        "assert not set(modules) & set(evalsvc.__all__)\n"
        "assert all(callable(function) for function in functions), functions\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_function_is_a_method_of_an_open_store(db: Path) -> None:
    store = ev.open(db)
    assert repr(store) == f"evalsvc.open({str(db)!r})"
    for name in FUNCTIONS:
        if name != "open":
            method = getattr(store, name)
            assert method.__doc__ == getattr(ev, name).__doc__
            assert "db" in inspect.signature(getattr(ev, name)).parameters


# ------------------------------------------------------------------------------------------------------------- answers


def same(report: Any, done: Any) -> None:
    """Hold a report to what its command printed: the same object, and JSON holds it as it is."""
    assert report.to_dict() == done.json
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


@pytest.mark.parametrize(
    ("name", "arguments", "options", "command", "rows"),
    [
        ("results", [], {}, "results", "scores"),
        ("results", ["run@20"], {"suite": "general"}, "results --arm run@20 --suite general", "scores"),
        ("compare", ["run@20"], {}, "compare run@20", "tasks"),
        ("compare", ["run@20", "run@10"], {}, "compare run@20 --base run@10", "tasks"),
        ("frontier", [], {}, "frontier", "points"),
        ("frontier", ["base"], {"axes": ["learning", "gpu_hours"]}, "frontier --axes learning,gpu_hours", "points"),
    ],
)
def test_readers_answer_as_their_commands(
    evalsvc: Run, filled: Any, name: str, arguments: list[str], options: dict[str, Any], command: str, rows: str
) -> None:
    report = getattr(filled, name)(*arguments, **options)
    same(report, evalsvc(*command.split(), "--db", path_of(filled), "--json"))
    frame = report.to_pandas()
    assert len(frame) == len(report.to_dict()[rows])
    text = evalsvc(*command.split(), "--db", path_of(filled)).out
    assert [line.rstrip() for line in text.splitlines()] == [line.rstrip() for line in str(report).splitlines()]


def test_submit_reuses_what_is_there(evalsvc: Run, filled: Any, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALSVC_DB", str(path_of(filled)))
    runs = filled.submit(str(models / "run"), workers=0)
    done = evalsvc("submit", models / "run", "--workers", "0", "--json")
    same(runs, done)
    frame = runs.to_pandas()
    assert (frame["reused"] == frame["requests"]).all()
    assert set(frame["state"]) == {"done"}


def test_a_trajectory_has_one_row_per_step(evalsvc: Run, filled: Any) -> None:
    report = filled.trajectory("run", margin=0.03)
    same(report, evalsvc("trajectory", "run", "--margin", "0.03", "--db", path_of(filled), "--json"))
    frame = report.to_pandas()
    assert list(frame["step"]) == [10, 20]
    assert {"name", "learning.value", "forgetting.low"} <= set(frame.columns)


def test_costs_are_columns(filled: Any) -> None:
    frame = filled.frontier().to_pandas()
    assert dict(zip(frame["arm"], frame["cost.gpu_hours"], strict=True))["run@20"] == 1.5


def test_plan_gate_and_submit_with_a_policy(evalsvc: Run, filled: Any, models: Path, tmp_path: Path) -> None:
    policy = {"version": 1, "learning": {"suites": ["general"]}}
    (tmp_path / "policy.yaml").write_text(json.dumps(policy))
    report = filled.plan_gate("run@20", policy)
    command = ["gate", "run@20", "--policy", tmp_path / "policy.yaml", "--plan", "--json"]
    same(report, evalsvc(*command, "--db", path_of(filled)))
    assert list(report.to_pandas()["rule"]) == ["learning/general"]
    plans: list[Any] = []
    filled.submit(models / "run", workers=0, policy=policy, on_plan=plans.append)
    assert [rule.rule for rule in plans[0].rules] == ["learning/general"]


def test_gate_and_verify(evalsvc: Run, decided: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps(RETENTION))
    reports = [decided.gate("c2", policy) for policy in (path, RETENTION)]
    done = evalsvc("gate", "c2", "--policy", path, "--db", path_of(decided), "--json")
    assert done.code == reports[0].exit_code == 0
    for report in reports:
        assert {**report.to_dict(), "decision": None} == {**done.json, "decision": None}
    assert reports[0].verdict == "pass"
    assert list(reports[0].to_pandas()["rule"]) == ["retention/core"]
    kept = reports[1].decision.path
    same(decided.verify(kept), evalsvc("verify", kept, "--db", path_of(decided), "--json"))
    record = json.loads(kept.read_text())
    assert decided.verify(record).is_equal
    broken = decided.verify({**record, "verdict": "fail"})
    assert len(broken.to_pandas()) == len(broken.differences) > 0


def test_advise_takes_the_cheapest_arm_that_passes(decided: Any) -> None:
    report = decided.advise(margin=0.05)
    assert report.to_dict()["chosen"] == report.choice.arm == "c1"  # nothing to learn: the base itself
    assert set(report.to_pandas()["verdict"]) <= {"pass", "not needed", "no arm"}
    none = decided.advise(learning=["core"], min_gain=0.5, margin=0.05)
    assert none.to_dict()["chosen"] is None
    assert "no arm passes" in str(none)


def test_import_lm_eval(evalsvc: Run, tmp_path: Path) -> None:
    files = {}
    for name, value in (("base", 0.5), ("step100", 0.4)):
        files[name] = tmp_path / f"{name}.json"
        task = {"alias": "copa", "acc,none": value, "acc_stderr,none": 0.05}
        files[name].write_text(json.dumps({"results": {"copa": task}, "n-samples": {"copa": {"effective": 100}}}))
    api, cli = tmp_path / "api.duckdb", tmp_path / "cli.duckdb"
    report = ev.import_lm_eval(files["base"], suite="nlp", role="general", db=api)
    command = ["import", "lm-eval", files["base"], "--suite", "nlp", "--role", "general", "--db", cli, "--json"]
    same(report, evalsvc(*command))
    assert evalsvc("results", "--db", api, "--json").json == evalsvc("results", "--db", cli, "--json").json


def test_import_items_of_a_table(evalsvc: Run, tmp_path: Path) -> None:
    import pandas as pd

    table = tmp_path / "items.parquet"
    rows = [(arm, i, int(arm == "base" or i % 4 > 0)) for arm in ("base", "lora") for i in range(40)]
    pd.DataFrame(rows, columns=["system", "id", "right"]).to_parquet(table)
    store = ev.open(tmp_path / "api.duckdb")
    columns = {"arm": "system", "item": "id", "value": "right"}
    report = store.import_items(table, suite="s", role="general", base="base", method="lora", **columns)
    command = ["import", "items", table, "--suite", "s", "--role", "general", "--base", "base", "--method", "lora"]
    command += [part for name, column in columns.items() for part in (f"--{name}", column)]
    same(report, evalsvc(*command, "--db", tmp_path / "cli.duckdb", "--json"))
    assert store.compare("lora").tasks[0].lost == 10


# ------------------------------------------------------------------------------------------------------------ mistakes


def test_unknown_values_are_refused_in_one_line(decided: Any, models: Path, tmp_path: Path) -> None:
    calls: list[tuple[Any, str]] = [
        (lambda: decided.submit(models / "run", quantised="int3"), "quantised 'int3': must be one of int8, nf4"),
        (lambda: decided.submit(models / "run", rendering="none"), "rendering 'none': must be one of base, adapted"),
        (lambda: decided.submit(models / "run", device="tpu"), "device 'tpu': must be one of auto, cpu"),
        (lambda: decided.gate("c2", RETENTION, half="third"), "half 'third': must be one of select, confirm"),
        (lambda: decided.gate("c2", {"version": 1, "margin": 1}), "policy: margin: unknown key"),
        (lambda: decided.import_lm_eval([], suite="s", role="all"), "role 'all': must be one of domain, general"),
        (lambda: decided.frontier(axes="learning,height"), "axes learning,height: must be two or more of"),
        (lambda: decided.frontier(at_learning=math.nan), "at_learning nan: must be a finite number"),
        (lambda: decided.trajectory(margin=-1), "margin -1: must be a finite number of at least 0"),
        (lambda: decided.trajectory(margin=math.nan), "margin nan: must be a finite number of at least 0"),
        (lambda: decided.advise(margin=5), "criteria: retention[0].margin: Input should be less than 1, got 5"),
        (lambda: decided.advise(learning="core", min_gain=2), "criteria: learning.min_gain:"),
        (lambda: decided.results(suite="cor"), "suite 'cor': has no scores; suites with scores: core"),
        (lambda: decided.submit(models / "run", shots=0), "shots 0: must be at least 1"),
        (lambda: decided.submit(models / "run", step=-3), "step -3: must be at least 0"),
        (lambda: decided.submit(models / "run", workers=-1), "workers -1: must be at least 0"),
        (
            lambda: decided.submit(models / "run", cost=ev.Cost(gpu_hours=-1)),
            "cost: gpu_hours is -1, must be a finite number of at least 0",
        ),
        (
            lambda: decided.submit(models / "run", cost=ev.Cost(trainable_share=1.5)),
            "cost: trainable_share is 1.5, must be at most 1",
        ),
        (
            lambda: decided.submit(models / "run", cost=ev.Cost(train_tokens=2.5)),  # type: ignore[arg-type]
            "cost: train_tokens is 2.5, must be a whole number",
        ),
        (
            lambda: decided.submit(models / "run", cost=ev.Cost(tokens_per_query=9)),
            "cost: tokens_per_query is measured, it cannot be declared; leave it out",
        ),
        (
            lambda: decided.submit(models / "run", cost=ev.Cost(gpu_hours=math.nan)),
            "cost: gpu_hours is nan, must be a finite number of at least 0",
        ),
    ]
    for call, message in calls:
        with pytest.raises(ev.UsageError, match=re.escape(message)) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(ev.StoreError):
        ev.results(db=tmp_path / "absent.duckdb")
    with pytest.raises(ev.EvidenceError):
        decided.trajectory()
    with pytest.raises(ev.UsageError, match=r"decision absent\.json: cannot be read: No such file"):
        decided.verify("absent.json")
    with pytest.raises(ev.EvidenceError, match="did you mean core"):
        decided.gate("c2", {"version": 1, "retention": [{"suite": "cor", "margin": 0.05}]})
    with pytest.raises(ev.EvidenceError, match="there is nothing to judge arms by"):
        decided.advise(retention=[])
    with pytest.raises(ev.EvidenceError, match="decision: is not a decision record"):
        decided.verify({})


# ------------------------------------------------------------------------------------------------------------ notebook


def test_a_notebook_shows_tables_whose_text_is_escaped(db: Path) -> None:
    fill_store(db, "<b>core</b>", {"<script>alert(1)</script>\x1b[31m": make_binary(60, 2, 400)})
    store = ev.open(db)
    for report in (store.results(), store.results("c2"), store.compare("c2")):
        page = report._repr_html_()
        assert "<table>" in page
        assert "<script>" not in page
        assert "<b>core" not in page
        assert "&lt;b&gt;core&lt;/b&gt;" in page
        assert "\x1b" not in page + str(report)
        assert len(repr(report)) < 100


def test_reports_are_found_by_every_name_they_are_made_under() -> None:
    """Every report of the package says which rows a DataFrame has."""
    from evalsvc.reports.report import Report

    for module in pkgutil.iter_modules(importlib.import_module("evalsvc.reports").__path__):
        importlib.import_module(f"evalsvc.reports.{module.name}")
    kinds = Report.__subclasses__()
    assert len(kinds) > 15
    assert all(kind.ROWS.isidentifier() and kind.__doc__ for kind in kinds)
