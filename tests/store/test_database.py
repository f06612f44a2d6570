"""One file, many processes: locks, faults, migrations."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from evalsvc.errors import StoreError
from evalsvc.records.arms import Cost, Serving
from evalsvc.store import database
from evalsvc.store.database import Database
from evalsvc.store.migrations import MIGRATIONS
from evalsvc.store.store import Store
from tests.support.fakes import NUMERICS, make_arm

WRITER = """
import sys, time
from pathlib import Path
from evalsvc.store.database import Database
store = Database(Path(sys.argv[1]))
for number in range(10_000):
    with store.write() as connection:
        connection.execute(
            "INSERT INTO failures SELECT ?, i, 'x' FROM range(50) t(i) ON CONFLICT DO NOTHING", [number]
        )
    print(number, flush=True)
"""


def count(path: Path) -> int:
    with Database(path).read() as connection:
        row = connection.execute("SELECT count(*) FROM failures").fetchone()
    assert row is not None
    return int(row[0])


def schema(path: Path) -> list[tuple[str, str]]:
    with Database(path).read() as connection:
        return connection.execute("SELECT table_name, sql FROM duckdb_tables() ORDER BY ALL").fetchall()


# ---------------------------------------------------------------------------------------------------------- migration


def test_a_blank_and_an_old_file_reach_the_same_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank, old = tmp_path / "blank.duckdb", tmp_path / "old.duckdb"
    newest = [*MIGRATIONS, ("m999_more", "CREATE TABLE more (x INTEGER); ALTER TABLE runs ADD COLUMN extra VARCHAR")]
    with Database(old).write() as connection:
        connection.execute("INSERT INTO failures VALUES (1, 2, 'kept')")
    monkeypatch.setattr(database, "MIGRATIONS", newest)
    with pytest.raises(StoreError, match="was written by an older evalsvc"), Database(old).read():
        pass
    Database(old).upgrade()
    with Database(blank).write():
        pass
    assert schema(old) == schema(blank)
    assert count(old) == 1
    with Database(old).read() as connection:
        applied = connection.execute("SELECT name FROM _migrations ORDER BY name").fetchall()
    assert applied == [(name,) for name, _ in newest]


def test_a_failing_migration_leaves_the_file_as_it_was(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(db).write():
        pass
    before = schema(db)
    broken = [*MIGRATIONS, ("m999_broken", "CREATE TABLE half (x INTEGER); SELECT no_such_function()")]
    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", broken)
        with pytest.raises(duckdb.Error), Database(db).write():
            pass
    assert schema(db) == before


def test_a_file_from_a_newer_version_is_refused(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(database, "MIGRATIONS", [*MIGRATIONS, ("m999_future", "CREATE TABLE future (x INTEGER)")])
        with Database(db).write():
            pass
    for opened in (Database(db).read(), Database(db).write()):
        with pytest.raises(StoreError, match=r"newer evalsvc \(schema m999_future\)"), opened:
            pass


def test_the_first_release_is_never_edited() -> None:
    names = [name for name, _ in MIGRATIONS]
    assert names == sorted(set(names))
    assert names[0] == "m001_initial"


# --------------------------------------------------------------------------------------------------------- wrong files


def test_wrong_files_are_one_clear_line_and_stay_untouched(tmp_path: Path) -> None:
    text, empty, foreign, missing = (tmp_path / name for name in ("text.db", "empty.db", "foreign.db", "missing.db"))
    text.write_text("this is not a database, it only looks like one " * 300)
    empty.touch()
    with duckdb.connect(str(foreign)) as connection:
        connection.execute("CREATE TABLE theirs (x INTEGER)")
    for path, message in (
        (text, "is not a DuckDB database file"),
        (empty, "is not a DuckDB database file"),
        (foreign, r"another program \(tables theirs\)"),
    ):
        content = path.read_bytes()
        for opened in (Database(path).read(), Database(path).write()):
            with pytest.raises(StoreError, match=message) as caught, opened:
                pass
            assert "\n" not in str(caught.value)
        assert path.read_bytes() == content
    with pytest.raises(StoreError, match="no such file; submit a checkpoint first"), Database(missing).read():
        pass
    assert not missing.exists()
    with pytest.raises(StoreError, match=r"folder .*gone does not exist"), Database(tmp_path / "gone" / "x").write():
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"), Database(tmp_path / "x.duckdb").write():
        pass


def test_a_full_disk_is_said_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        store = Database(disk / "store.duckdb")
        done = 0
        with pytest.raises(StoreError, match="the disk is full; free some space"):
            for batch in range(200):
                with store.write() as connection:
                    connection.execute(
                        "INSERT INTO failures SELECT ?, i, repeat(md5(i::VARCHAR), 40) FROM range(500) t(i)", [batch]
                    )
                done += 500
        assert done
        assert count(disk / "store.duckdb") >= done
    finally:
        subprocess.run(["umount", disk], check=True)


# -------------------------------------------------------------------------------------------------------------- locks


def test_a_store_that_stays_locked_is_given_up(db: Path) -> None:
    with Database(db).write():
        pass
    with open(f"{db}.lock", "w") as sidecar:
        fcntl.flock(sidecar, fcntl.LOCK_EX)
        started = time.monotonic()
        with (
            pytest.raises(StoreError, match=r"locked by another process for more than 0.3 s"),
            Database(db, 0.3).read(),
        ):
            pass
        assert time.monotonic() - started >= 0.3


def test_a_foreign_process_that_holds_the_file_is_waited_for(db: Path) -> None:
    with Database(db).write():
        pass
    code = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(30)"
    with subprocess.Popen([sys.executable, "-c", code, db], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(StoreError, match="locked by another process"), Database(db, wait=0.5).write():
                pass
        finally:
            holder.kill()
    assert count(db) == 0


def test_a_failed_transaction_is_undone(db: Path) -> None:
    with pytest.raises(KeyError), Database(db).write() as connection:
        connection.execute("INSERT INTO failures VALUES (1, 2, 'x')")
        raise KeyError
    assert count(db) == 0


def test_reads_within_a_read_are_one_look_and_only_of_their_own_thread(db: Path) -> None:
    database, began, seen = Database(db), threading.Event(), []

    def elsewhere() -> None:
        began.set()
        with database.read() as connection:
            seen.append(connection)

    with database.write():
        pass
    other = threading.Thread(target=elsewhere)
    with database.read() as outer:
        other.start()
        began.wait()
        with database.read() as inner:
            assert inner is outer
        assert outer.execute("SELECT count(*) FROM failures").fetchone() == (0,)  # it is still open
    other.join()
    with database.read() as later:
        assert len({id(one) for one in (outer, later, *seen)}) == 3
        assert later.execute("SELECT count(*) FROM failures").fetchone() == (0,)


def test_threads_of_one_process_never_lose_the_lock(db: Path) -> None:
    """Readers in threads beside a writing process: without one gate per process, most opens run without a lock."""
    with Database(db).write():
        pass
    seen: list[list[int]] = [[] for _ in range(4)]
    stop = threading.Event()

    def read(into: list[int]) -> None:
        while not stop.is_set():
            into.append(count(db))

    threads = [threading.Thread(target=read, args=(into,)) for into in seen]
    with subprocess.Popen([sys.executable, "-c", WRITER, db], stdout=subprocess.PIPE, text=True) as writer:
        for thread in threads:
            thread.start()
        time.sleep(3)
        stop.set()
        writer.kill()
        for thread in threads:
            thread.join()
    for counts in seen:
        assert counts == sorted(counts)
        assert all(number % 50 == 0 for number in counts)
    assert max(map(max, seen)) > 0


@pytest.mark.parametrize("round_", range(5))
def test_kill_9_of_a_writer_loses_nothing_that_was_acknowledged(db: Path, round_: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, db], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = -1
        deadline = time.monotonic() + 1.0 + 0.13 * round_
        while time.monotonic() < deadline or acknowledged < 2:
            acknowledged = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in writer.stdout if line.strip().isdigit())])
    found = count(db)
    assert found >= 50 * (acknowledged + 1)
    assert found % 50 == 0


def test_a_store_of_the_first_version_is_brought_up_to_date(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_arm(1)
    with monkeypatch.context() as old:
        old.setattr("evalsvc.store.database.MIGRATIONS", MIGRATIONS[:1])
        with Database(db).write() as connection:
            columns = "?, 'c1', '/models/1', 'base', 't', NULL, NULL, NULL, NULL, 1.5, NULL, NULL, now()::TIMESTAMP"
            connection.execute(f"INSERT INTO checkpoints VALUES ({columns})", [base.checkpoint.digest])
            connection.execute(
                "INSERT INTO arms VALUES (1, ?, ?, ?)", [base.key, base.checkpoint.digest, NUMERICS.key()]
            )
    store = Store(db)
    store.upgrade()
    (found,) = store.arms()
    assert (found.label, found.serving, found.checkpoint.cost) == ("c1", Serving(), Cost(gpu_hours=1.5))
