"""The CI action's script, run by a shell, for every exit code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from evalsvc.store.database import Database
from tests.conftest import ROOT
from tests.support.evidence import fill_store, make_binary

pytestmark = pytest.mark.slow

ACTION = ROOT / ".github" / "actions" / "gate"
POLICY = {"version": 1, "retention": [{"suite": "core", "margin": 0.05}]}


@pytest.fixture
def gate(tmp_path: Path, db: Path) -> Callable[..., Any]:
    """Run the script in an empty folder, with an evalsvc on the path."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    command = bin_folder / "evalsvc"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m evalsvc "$@"\n')
    command.chmod(0o755)
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(POLICY))

    def run(checkpoint: str = "c2", **settings: str) -> Any:
        environment = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "EVALSVC_DB": str(db),
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "GATE_CHECKPOINT": checkpoint,
            "GATE_POLICY": "policy.yaml",
            **settings,
        }
        (tmp_path / "output").write_text("")
        return subprocess.run(
            ["bash", str(ACTION / "gate.sh")],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def outputs(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "output").read_text().splitlines())


@pytest.mark.parametrize(("lost", "code", "verdict"), [(5, 0, "pass"), (60, 3, "fail"), (15, 4, "inconclusive")])
def test_verdicts(gate: Callable[..., Any], tmp_path: Path, db: Path, lost: int, code: int, verdict: str) -> None:
    fill_store(db, "core", {"t": make_binary(lost, 5, 300)})
    done = gate()
    assert done.returncode == code, done.stderr
    assert outputs(tmp_path) == {"verdict": verdict, "exit-code": str(code)}
    assert verdict.upper() in (tmp_path / "summary.md").read_text()
    suite = ElementTree.parse(tmp_path / "evalsvc-gate.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("failures"), suite.get("errors")) == ("0" if verdict == "pass" else "1", "0")


def test_no_evidence(gate: Callable[..., Any], tmp_path: Path, db: Path) -> None:
    fill_store(db, "other", {"t": make_binary(5, 5, 300)})
    done = gate()
    assert (done.returncode, outputs(tmp_path)["verdict"]) == (5, "none")
    assert "NO VERDICT" in (tmp_path / "summary.md").read_text()
    assert "<error" in (tmp_path / "evalsvc-gate.xml").read_text()


def test_usage(gate: Callable[..., Any], tmp_path: Path, db: Path) -> None:
    fill_store(db, "core", {"t": make_binary(5, 5, 300)})
    assert gate("nobody").returncode == 2
    assert gate(GATE_ARGUMENTS="--no-such-flag").returncode == 2
    assert gate(EVALSVC_DB=str(tmp_path / "none.duckdb")).returncode == 2
    assert outputs(tmp_path)["verdict"] == "none"
    assert gate(GATE_CHECKPOINT="").returncode not in (0, 3, 4)


def test_internal_error(gate: Callable[..., Any], tmp_path: Path, db: Path) -> None:
    fill_store(db, "core", {"t": make_binary(5, 5, 300)})
    with Database(db).write() as connection:
        connection.execute("DROP TABLE scores")
    done = gate()
    assert (done.returncode, outputs(tmp_path)["verdict"]) == (1, "none")
    assert "internal error" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_are_arguments_and_never_commands(gate: Callable[..., Any], tmp_path: Path, db: Path) -> None:
    fill_store(db, "core", {"t": make_binary(5, 5, 300)})
    assert gate("$(touch hacked); touch hacked", GATE_BASE="`touch hacked`").returncode == 2
    assert gate("--plan").returncode == 2  # a checkpoint that looks like a flag is still a checkpoint
    assert not (tmp_path / "hacked").exists()
    done = gate(GATE_BASE="c1", GATE_ARGUMENTS="--markdown\nsome file.md\n", GATE_JUNIT="reports.xml")
    assert done.returncode == 0
    assert (tmp_path / "some file.md").is_file()
    assert (tmp_path / "reports.xml").is_file()


def test_the_action_passes_every_input_to_the_script() -> None:
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    (step,) = [step for step in action["runs"]["steps"] if step.get("id") == "gate"]
    used = set(re.findall(r"inputs\.([a-z-]+)", str(action["runs"])))
    assert used == set(action["inputs"])
    assert "inputs." not in step["run"]
    script = (ACTION / "gate.sh").read_text()
    assert all(name in script for name in step["env"] if name.startswith("GATE_"))


def test_the_gitlab_job_is_a_gate() -> None:
    job = yaml.safe_load((ACTION / "gitlab.yml").read_text())["evalsvc-gate"]
    from evalsvc import cli

    (script,) = job["script"]
    import typer.main

    command = typer.main.get_command(cli.app).commands["gate"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z]+", script)) <= known
    assert job["artifacts"]["reports"]["junit"] in script


@pytest.mark.parametrize(("lost", "code"), [(5, 0), (None, 5)])
def test_the_gitlab_job_ends_as_the_gate_does(
    gate: Callable[..., Any], tmp_path: Path, db: Path, lost: int | None, code: int
) -> None:
    fill_store(db, "core" if lost is not None else "other", {"t": make_binary(lost or 0, 5, 300)})
    job = yaml.safe_load((ACTION / "gitlab.yml").read_text())["evalsvc-gate"]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    settings = {**job["variables"], "CHECKPOINT": "c2", "EVALSVC_DB": str(db)}
    done = subprocess.run(
        ["sh", "-c", *job["script"]], cwd=tmp_path, env=environment | settings, capture_output=True, check=False
    )
    assert done.returncode == code, done.stderr
    ElementTree.parse(tmp_path / job["artifacts"]["reports"]["junit"])
    assert all((tmp_path / path).read_text() for path in job["artifacts"]["paths"])
