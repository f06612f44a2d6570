"""Progress and notes of long commands."""

from __future__ import annotations

import time

import pytest

from evalsvc.cli import output


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 5.0, 31.0, 31.0, 45.0, 61.0, 61.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    with output.working(quiet=False) as (note, progress):
        note("scoring")
        for done in (1000, 2000, 3000, 4000):
            progress(done, 4000)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["scoring", "scoring: 2,000 of 4,000", "scoring: 4,000 of 4,000"]
    assert captured.out == ""


def test_quiet_prints_no_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_SECONDS_BETWEEN_LINES", 0)
    with output.working(quiet=True) as (note, progress):
        note("scoring")
        progress(1, 2)
    assert capsys.readouterr().err == ""


def test_nothing_to_do_is_no_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_SECONDS_BETWEEN_LINES", 0)
    with output.working(quiet=False) as (note, progress):
        note("reading checkpoints")
        progress(0, 0)
    assert capsys.readouterr().err.splitlines() == ["reading checkpoints"]
