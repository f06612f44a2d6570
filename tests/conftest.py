"""Fixtures that all tests share: a tiny real model, tasks of every kind, the data beside the checkout, one Ray."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports a hub client or ray: no test may leave this machine, or join somebody's cluster.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # two threads on two busy cores are many times slower than one
for name in ("RAY_ADDRESS", "EVALSVC_DB", "EVALSVC_ADDRESS", "LOCAL_RANK"):
    os.environ.pop(name, None)

import pytest

from evalsvc.checkpoints.discover import Description, open_base, open_checkpoints
from evalsvc.records.arms import Checkpoint
from tests.support import tasks, tiny
from tests.support.commands import Run, run_command

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start long files first, so that no process works on one alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what can be recomputed out of the user's cache; all test processes share one, and children inherit it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ["EVALSVC_CACHE"] = str(folder / "cache")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets, models and published results that lies beside the checkout, if it does."""
    folder = Path(os.environ.get("EVALSVC_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "README.md").is_file():
        pytest.skip(f"needs the test data at {folder}: set EVALSVC_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, `full` and `lora`: a tiny Llama with random weights, and two adaptations of it."""
    folder = tmp_path_factory.mktemp("models")
    tiny.save_all(folder)
    return folder


@pytest.fixture(scope="session")
def base(models: Path) -> Checkpoint:
    return open_base(str(models / "base"))


@pytest.fixture(scope="session")
def full(models: Path) -> Checkpoint:
    return open_checkpoints(str(models / "full"), str(models / "base"), Description())[1][0]


@pytest.fixture(scope="session")
def lora(models: Path) -> Checkpoint:
    return open_checkpoints(str(models / "lora"), str(models / "base"), Description())[1][0]


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one lm-eval task of every kind, a group and a tag."""
    folder = tmp_path_factory.mktemp("tasks")
    tasks.write_all(folder)
    return folder


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def evalsvc() -> Run:
    """Run a command in this process, as the installed script would."""
    return run_command
