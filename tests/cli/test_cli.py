"""The command line: answers on stdout, everything else on stderr, one line and an exit code for every mistake."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.text import Text
from typer.main import get_command

from evalsvc import cli
from evalsvc.store.store import Store
from tests.support.commands import Run, list_commands, run_command
from tests.support.tasks import write_suites

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def filled(models: Path, task_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A store with a base, a LoRA trajectory and a full fine-tune on both suites."""
    folder = tmp_path_factory.mktemp("filled")
    suites = write_suites(folder, task_folder)
    db = folder / "store.duckdb"
    options: list[str | Path] = ["--base", models / "base", "--db", db, "--workers", "0", "--quiet", "--json"]
    options += [part for suite in suites for part in ("--suite", suite)]
    # In a process of its own as users start it, so that nothing but the answer is on its streams; then in this one.
    command = [sys.executable, "-m", "evalsvc", "submit", models / "run", "--method", "lora", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    inside = run_command("submit", models / "full", "--method", "cpt", *options)
    for code, out, err in ((done.returncode, done.stdout, done.stderr), inside):
        assert (code, err) == (0, "")
        assert {run["state"] for run in json.loads(out)["runs"]} == {"done"}
    return db, suites


# --------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", list_commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(evalsvc: Run, command: list[str]) -> None:
    done = evalsvc(*command, "--help")
    assert done.code == 0
    assert "evalsvc" in done.out.split("Usage:")[1]
    assert "Example" in done.out


@pytest.mark.parametrize("command", list_commands(), ids=" ".join)
def test_no_text_of_the_help_is_taken_for_markup(evalsvc: Run, command: list[str]) -> None:
    group: Any = get_command(cli.app)
    for name in command:
        group = group.commands[name]
    for text in [
        group.help,
        group.epilog,
        *(parameter.help for parameter in group.params if hasattr(parameter, "help")),
    ]:
        assert text is None or Text.from_markup(text).plain == text


def test_the_help_is_one_screen_of_commands_in_panels(evalsvc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = evalsvc("--help").out.splitlines()
    assert len(lines) <= 50
    titles = [line.split()[1] for line in lines if line.startswith("╭─")]
    assert titles == ["Options", "Run", "Understand", "Decide", "Share", "Manage"]


def test_the_version_is_that_of_the_package(evalsvc: Run) -> None:
    assert evalsvc("--version").out == f"evalsvc {version('evalsvc')}\n"


def test_the_installed_script_answers_help() -> None:
    script = Path(sys.executable).parent / "evalsvc"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for name in ("demo", "submit", "status", "results", "compare", "frontier", "dashboard", "report", "doctor"):
        assert name in done.stdout


# ------------------------------------------------------------------------------------------------------------ answers


def test_submit_again_reuses_everything(evalsvc: Run, filled: tuple[Path, tuple[str, ...]], models: Path) -> None:
    done = evalsvc("submit", models / "run", "--db", filled[0], "--workers", "0", "--json")
    assert done.code == 0
    assert done.json["schema"] == 1
    for run in done.json["runs"]:
        assert run["reused"] == run["requests"] == run["answered"]
    assert {"run", "arm", "checkpoint", "digest", "method", "step", "suite", "state"} <= done.json["runs"][0].keys()


def test_the_label_of_a_stored_arm_is_submitted_from_its_folder(
    evalsvc: Run, filled: tuple[Path, tuple[str, ...]]
) -> None:
    done = evalsvc("submit", "run@20", "--suite", filled[1][0], "--db", filled[0], "--workers", 0, "--json")
    assert done.code == 0, done.err
    assert {(run["arm"], run["reused"] == run["requests"]) for run in done.json["runs"]} == {
        ("base", True),
        ("run@20", True),
    }


def test_flags_that_change_nothing_are_named(evalsvc: Run, filled: tuple[Path, tuple[str, ...]], models: Path) -> None:
    step = models / "run" / "checkpoint-20"
    flags = ["--name", "other", "--method", "dora", "--step", 20]
    done = evalsvc("submit", step, *flags, "--suite", filled[1][0], "--db", filled[0], "--workers", 0)
    assert done.code == 0
    assert (
        "warning: this checkpoint is stored as run@20 (method lora), which stays: --name other and --method dora "
        "changed nothing"
    ) in " ".join(done.err.split())


def test_a_checkpoint_that_was_moved_is_known_by_its_new_folder(
    evalsvc: Run, models: Path, filled: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    old = shutil.copytree(models / "lora", tmp_path / "old")
    rest = ["--base", models / "base", "--suite", filled[1][0], "--db", tmp_path / "s.duckdb", "--workers", 0]
    assert evalsvc("submit", old, *rest).code == 0
    new = old.rename(tmp_path / "new")
    assert evalsvc("submit", new, *rest).code == 0
    assert evalsvc("checkpoints", "compare", "old", "--db", tmp_path / "s.duckdb", "-q").code == 0
    assert [arm.checkpoint.path for arm in Store(tmp_path / "s.duckdb").arms()][1] == str(new)


def test_status(evalsvc: Run, filled: tuple[Path, tuple[str, ...]]) -> None:
    assert len(evalsvc("status", "--db", filled[0], "--json").json["runs"]) == 8
    table = evalsvc("status", "--db", filled[0]).out
    assert "run@20" in table
    assert "done" in table


def test_results(evalsvc: Run, filled: tuple[Path, tuple[str, ...]]) -> None:
    everything = evalsvc("results", "--db", filled[0], "--json").json["scores"]
    assert {"arm", "digest", "method", "step", "suite", "role", "task", "metric", "filter", "n", "value", "stderr"} <= (
        everything[0].keys()
    )
    some = evalsvc("results", "--db", filled[0], "--arm", "run@20", "--suite", "general", "--json").json["scores"]
    assert {(s["arm"], s["suite"]) for s in some} == {("run@20", "general")}
    overview = evalsvc("results", "--db", filled[0]).out
    assert sum("run@20" in line for line in overview.splitlines()) == 2
    assert "family (group)" in evalsvc("results", "--suite", "general", "--db", filled[0]).out


def test_compare(evalsvc: Run, filled: tuple[Path, tuple[str, ...]]) -> None:
    answer = evalsvc("compare", "run@20", "--db", filled[0], "--json").json
    assert (answer["base"], answer["adapted"]) == ("base", "run@20")
    needed = "suite role task metric n base adapted difference lost gained low high test".split()
    assert all(set(needed) <= task.keys() for task in answer["tasks"])
    assert {role["role"] for role in answer["roles"]} == {"general", "domain"}
    for task in answer["tasks"]:
        assert task["difference"] == pytest.approx(task["adapted"] - task["base"])
    table = evalsvc("compare", "run@20", "--db", filled[0]).out
    assert "run@20 against base" in table
    assert "90 %" in table


def test_frontier(evalsvc: Run, filled: tuple[Path, tuple[str, ...]]) -> None:
    answer = evalsvc("frontier", "--db", filled[0], "--json").json
    assert {point["arm"] for point in answer["points"]} == {"base", "run@10", "run@20", "full"}
    needed = "arm method step learning learning_low learning_high forgetting forgetting_low forgetting_high "
    needed += "on_frontier p_on_frontier cost exchange exchange_low exchange_high"
    assert all(set(needed.split()) <= point.keys() for point in answer["points"])
    assert {"value", "reference"} == answer["hypervolume"].keys()
    assert {point["method"] for point in answer["points"]} == {"base", "lora", "cpt"}
    assert "hypervolume" in evalsvc("frontier", "--db", filled[0]).out


def test_report_is_one_file_that_needs_no_network(
    evalsvc: Run, filled: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert evalsvc("report", "--db", filled[0], "--output", page).out.strip() == str(page)
    text = page.read_text()
    outside = text.split("<script>")[0] + text.rsplit("</script>", 1)[1]
    assert "http" not in outside
    assert 'src="' not in outside
    assert "run@20" in text
    assert evalsvc("report", "--db", filled[0], "--output", tmp_path / "no" / "page.html").code == 1


def test_figures_without_their_extra_are_refused_before_the_report_is_written(
    evalsvc: Run, filled: tuple[Path, tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)  # as where it is not installed
    page = tmp_path / "page.html"
    done = evalsvc("report", "--db", filled[0], "--output", page, "--figures", tmp_path / "figures")
    assert (done.code, done.out, page.exists()) == (2, "", False)
    assert "pip install 'evalsvc[figures]'" in done.err


def test_suites_and_base_are_looked_up_before_checkpoints_are_read(
    evalsvc: Run, models: Path, db: Path, tmp_path: Path
) -> None:
    for base, suite, message in (
        (models / "base", "nosuch", "suite 'nosuch': neither a file nor a shipped suite"),
        (tmp_path / "none", "clinic", "no such folder"),
    ):
        done = evalsvc("submit", models / "run", "--base", base, "--suite", suite, "--db", db, "--workers", 0)
        assert (done.code, "reading checkpoints" in done.err, message in done.err) == (2, False, True), done.err


def test_doctor(evalsvc: Run, filled: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    done = evalsvc("doctor", "--db", filled[0], "--json")
    found = {finding["what"]: finding for finding in done.json["findings"]}
    assert done.code == 0
    assert found["devices"]["found"].endswith("cpu")
    assert "8 runs, 8 done" in found["store"]["found"]
    assert {"torch", "lm-eval", "ray", "duckdb", "streamlit"} <= found.keys()
    (tmp_path / "broken.duckdb").write_text("not a database, but long enough to look like one" * 200)
    broken = evalsvc("doctor", "--db", tmp_path / "broken.duckdb")
    assert broken.code == 2
    assert "is not a DuckDB database file" in broken.out


def test_suites(evalsvc: Run, filled: tuple[Path, tuple[str, ...]]) -> None:
    assert {"clinic", "valley"} <= {suite["name"] for suite in evalsvc("suites", "list", "--json").json["suites"]}
    assert "role: general" in evalsvc("suites", "show", "valley").out
    tasks = evalsvc("suites", "check", filled[1][0], "--json").json["tasks"]
    assert [task["task"] for task in tasks] == ["mc", "mc_shots", "gen", "votes", "member_a", "member_b"]
    assert tasks[0]["margin"] == pytest.approx(2.4865 * (0.1 / 24) ** 0.5, abs=1e-4)
    assert "margin" in evalsvc("suites", "check", filled[1][0]).out


# ---------------------------------------------------------------------------------------------------------- bad input


def test_a_usage_mistake_exits_2(evalsvc: Run) -> None:
    assert evalsvc("submit").code == 2
    assert evalsvc("submit", "x", "--workers", "-1").code == 2
    assert evalsvc("nonsense").code == 2
    assert evalsvc().code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["submit", "x", "--rendering", "y"],
            "'y' is not one of 'base', 'adapted', 'plain'; see `evalsvc submit --help`",
        ),
        (["submit", "x", "--quantised", "int3"], "'int3' is not one of 'int8', 'nf4', 'bnb-int8', 'bnb-nf4'"),
        (["submit", "x", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'"),
        (["gate", "x", "--policy", "p", "--half", "third"], "'third' is not one of 'select', 'confirm'"),
        (
            ["import", "lm-eval", "x", "--suite", "s", "--role", "all"],
            "'drift', 'diversity'; see `evalsvc import lm-eval",
        ),
        (["nonsense"], "No such command 'nonsense'; see `evalsvc --help`"),
    ],
)
def test_unknown_values_are_refused_in_one_line(evalsvc: Run, arguments: list[str], message: str) -> None:
    done = evalsvc(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ({"tasks": ["absent"]}, "unknown task 'absent'"),
        ({"tasks": [{"task": "mc", "metric": "bleu"}]}, "has no metric 'bleu'"),
        ({"tasks": [{"task": "gen", "filter": "lax"}]}, "has no filter 'lax'"),
        ({"tasks": ["mc"], "colour": "red"}, "colour: unknown key"),
        ({"taks": ["mc"]}, "taks: unknown key; did you mean tasks?"),
        ("tasks: [mc", "not valid YAML"),
    ],
)
def test_a_bad_suite_exits_2_in_one_line_and_stores_nothing(
    evalsvc: Run, models: Path, task_folder: Path, tmp_path: Path, db: Path, suite: dict[str, Any] | str, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    if isinstance(suite, dict):
        suite = yaml.safe_dump({"name": "bad", "role": "general", "include": str(task_folder), **suite})
    path.write_text(suite)
    done = evalsvc("submit", models / "base", "--suite", path, "--db", db, "--quiet")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.err.startswith("evalsvc: ")
    assert not db.exists()


def test_a_bad_checkpoint_exits_2_in_one_line_and_stores_nothing(
    evalsvc: Run, models: Path, tmp_path: Path, db: Path, filled: tuple[Path, tuple[str, ...]]
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(models / "lora", tmp_path / "orphan")
    config = tmp_path / "orphan" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "stories"}))
    for source, message in (
        ("./missing", "neither a folder nor a Hub id"),
        (tmp_path / "empty", "is not a checkpoint"),
        (tmp_path / "orphan", "give its path with --base"),
        (models / "base", "no suite is given, and the base has not been scored on any"),
    ):
        done = evalsvc("submit", source, "--db", db, "--quiet")
        assert (done.code, done.out) == (2, ""), done.err
        assert message in done.err
        assert len(done.err.strip().splitlines()) == 1
        assert not db.exists()


def test_a_bad_store_exits_2_and_missing_evidence_5(
    evalsvc: Run, tmp_path: Path, filled: tuple[Path, tuple[str, ...]]
) -> None:
    text = tmp_path / "text.duckdb"
    text.write_text("this is text " * 1000)
    for command in (["status"], ["results"], ["frontier"], ["compare", "x"], ["report"]):
        assert evalsvc(*command, "--db", tmp_path / "absent.duckdb").code == 2
        done = evalsvc(*command, "--db", text)
        assert done.code == 2
        assert "is not a DuckDB database file" in done.err
        assert len(done.err.strip().splitlines()) == 1
    assert evalsvc("compare", "nobody", "--db", filled[0]).code == 2
    assert evalsvc("compare", "base", "--db", filled[0]).code == 5
    assert evalsvc("frontier", "--base", "run@10", "--db", filled[0]).code == 5


def test_a_failed_run_exits_5(evalsvc: Run, models: Path, tmp_path: Path, db: Path) -> None:
    from tests.support.tasks import CHOICE, write_task

    rows = [{"query": "the cat", "choices": [" dog", " cat" * n], "gold": 0} for n in (1, 500)]
    write_task(tmp_path, "long", rows, **CHOICE)
    suite = {"name": "bad", "role": "general", "include": str(tmp_path), "tasks": ["long"]}
    (tmp_path / "suite.yml").write_text(yaml.safe_dump(suite))
    done = evalsvc("submit", models / "base", "--suite", tmp_path / "suite.yml", "--db", db, "--workers", "0", "--json")
    assert done.code == 5
    assert done.json["runs"][0]["state"] == "failed"
    assert "1 of 1 runs failed" in done.err


def test_an_internal_error_is_one_line_too(
    evalsvc: Run, monkeypatch: pytest.MonkeyPatch, filled: tuple[Path, tuple[str, ...]]
) -> None:
    monkeypatch.setattr("evalsvc.store.store.Store.runs", lambda self: 1 / 0)
    done = evalsvc("status", "--db", filled[0])
    assert (done.code, done.out) == (1, "")
    assert "internal error: ZeroDivisionError" in done.err
    assert "Traceback" not in done.err


def test_an_interrupt_says_how_to_resume(
    evalsvc: Run, monkeypatch: pytest.MonkeyPatch, models: Path, filled: tuple[Path, tuple[str, ...]]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evalsvc.scoring.submit.submit", interrupt)
    done = evalsvc("submit", models / "run", "--db", filled[0])
    assert done.code == 130
    assert "run the same command again to resume" in done.err


def test_the_address_is_taken_out_of_what_is_sent(monkeypatch: pytest.MonkeyPatch, evalsvc: Run) -> None:
    sent: list[list[str]] = []

    def remember(address: str, arguments: list[str], **_: object) -> int:
        sent.append([address, *arguments])
        return 4

    monkeypatch.setattr("evalsvc.scoring.remote.run_remotely", remember)
    assert evalsvc("status", "--address", "http://head:1", "--json").code == 4
    assert evalsvc("compare", "a", "--address=http://head:2").code == 4
    assert sent == [["http://head:1", "status", "--json"], ["http://head:2", "compare", "a"]]
