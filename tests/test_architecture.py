"""Imports point one way, each heavy package has one owner, and asking for help loads none of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Lower may not import higher; modules on one level may not import each other, but for those listed in ALLOWED.
LEVELS = [
    ["errors"],
    ["records", "settings", "stats", "migrations", "world", "tensors", "changes"],
    ["points", "work"],
    [
        "suites",
        "checkpoints",
        "compare",
        "gains",
        "frontier",
        "matrices",
        "importer",
        "trajectory",
        "claims",
        "harness",
        "engine",
        "database",
    ],
    ["evidence", "policies", "registry"],
    ["gate", "forecast"],
    ["looks", "collapse"],
    ["store", "ledger", "executors", "inspection", "dossiers", "browse", "whatif", "charts"],
    ["cluster", "driver", "service", "gathering", "doctor", "probe", "integrity"],
    ["submission", "report", "demo", "decisions", "dossier", "studies"],
    ["advice", "page", "promotion", "details", "curves", "decision_report", "dossier_report", "verification"],
    ["cli"],
    ["__main__"],
]
ALLOWED = {
    ("gains", "compare"),
    ("frontier", "gains"),
    ("harness", "suites"),
    ("demo", "submission"),
    ("records", "stats"),
    ("trajectory", "compare"),
    ("claims", "trajectory"),
}
OWNERS = {
    "lm_eval": "harness",
    "datasets": "harness",
    "torch": "engine",
    "transformers": "engine",
    "peft": "engine",
    "tokenizers": "engine",
    "ray": "cluster",
    "duckdb": "database",
    "yaml": "suites",
    "plotly": "charts",
    "huggingface_hub": "checkpoints",
    "streamlit": None,  # dashboards only
    "pyarrow": "store",
    "jinja2": "page",
}
EXTRA_OWNERS = {("jinja2", "engine"), ("pyarrow", "importer"), ("pyarrow", "registry")}  # chat templates; Parquet
PACKAGE = ROOT / "evalsvc"


def room(path: Path) -> str:
    """Return the module or sub-package directly below evalsvc that a file belongs to."""
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
LEVEL_OF = {name: number for number, names in enumerate(LEVELS) for name in names}


def test_every_module_has_a_level() -> None:
    assert {room(path) for path in FILES} == set(LEVEL_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        if not name.startswith("evalsvc.") or name == "evalsvc.__version__":
            continue
        there = name.split(".")[1]
        if there in {here, "__version__"}:
            continue
        assert LEVEL_OF[there] < LEVEL_OF[here] or (here, there) in ALLOWED, f"{here} imports {there}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_have_one_owner(path: Path) -> None:
    here = room(path)
    for name in {name.split(".")[0] for name in imports(path)} & set(OWNERS):
        assert OWNERS[name] == here or (name, here) in EXTRA_OWNERS, f"{here} imports {name}"


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
