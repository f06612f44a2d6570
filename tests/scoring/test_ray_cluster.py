"""The cluster file, and commands that are sent to a cluster."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from evalsvc.scoring.ray_executor import import_ray
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def test_rays_own_validator_accepts_the_cluster_file() -> None:
    import_ray()
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="unexpected"):
        validate_config(prepare_config({**config, "unexpected": 1}))


class Head(NamedTuple):
    address: str
    token: str


class StartedHead(NamedTuple):
    """A head, and its answer to the first command that it could run: `status --json`."""

    head: Head
    first: subprocess.CompletedProcess[str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedHead]:
    """A real head with its Jobs API, behind a token."""
    folder = tmp_path_factory.mktemp("head")
    port = free_port()
    token = secrets.token_hex(32)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_agent_register_timeout_ms": "300000",  # the default of 30 s ends the head at its start on a busy machine
        "EVALSVC_DB": str(folder / "head.duckdb"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["ray", "start", "--head", "--block", "--num-cpus=1", f"--port={free_port()}"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    head = Head(f"http://127.0.0.1:{port}", token)
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while process.poll() is None and not _is_open(port):
            time.sleep(0.5)
        while (first := remotely(head, "status", "--json")).returncode == 1 and process.poll() is None:
            time.sleep(1)
        assert process.poll() is None, (folder / "log").read_text()
        yield StartedHead(head, first)
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def remotely(head: Head, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    # In a process of its own: Ray reads the token once per process, and other tests have other clusters.
    return subprocess.run(
        [sys.executable, "-m", "evalsvc", *arguments, "--address", head.address],
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token or head.token},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_runs_on_the_head_and_its_answer_and_exit_code_come_back(started: StartedHead) -> None:
    assert (started.first.returncode, started.first.stdout) == (2, "")
    assert "head.duckdb: no such file; submit a checkpoint first" in started.first.stderr
    done = remotely(started.head, "doctor", "--json")
    assert done.returncode == 0
    assert done.stdout.startswith('{"schema": 1, "findings": [')
    assert len(done.stdout.splitlines()) == 1


def test_a_wrong_token_is_refused_in_one_line(started: StartedHead) -> None:
    done = remotely(started.head, "status", token="x" * 64)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"evalsvc: cluster {started.head.address}: " in done.stderr
