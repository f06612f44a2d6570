"""One DuckDB file that several processes share. The only module that imports duckdb.

Every transaction attaches the file to an empty DuckDB in memory and detaches it again (1 to 2 ms; a DuckDB of its own
would cost 15), so that no process keeps the file locked. Two locks make that safe, and both are needed:

* a process-wide lock, because closing any descriptor of a file drops all POSIX locks that the process has on it: two
  threads would remove each other's DuckDB lock without an error;
* flock on `<file>.lock`, shared to read and exclusive to write, which belongs to its descriptor and survives that;
  `<file>.turn` keeps readers from starving a writer.

Nothing but DuckDB ever opens the file itself.
"""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import duckdb

from evalsvc.errors import StoreError
from evalsvc.settings import cache_dir
from evalsvc.store.migrations import MIGRATIONS

Connection = duckdb.DuckDBPyConnection

_GATE = threading.Lock()
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
# Trying a lock costs microseconds, opening a database milliseconds.
_LOCK_PAUSES, _OPEN_PAUSES = (0.0005, 0.005), (0.005, 0.25)


class Database:
    """A DuckDB file, opened for one transaction at a time."""

    def __init__(self, path: Path, wait: float = 60.0) -> None:
        """Set the path; opens nothing.

        Args:
            wait: Seconds to wait for other processes before an error is raised.
        """
        self.path = path
        self.wait = wait
        self._within = threading.local()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open the file for one consistent snapshot; never creates or migrates it. Nested reads share the snapshot.

        Raises:
            StoreError: There is no store, or it cannot be read.
        """
        if outer := getattr(self._within, "connection", None):
            yield outer
            return
        if not self.path.is_file():
            problem = "is no file" if self.path.exists() else "no such file; submit a checkpoint first"
            raise StoreError(f"store {self.path}: {problem}; name the store's file with --db")
        with self._connect(read_only=True) as connection:
            applied = _read_applied(connection, self.path)
            if len(applied) < len(MIGRATIONS):
                raise StoreError(
                    f"store {self.path}: was written by an older evalsvc; run `evalsvc status` to upgrade it"
                )
            self._within.connection = connection
            try:
                yield connection
            finally:
                self._within.connection = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open the file for one transaction, creating or migrating it: committed at the end, rolled back on an error.

        Raises:
            StoreError: The file is not a store, is newer than this evalsvc, or cannot be written.
        """
        if not self.path.parent.is_dir():
            raise StoreError(f"store {self.path}: the folder {self.path.parent} does not exist; create it first")
        with self._connect(read_only=False) as connection:
            _migrate(connection, self.path)
            connection.begin()
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def upgrade(self) -> None:
        """Migrate an existing store that is older than this evalsvc; does nothing otherwise."""
        if not self.path.is_file():
            return
        with self._connect(read_only=True) as connection:
            current = len(_read_applied(connection, self.path)) == len(MIGRATIONS)
        if current:
            return
        if not (os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)):
            raise StoreError(
                f"store {self.path}: was written by an older evalsvc and cannot be upgraded in place, as it cannot be "
                "written; copy it to where it can"
            )
        with self.write():
            pass

    @contextmanager
    def _connect(self, *, read_only: bool) -> Iterator[Connection]:
        deadline = time.monotonic() + self.wait
        with _GATE, self._flock(exclusive=not read_only, deadline=deadline):
            try:
                with self._open(read_only, deadline) as connection:
                    yield connection
            except duckdb.Error as error:
                problem = _problem(error, self.path)
                if problem is None:
                    raise
                raise problem from error

    @contextmanager
    def _open(self, read_only: bool, deadline: float) -> Iterator[Connection]:
        memory = _start_duckdb(os.getpid())
        try:
            try:
                self._attach(memory, read_only, deadline)
                with memory.cursor() as connection:
                    connection.execute("USE store")
                    yield connection
            finally:
                memory.execute("DETACH DATABASE IF EXISTS store")
        except duckdb.Error:  # a fatal error leaves this DuckDB of no use for other files
            _start_duckdb.cache_clear()
            memory.close()
            raise

    def _attach(self, memory: Connection, read_only: bool, deadline: float) -> None:
        access = "READ_ONLY" if read_only else "READ_WRITE"
        for pause in _pauses(deadline, *_OPEN_PAUSES):
            try:
                memory.execute(f"ATTACH ? AS store (TYPE duckdb, {access})", [str(self.path)])
                return
            except duckdb.Error as error:
                # A process that does not use our flock (such as the duckdb shell) may hold DuckDB's own lock.
                if "could not set lock" not in str(error).lower():  # "block checksum" is a damaged file
                    raise
                time.sleep(pause)
        raise self._lock_error()

    @contextmanager
    def _flock(self, *, exclusive: bool, deadline: float) -> Iterator[None]:
        with ExitStack() as held, ExitStack() as turn:
            try:
                # Readers and writers take the turn lock first; a writer holds it to the end. Without it, overlapping
                # readers would block a writer forever.
                self._take(held if exclusive else turn, ".turn", fcntl.LOCK_EX, deadline)
                self._take(held, ".lock", fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, deadline)
            except OSError as error:
                if exclusive:
                    raise StoreError(f"store {self.path}: cannot be written: {error.strerror}") from error
                # A reader on read-only media has no writers to wait for.
            turn.close()
            yield

    def _take(self, stack: ExitStack, suffix: str, kind: int, deadline: float) -> None:
        """Lock a file beside the store until the stack unwinds."""
        sidecar = self.path.with_name(self.path.name + suffix)
        descriptor = os.open(sidecar, os.O_RDWR | os.O_CREAT, 0o666)
        stack.callback(os.close, descriptor)
        for pause in _pauses(deadline, *_LOCK_PAUSES):
            try:
                return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(pause)
        raise self._lock_error()

    def _lock_error(self) -> StoreError:
        return StoreError(
            f"store {self.path}: locked by another process for more than {self.wait:g} s; "
            "close that process (a duckdb shell?), or try again"
        )


