"""Runs of a store, and whether the driver of one is alive."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import datetime

from evalsvc.records.vocabulary import Role, State
from evalsvc.store.arms import StoredArm


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """One arm on one plan, as far as it has come.

    Attributes:
        part_of: Digest of the suite's whole plan, where this is an early look at it.
    """

    run: int
    arm: StoredArm
    plan: str
    suite: str
    role: Role
    state: State
    requests: int
    answered: int
    failed: int
    error: str | None
    driver: str | None
    created: datetime
    updated: datetime
    part_of: str | None


def driver_name() -> str:
    """Return who drives: host and process, so that `status` can tell whether it still lives."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_alive(driver: str | None) -> bool:
    """Whether a driver on this host still runs; drivers elsewhere are taken to."""
    host, _, process = (driver or "").rpartition(":")
    if not process.isdigit():
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
