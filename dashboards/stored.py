"""What pages read from the store: short transactions on the live file, results kept for a few seconds."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from evalsvc import service
from evalsvc.changes import Change
from evalsvc.dossiers import Dossiers
from evalsvc.points import Frontier
from evalsvc.records import Checkpoint, Finding
from evalsvc.settings import default_db
from evalsvc.store import Store

SECONDS = 3
"""How long a result is shown before the store is asked again."""


def store() -> Store:
    """Return the store that `evalsvc dashboard` was pointed at; a page waits only briefly for a writer."""
    return Store(default_db(), wait=10)


def bases() -> list[str]:
    """Return the labels of all bases that have adapted arms."""
    return _bases(default_db())


def frontier(base: str) -> Frontier:
    """Return the frontier of a base."""
    return _frontier(default_db(), base)


def checkpoints() -> list[Checkpoint]:
    """Return all checkpoints, oldest first."""
    return _checkpoints(default_db())


def dossier(checkpoint: Checkpoint) -> tuple[Change | None, list[Finding]]:
    """Return what is known of a checkpoint beyond its scores."""
    dossiers = Dossiers(default_db(), wait=10)
    return dossiers.change(checkpoint), dossiers.findings(checkpoint)


@st.cache_data(ttl=SECONDS, show_spinner=False)
def _checkpoints(_path: Path) -> list[Checkpoint]:
    return list({arm.checkpoint.digest: arm.checkpoint for arm in store().arms()}.values())


@st.cache_data(ttl=SECONDS, show_spinner=False)
def _bases(_path: Path) -> list[str]:
    return [family.base.label for family in service.families(store())]


@st.cache_data(ttl=SECONDS, show_spinner=False)
def _frontier(_path: Path, base: str) -> Frontier:
    return service.placed(store(), service.find_family(store(), base))
