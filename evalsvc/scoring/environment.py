"""Checks of this machine. Imports torch only to list devices."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from evalsvc.errors import EvalsvcError
from evalsvc.settings import cache_dir, core_count
from evalsvc.store.store import Store


class EnvironmentCheck(NamedTuple):
    """The result of one check."""

    name: str
    state: Literal["ok", "note", "bad"]
    result: str


def examine_environment(db: Path) -> list[EnvironmentCheck]:
    """Check everything that scoring depends on."""
    findings = [
        EnvironmentCheck("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    ]
    findings += _packages()
    findings += _devices()
    findings += [_disk("disk of the store", db.resolve().parent), _disk("disk of the cache", cache_dir())]
    findings += _environment()
    findings.append(_store(db))
    return findings


def _packages() -> list[EnvironmentCheck]:
    """Compare installed packages with the version ranges that this release was tested with."""
    findings = []
    for text in distribution("evalsvc").requires or []:
        requirement = Requirement(text)
        if requirement.marker is not None:  # an extra
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            findings.append(EnvironmentCheck(requirement.name, "bad", f"missing; pip install '{requirement}'"))
            continue
        tested = requirement.specifier.contains(installed, prereleases=True)
        state: Literal["ok", "note"] = "ok" if tested else "note"
        findings.append(
            EnvironmentCheck(
                requirement.name, state, installed if tested else f"{installed}, tested {requirement.specifier}"
            )
        )
    return findings


def _devices() -> list[EnvironmentCheck]:
    from evalsvc.engine.devices import list_devices  # torch takes seconds to import

    return [
        EnvironmentCheck("devices", "ok", ", ".join(list_devices())),
        EnvironmentCheck("cores", "ok", f"{core_count()}: one worker per core on a CPU, one thread each"),
    ]


def _disk(name: str, folder: Path) -> EnvironmentCheck:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    writable = os.access(folder, os.W_OK)
    state: Literal["ok", "note", "bad"] = "bad" if not writable else "note" if free < 2 else "ok"
    return EnvironmentCheck(name, state, f"{folder}: {free:.1f} GB free{'' if writable else ', not writable'}")


def _environment() -> list[EnvironmentCheck]:
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME", "RAY_ADDRESS", "EVALSVC_ADDRESS", "OMP_NUM_THREADS")
    variables = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    findings = [
        EnvironmentCheck("environment", "ok", ", ".join(variables) or "no offline flag and no cluster address is set")
    ]
    if os.environ.get("LOCAL_RANK", "0") != "0":
        findings.append(
            EnvironmentCheck(
                "LOCAL_RANK",
                "note",
                f"{os.environ['LOCAL_RANK']}: set by torchrun; unset it outside of distributed jobs",
            )
        )
    return findings


def _store(db: Path) -> EnvironmentCheck:
    if not db.exists():
        return EnvironmentCheck("store", "ok", f"{db}: does not exist yet; the first submit creates it")
    try:
        runs = Store(db, wait=5).runs()
    except EvalsvcError as error:
        return EnvironmentCheck("store", "bad", str(error))
    done = sum(run.state == "done" for run in runs)
    return EnvironmentCheck("store", "ok", f"{db}: {len(runs)} runs, {done} done, {db.stat().st_size / 1e6:.1f} MB")
