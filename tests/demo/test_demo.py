"""The demo: an honest world, models that really forget, and a README that shows what it prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evalsvc.demo import task_files, world
from evalsvc.demo.run import ADAPTED, BASE
from tests.conftest import ROOT
from tests.support.commands import Run, run_command

pytestmark = pytest.mark.slow

# --------------------------------------------------------------------------------------------------------------- world


def test_shipped_items_are_what_the_world_says() -> None:
    shipped = {
        str(path.relative_to(ROOT / "suites")) for path in (ROOT / "suites" / "tasks").rglob("*") if path.is_file()
    }
    files = task_files.suite_files()
    assert shipped == set(files)
    for name, content in files.items():
        assert (ROOT / "suites" / name).read_text(encoding="utf-8") == content, name


@pytest.mark.parametrize("make", [world.valley_texts, world.clinic_notes, world.clinic_questions])
def test_texts_are_a_function_of_their_seed(make: Callable[[int, int], list[str]]) -> None:
    assert make(3, 200) == make(3, 200)
    assert make(3, 200) != make(4, 200)


def test_no_item_is_seen_in_training_with_its_answer() -> None:
    seen = "\n".join(text for training in (BASE, *ADAPTED) for text in training.texts(0))
    for name, content in task_files.suite_files().items():
        for line in content.splitlines() if name.endswith(".jsonl") else []:
            item = json.loads(line)
            if "choices" in item:
                answer = f"{item['query']} {item['choices'][item['gold']]}"
            else:
                answer = item.get("text") or f"{item['query']} {item['answer']}\n"
            assert answer not in seen, f"{name}: {answer}"


# ---------------------------------------------------------------------------------------------------------------- demo

ROUGHLY = 0.3
"""How far a figure of the README may be from this machine's: what is learned or forgotten differs by up to 0.2 between
models of two seeds, and so between processors."""


@pytest.fixture(scope="module")
def demo() -> tuple[Path, str]:
    """The demo's folder and the output of a run that has nothing to do; the first run takes some minutes."""
    command = [sys.executable, "-m", "evalsvc", "demo"]
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    if "training" in again.stderr or "scoring" in again.stderr:
        again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "reusing base, full, lora-r4, lora-r32, cpt, cpt-replay" in again.stderr
    assert "training" not in again.stderr
    assert "scoring" not in again.stderr
    return ROOT / "evalsvc-demo", again.stdout


@cache
def frontier(folder: Path) -> dict[str, dict[str, Any]]:
    answer = run_command("frontier", "--db", folder / "evalsvc.duckdb", "--json").json
    return {point["arm"]: point for point in answer["points"]}


def test_the_demo_ends_with_the_frontier_the_report_and_how_to_go_on(demo: tuple[Path, str]) -> None:
    folder, output = demo
    assert "Learning and forgetting against base" in output
    assert "evalsvc-demo/report.html" in output
    assert "evalsvc dashboard --db evalsvc-demo/evalsvc.duckdb" in output
    assert (folder / "report.html").stat().st_size > 1_000_000


def test_forgetting_is_real_and_replay_prevents_it(demo: tuple[Path, str]) -> None:
    points = frontier(demo[0])
    assert len(points) == 16
    last = {name: points[name] for name in ("full@1200", "lora-r4@1200", "lora-r32@1200", "cpt@600", "cpt-replay@600")}
    assert all(point["learning_low"] > 0 for point in last.values())
    full, small, large, cpt, replay = last.values()
    assert full["learning"] > large["learning"] > small["learning"]
    assert full["forgetting_low"] > large["forgetting"] > small["forgetting"]
    assert full["forgetting_low"] > 0.1
    assert cpt["forgetting_low"] > replay["forgetting_high"]
    assert replay["on_frontier"]
    assert not cpt["on_frontier"]


def test_the_readme_shows_what_the_demo_prints(demo: tuple[Path, str]) -> None:
    """Its columns and arms; figures only roughly, as every kind of processor trains models of its own."""
    points = frontier(demo[0])
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    header, *lines = block.splitlines()
    printed = next(line for line in demo[1].splitlines() if "P(frontier)" in line)
    assert [column for column in re.split(r"[\s┃]+", printed) if column in header.split()] == header.split()
    rows = [re.split(r"\s+", line[4:].strip()) for line in lines]
    assert len(rows) == 5
    for name, method, *numbers in rows:
        assert re.search(rf"\b{name}\b", demo[1])
        point = points[name]
        assert point["method"] == method
        # P(frontier) is left out: of two arms that lie close together either may be ahead.
        shown = (point["learning"], point["forgetting"])
        assert [float(number) for number in numbers[:2]] == pytest.approx(shown, abs=ROUGHLY)
    # Listed as printed: who learned most comes first.
    assert [float(row[2]) for row in rows] == sorted((float(row[2]) for row in rows), reverse=True)


def test_the_gates_of_the_readme_decide_as_it_says(
    demo: tuple[Path, str], evalsvc: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^evalsvc (gate .*?) +# (\w+): exit code (\d)$", readme, re.MULTILINE)
    assert [said[1] for said in commands] == ["pass", "fail"]
    for command, verdict, code in commands:
        done = evalsvc(*command.split(), "--json")
        assert done.code == int(code), done.err
        assert done.json["verdict"] == verdict


@pytest.mark.parametrize(("mode", "most"), [("group_sequential", 0.4), ("finite_pool", 0.2)])
def test_four_times_the_margin_stops_early_on_real_models(
    demo: tuple[Path, str], tmp_path: Path, evalsvc: Run, mode: str, most: float
) -> None:
    loss = frontier(demo[0])["full@1200"]["forgetting"]
    policy, db = tmp_path / "policy.yaml", tmp_path / "store.duckdb"
    policy.write_text(f"version: 1\nmode: {mode}\nretention: [{{suite: valley, margin: {loss / 4}}}]\n")
    models = demo[0] / "models"
    command = ["gate", models / "full" / "checkpoint-1200", "--base", models / "base", "--policy", policy, "--db", db]
    options = ["--evaluate", "--workers", "0", "--device", "cpu", "--quiet", "--json"]
    done = evalsvc(*command, *options)
    assert done.code == 3, done.err
    asked = max(run["requests"] for run in evalsvc("status", "--db", db, "--json").json["runs"])
    assert asked <= most * 1164  # the requests of the whole suite