@cache
def _start_duckdb(process: int) -> Connection:
    """Return the process's DuckDB in memory; a process that was forked does not have its parent's threads."""
    return duckdb.connect(":memory:", config={**_CONFIG, "temp_directory": str(cache_dir() / f"duckdb-{process}")})


def _pauses(deadline: float, pause: float, longest: float) -> Iterator[float]:
    """Yield growing, jittered pauses until the deadline; at least one."""
    while True:
        yield pause * (0.5 + random.random())
        pause = min(pause * 2, longest)
        if time.monotonic() > deadline:
            return


def _read_applied(connection: Connection, path: Path) -> list[str]:
    """Return the names of the migrations that a file has.

    Raises:
        StoreError: The file belongs to another program or to a newer evalsvc.
    """
    try:
        applied = [row[0] for row in connection.execute("SELECT name FROM _migrations ORDER BY name").fetchall()]
    except duckdb.CatalogException:  # querying the tables first would make every opening a third slower
        tables = sorted(row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall())
        if tables:
            raise StoreError(
                f"store {path}: is a DuckDB file of another program (tables {', '.join(tables)}); use another --db"
            ) from None
        return []
    known = [name for name, _ in MIGRATIONS]
    if applied != known[: len(applied)]:
        foreign = next(name for name in applied if name not in known)
        raise StoreError(
            f"store {path}: was written by a newer evalsvc (schema {foreign}); upgrade this one to read it"
        )
    return applied


def _migrate(connection: Connection, path: Path) -> None:
    missing = MIGRATIONS[len(_read_applied(connection, path)) :]
    for name, statements in missing:
        connection.begin()
        connection.execute("CREATE TABLE IF NOT EXISTS _migrations (name VARCHAR PRIMARY KEY, applied_at TIMESTAMP)")
        connection.execute(statements)
        connection.execute("INSERT INTO _migrations VALUES (?, now()::TIMESTAMP)", [name])
        connection.commit()


def _problem(error: duckdb.Error, path: Path) -> StoreError | None:
    """Return the error as one that a user can act on; None for an error in our own SQL."""
    text = str(error)
    if any(sign in text for sign in ("No space left", "File too large", "disk quota", "Disk quota")):
        return StoreError(f"store {path}: the disk is full; free some space and run the same command again to resume")
    if any(sign in text for sign in ("not a valid DuckDB", "Could not read enough bytes", "not a database")):
        return StoreError(f"store {path}: is not a DuckDB database file; name another with --db, or move this file")
    if "Corrupt" in text or "replaying WAL" in text:
        return StoreError(f"store {path}: is damaged ({text.splitlines()[0]}); restore it from a backup")
    if "newer" in text.lower() and "version" in text.lower():
        return StoreError(f"store {path}: was written by another DuckDB version ({text.splitlines()[0]})")
    if isinstance(error, duckdb.IOException):
        return StoreError(f"store {path}: {text.splitlines()[0]}")
    return None
