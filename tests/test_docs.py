"""What is written is so: README's commands, its length, the folders it names."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from evalsvc import cli
from tests.conftest import ROOT
from tests.support.commands import list_commands

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_two_commands_of_one_line_each_come_first() -> None:
    demo, tests, *_ = blocks("sh")
    for block, end in ((demo, "evalsvc demo"), (tests, "pytest")):
        assert len(block.strip().splitlines()) == 1
        assert block.startswith("python3 -m venv --upgrade-deps .venv && .venv/bin/pip install")
        assert block.strip().endswith(end)


def test_the_first_frontier_takes_fewer_than_200_words() -> None:
    prose = README.split("```text")[0]
    assert len(re.findall(r"\w+", re.sub(r"!\[.*?\]\(.*?\)|```.*?```", "", prose, flags=re.DOTALL))) < 200


def test_what_ci_runs_is_what_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script
    assert "$(readme 1)" in script
    assert "$(readme 2)" in script


def test_every_command_is_in_the_readme() -> None:
    for command in list_commands():
        assert re.search(rf"\b{command[-1]}\b", README), command


def test_the_policy_in_the_readme_is_the_shipped_one() -> None:
    shipped = (ROOT / "suites" / "policies" / "demo.yaml").read_text(encoding="utf-8")
    assert any(block in shipped for block in blocks("yaml"))


def test_links_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_examples_of_the_help_parse() -> None:
    """Every option in an epilog's example exists."""
    import typer.main

    group = typer.main.get_command(cli.app)
    for path in list_commands():
        command = group
        for name in path:
            command = command.commands[name]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        used = set(
            re.findall(
                r"--[a-z-]+",
                re.sub(r"evalsvc dashboard.*", "", str(command.epilog))
                if path != ["dashboard"]
                else str(command.epilog),
            )
        )
        assert used <= known, path


def test_the_package_lists_its_modules() -> None:
    import evalsvc

    listed = set(re.findall(r"^    (\w+) ", str(evalsvc.__doc__).split("The packages,")[1], re.MULTILINE))
    folder = ROOT / "evalsvc"
    there = {p.stem for p in folder.glob("*.py")} | {p.name for p in folder.iterdir() if (p / "__init__.py").exists()}
    assert listed == there - {"__init__", "__main__"}


def test_no_path_of_a_machine_and_nothing_left_open_is_in_the_project() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not files:
        pytest.skip("needs a git checkout")
    for name in files:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".yml"} and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            assert str(ROOT.parent) + "/" not in text, name
            assert not re.search(r"\b(TODO|FIXME)\b", text), name


def test_python_dash_m_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "evalsvc", "--help"], capture_output=True, text=True, check=True)
    assert "Begin with: evalsvc demo" in done.stdout


def test_the_newest_release_in_the_changelog_is_the_packages_version() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+) - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert newest is not None
    assert newest[1] == project["version"]
