"""Imports point one way, each heavy package has one owner, and asking for help loads none of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each may import those before it, and no other.
ORDER = [
    "errors",
    "settings",
    "files",
    "stats",
    "records",
    "store",
    "checkpoints",
    "harness",
    "engine",
    "interchange",
    "scoring",
    "analysis",
    "gating",
    "charts",
    "reports",
    "hooks",
    "demo",
    "api",
    "cli",
    "__main__",
]
OWNERS = {
    "lm_eval": {"harness"},
    "datasets": {"harness"},
    "torch": {"engine", "hooks"},  # a callback lives in somebody else's training process
    "transformers": {"engine", "hooks"},
    "peft": {"engine"},
    "tokenizers": {"engine"},
    "ray": {"scoring"},
    "duckdb": {"store"},
    "pyarrow": {"store", "interchange"},  # rows into DuckDB; tables of items in Parquet
    "yaml": {"files"},
    "pandas": {"reports"},
    "plotly": {"charts"},
    "huggingface_hub": {"checkpoints"},
    "streamlit": set(),  # dashboards only
    "jinja2": {"reports", "harness", "engine"},  # the page; lm-eval's templates; chat templates
}
PACKAGE = ROOT / "evalsvc"


def room(path: Path) -> str:
    """Return the module or package directly below evalsvc that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere, also inside functions and for type checking."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def test_every_room_has_its_place() -> None:
    assert {room(path) for path in FILES} == set(ORDER)
    assert len(ORDER) <= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        if name.startswith("evalsvc.") and name != "evalsvc.__version__":
            there = name.split(".")[1]
            assert there == here or ORDER.index(there) < ORDER.index(here), f"{here} imports {there}"


@pytest.mark.parametrize("package", [name for name in ORDER if (PACKAGE / name).is_dir()])
def test_no_cycles_within_a_package(package: str) -> None:
    files = {path.stem: path for path in (PACKAGE / package).glob("*.py")}
    prefix = f"evalsvc.{package}."
    wanted = {
        stem: {part for name in imports(path) if name.startswith(prefix) and (part := name.split(".")[2]) in files}
        for stem, path in files.items()
    }
    while wanted:
        free = {stem for stem, names in wanted.items() if not names & set(wanted) - {stem}}
        assert free, f"{package}: a cycle among {', '.join(sorted(wanted))}"
        wanted = {stem: names for stem, names in wanted.items() if stem not in free}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_have_one_owner(path: Path) -> None:
    here = room(path)
    for name in {name.split(".")[0] for name in imports(path)} & set(OWNERS):
        assert here in OWNERS[name], f"{here} imports {name}"


def test_statistics_import_no_part_of_evalsvc_but_themselves() -> None:
    for path in (PACKAGE / "stats").glob("*.py"):
        outside = {
            name for name in imports(path) if name.startswith("evalsvc") and not name.startswith("evalsvc.stats")
        }
        assert not outside


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['evalsvc', '--help']\n"
        "from evalsvc.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        f"heavy = set(sys.modules) & {set(OWNERS) | {'numpy', 'pydantic'}!r}\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_modules_and_functions_stay_small() -> None:
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 600, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 80, f"{path}: {node.name}"


def test_every_module_says_what_it_owns() -> None:
    for path in FILES:
        if path.read_text(encoding="utf-8").strip():
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


TESTS = ROOT / "tests"
NO_PACKAGES = {"benchmarks", "dashboards", "docs", "gpu", "support", "truth"}


def test_tests_mirror_the_packages() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    folders = {path.parent.name for path in TESTS.glob("*/__init__.py")}
    assert folders - NO_PACKAGES == packages


def test_no_test_imports_from_a_test_file() -> None:
    """What several test files need lives in tests/support, and fixtures in conftest.py."""
    for path in TESTS.rglob("*.py"):
        modules = {part for name in imports(path) if name.startswith("tests.") for part in name.split(".")[:-1]}
        assert not {module for module in modules if module.startswith("test_")}, path


@pytest.mark.parametrize("package", [name for name in ORDER if (PACKAGE / name).is_dir()])
def test_a_package_that_lists_its_modules_lists_all(package: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    listed = set(re.findall(r"^(\w+) {2,}", text, re.MULTILINE))
    files = {path.stem for path in (PACKAGE / package).glob("*.py")} - {"__init__"}
    assert not listed or listed == files
