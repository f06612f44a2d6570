"""Runs end to end: every number equal whatever the workers, and nothing lost by a kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsvc.engine import sharding
from evalsvc.records.plans import Response
from evalsvc.records.serialise import build_record
from evalsvc.store.rows import fetch_rows
from evalsvc.store.runs import driver_name, is_alive
from evalsvc.store.store import Store
from tests.support.commands import Run
from tests.support.runs import submit_tiny
from tests.support.tasks import CHOICE, write_suites, write_task

pytestmark = pytest.mark.slow


def responses(db: Path) -> dict[tuple[str, str], Response]:
    """Return every response, by checkpoint and request."""
    store = Store(db)
    with store._database.read() as connection:
        cursor = connection.execute(
            "SELECT a.checkpoint, r.digest AS request, x.loglikelihood, x.greedy, x.text, x.tokens, x.truncated "
            "FROM responses x JOIN arms a USING (arm) JOIN requests r USING (request)"
        )
        rows = fetch_rows(cursor)
    return {(row["checkpoint"], row["request"]): build_record(Response, row) for row in rows}


def scores(db: Path) -> list[tuple[Any, ...]]:
    return sorted(
        (r.arm.checkpoint.label, r.suite, r.task, r.metric, r.filter, r.n, r.value) for r in Store(db).results()
    )


# ------------------------------------------------------------------------------------------------------------ numbers


def test_the_base_and_what_was_submitted_before_are_never_scored_again(
    models: Path, task_folder: Path, tmp_path: Path, db: Path
) -> None:
    suites = write_suites(tmp_path, task_folder)
    first = submit_tiny(db, models, suites)
    assert all(job.reused == 0 for job in first)
    before = responses(db)
    second = submit_tiny(db, models, suites, source="full")
    for job in second:
        assert job.reused == (job.total if job.arm.checkpoint.method == "base" else 0)
    third = submit_tiny(db, models, ())  # the suites of the base are taken when none are named
    assert all(job.reused == job.total and job.state == "done" for job in third)
    assert len(third) == len(first)
    after = responses(db)
    assert {key: after[key] for key in before} == before


def test_a_larger_limit_asks_only_what_is_new(models: Path, task_folder: Path, tmp_path: Path, db: Path) -> None:
    suite = {"name": "few", "role": "general", "include": str(task_folder), "tasks": ["mc"], "defaults": {"limit": 6}}
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump(suite))
    (job,) = submit_tiny(db, models, (str(path),), source="base")
    assert (job.total, job.reused) == (24, 0)
    path.write_text(yaml.safe_dump({**suite, "defaults": {"limit": 10}}))
    (job,) = submit_tiny(db, models, (str(path),), source="base")
    assert (job.total, job.reused, job.state) == (40, 24, "done")


def test_a_request_that_cannot_be_answered_fails_its_run_and_no_other(
    models: Path, task_folder: Path, tmp_path: Path, db: Path
) -> None:
    rows = [{"query": "the cat", "choices": [" dog", " cat" * n], "gold": 0} for n in (1, 500)]
    write_task(tmp_path / "tasks", "long", rows, **CHOICE)
    suites = write_suites(tmp_path, task_folder)
    bad = {"name": "bad", "role": "general", "include": "tasks", "tasks": ["long"]}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(bad))
    jobs = submit_tiny(db, models, (*suites, str(tmp_path / "bad.yaml")), source="lora")
    states = {(job.planned.plan.suite, job.state) for job in jobs}
    assert states == {("general", "done"), ("domain", "done"), ("bad", "failed")}
    (failed, *_) = [stored for stored in Store(db).runs() if stored.state == "failed"]
    assert failed.failed == 1
    assert "1 of 3 requests could not be answered: the continuation has" in (failed.error or "")
    assert "window of 128" in (failed.error or "")
    assert not [r for r in Store(db).results() if r.suite == "bad"]


# ------------------------------------------------------------------------------------------------------------ kill -9


SCRIPT = """
import sys
from pathlib import Path
import evalsvc.scoring.driver
evalsvc.scoring.driver.COMMIT_SECONDS = 0.0
import evalsvc.engine.sharding
evalsvc.engine.sharding.SHARD_ROWS = 200
from evalsvc.settings import Compute
from evalsvc.store.store import Store
from evalsvc.scoring.submission import Source, Submission
from evalsvc.scoring.submit import submit
db, models, workers, *suites = sys.argv[1:]
submission = Submission(
    sources=(Source(f"{models}/run"),),
    base=f"{models}/base",
    suites=tuple(suites),
    compute=Compute(workers=int(workers)),
)
jobs = submit(Store(Path(db)), submission, lambda done, total: None, lambda text: None)
print({job.state for job in jobs})
"""


def start(db: Path, models: Path, suites: tuple[str, ...], workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(db), str(models), str(workers), *suites]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def kill_when_grown(process: subprocess.Popen[str], db: Path, least: int) -> dict[tuple[str, str], Response]:
    """Poll the store as a dashboard does; kill -9 the driver once it has grown; return what had been seen."""
    seen: dict[tuple[str, str], Response] = {}
    while process.poll() is None:
        found = responses(db) if db.exists() else {}
        assert {key: found.get(key) for key in seen} == seen  # nothing that was seen ever goes or changes
        seen = found
        if len(seen) >= least:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            break
        time.sleep(0.1)
    return seen


@pytest.fixture(scope="module")
def whole(models: Path, task_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Every response and score of a run in this process that nothing disturbed, its shards cut as in `SCRIPT`."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "SHARD_ROWS", 200)
        jobs = submit_tiny(folder / "store.duckdb", models, write_suites(folder, task_folder))
    assert {job.state for job in jobs} == {"done"}
    return responses(folder / "store.duckdb"), scores(folder / "store.duckdb")


@pytest.mark.parametrize(("workers", "kills"), [(0, 2), (2, 1)])
def test_numbers_are_bit_equal_in_process_and_on_two_workers_whatever_kill_9_interrupts(
    whole: tuple[Any, Any],
    models: Path,
    task_folder: Path,
    tmp_path: Path,
    db: Path,
    workers: int,
    kills: int,
    monkeypatch: pytest.MonkeyPatch,
    evalsvc: Run,
) -> None:
    suites = write_suites(tmp_path, task_folder)
    seen: dict[tuple[str, str], Response] = {}
    for _ in range(kills):
        process = start(db, models, suites, workers)
        now = kill_when_grown(process, db, len(seen) + 200)
        assert process.returncode == -signal.SIGKILL, process.communicate()[1]
        states = {stored.state for stored in Store(db).runs()}
        assert not all(is_alive(stored.driver) for stored in Store(db).runs() if stored.state == "running"), states
        after = responses(db)
        assert {key: after.get(key) for key in now} == now
        assert len(after) > len(seen)
        seen = after
    assert "its driver has stopped; submit again to resume" in evalsvc("status", "--db", db).out
    assert {entry["driver_alive"] for entry in evalsvc("status", "--db", db, "--json").json["runs"]} == {False}

    # In the test's own process the shards have to be cut the same, to compare bit by bit.
    monkeypatch.setattr(sharding, "SHARD_ROWS", 200)
    jobs = submit_tiny(db, models, suites, workers=workers)
    assert {job.state for job in jobs} == {"done"}
    missing = sum(job.total for job in jobs) - sum(job.reused for job in jobs)
    assert missing <= sum(job.total for job in jobs) - len(seen)
    final = responses(db)
    assert {key: final[key] for key in seen} == seen
    assert (final, scores(db)) == whole
    assert len(scores(db)) > 20


def test_a_driver_knows_itself_alive() -> None:
    assert is_alive(driver_name())
    assert not is_alive(driver_name().rpartition(":")[0] + ":999999999")
    assert not is_alive(None)
    assert is_alive("another-host:1")


# ---------------------------------------------------------------------------------------------------- drift and rerun


def test_drift_is_measured_token_by_token_and_the_base_may_be_scored_again(
    models: Path, task_folder: Path, tmp_path: Path, db: Path
) -> None:
    file = tmp_path / "texts.yaml"
    file.write_text(yaml.safe_dump({"name": "texts", "role": "drift", "include": str(task_folder), "tasks": ["roll"]}))
    jobs = submit_tiny(db, models, (str(file),), rerun=True)
    assert {job.state for job in jobs} == {"done"}
    store = Store(db)
    arms = {(stored.label, stored.is_rerun): stored.number for stored in store.arms()}
    assert ("base", True) in arms
    drifts = store.drifts(list(arms.values()))
    assert not drifts[arms["base", False]]
    found = responses(db)
    tokens = sum(answer.tokens for (digest, _), answer in found.items() if digest == jobs[-1].arm.checkpoint.digest)
    for label in ("run@10", "run@20"):
        (task,) = drifts[arms[label, False]]
        assert len(task.kl) == tokens
        assert task.kl.mean() > 1e-3


def test_what_drift_shares_with_another_suite_has_its_divergences(
    models: Path, task_folder: Path, tmp_path: Path
) -> None:
    roles = {"general": ["roll", "mc"], "drift": ["roll"]}
    for role, tasks in roles.items():
        suite = {"name": role, "role": role, "include": str(task_folder), "tasks": tasks}
        (tmp_path / f"{role}.yaml").write_text(yaml.safe_dump(suite))
    general, drift = (str(tmp_path / f"{role}.yaml") for role in roles)
    kept = []
    for name, submissions in (
        ("alone", [(drift,)]),
        ("together", [(general, drift)]),
        ("later", [(general,), (drift,)]),
    ):
        db = tmp_path / f"{name}.duckdb"
        for suites in submissions:
            assert {job.state for job in submit_tiny(db, models, suites, source="lora")} == {"done"}
        store = Store(db)
        (number,) = (arm.number for arm in store.arms() if arm.label == "lora")
        (task,) = store.drifts([number])[number]
        assert (task.suite, task.role) == ("drift", "drift")
        kept.append(task.kl)
        again = submit_tiny(db, models, submissions[-1], source="lora")
        assert all(job.reused == job.total for job in again)
    assert all(len(kl) == len(kept[0]) and abs(kl - kept[0]).max() < 1e-4 for kl in kept)


def test_a_suite_of_texts_alone_has_drift_under_its_own_role(
    models: Path, task_folder: Path, tmp_path: Path, db: Path
) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(yaml.safe_dump({"name": "d", "role": "domain", "include": str(task_folder), "tasks": ["roll"]}))
    submit_tiny(db, models, (str(file),), source="lora")
    store = Store(db)
    (number,) = (arm.number for arm in store.arms() if arm.label == "lora")
    (task,) = store.drifts([number])[number]
    assert (task.suite, task.role) == ("d", "domain")
