"""Paths of the store, the cache and the files that ship with the package; settings of scoring.

Flags take precedence over EVALSVC_* variables, and these over the defaults here. Imports nothing heavy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from evalsvc.errors import UsageError

DEFAULT_DB = Path("evalsvc.duckdb")

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Compute:
    """How checkpoints are scored.

    Attributes:
        workers: Worker processes; 0 scores in this process, None takes one per GPU, else one per core.
        dtype: Number format; "auto" takes float32 on a CPU and bfloat16 elsewhere.
    """

    workers: int | None = None
    device: Device = "auto"
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        """Check device and number format.

        Raises:
            UsageError: There is no such device or number format.
        """
        check_choice("device", self.device, Device)
        check_choice("dtype", self.dtype, Dtype)


def check_choice(name: str, value: str | None, choices: object) -> None:
    """Check that a value, if there is one, is one of a Literal's.

    Raises:
        UsageError: It is not.
    """
    if value is not None and value not in get_args(choices):
        raise UsageError(f"{name} {value!r}: must be one of {', '.join(get_args(choices))}")


def default_db() -> Path:
    """Return the store's path when no flag names one."""
    return Path(os.environ.get("EVALSVC_DB") or DEFAULT_DB)


def cache_dir() -> Path:
    """Return the folder for data that can be recomputed, such as prepared data sets, token tries and digests."""
    if chosen := os.environ.get("EVALSVC_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path  # not at the top, because `--help` has no use for it

    return user_cache_path("evalsvc")


def shared_dir(name: str) -> Path:
    """Return the folder `name` ("suites" or "dashboards") of the checkout, else of the installed wheel.

    Raises:
        UsageError: Neither exists; the installation is damaged.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package.parent / name, package / "_share" / name):
        # A site-packages folder may contain another project's "suites"; evalsvc's has a README.md.
        if (candidate / "README.md").is_file():
            return candidate
    raise UsageError(f"evalsvc's folder {name!r} is missing from {package.parent}: reinstall evalsvc")


def core_count() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
