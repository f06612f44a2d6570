"""The arguments that the functions of the API share: a store, paths, and what happens with progress and notes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from evalsvc.settings import default_db

if TYPE_CHECKING:
    from evalsvc.store.store import Store

    PathLike: TypeAlias = str | os.PathLike[str]
    AnyStore: TypeAlias = "PathLike | StoreHandle | Store | None"

_log = logging.getLogger("evalsvc")


class StoreHandle:
    """Something that holds an open store."""

    def __init__(self, store: Store) -> None:
        self.store = store


def find_store(db: AnyStore) -> Store:
    """Return the store for `db`, migrated to the current schema."""
    from evalsvc.store.store import Store

    if isinstance(db, StoreHandle):
        return db.store
    if isinstance(db, Store):
        return db
    store = Store(Path(db).expanduser() if db else default_db())
    store.upgrade()
    return store


def to_text(path: PathLike | None) -> str | None:
    """Return a path as text."""
    return None if path is None else os.fspath(path)


def to_texts(paths: PathLike | Sequence[PathLike]) -> tuple[str, ...]:
    """Return one or several paths as text."""
    return tuple(os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths))


def ignore_progress(done: int, total: int) -> None:
    """Show no progress."""


def log_note(text: str) -> None:
    """Write a note to the logger "evalsvc"."""
    _log.log(logging.WARNING if text.startswith("warning") else logging.INFO, text)
