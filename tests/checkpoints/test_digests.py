"""Contents are read once, in parallel, and again only when a file may have changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from evalsvc.checkpoints import digests
from evalsvc.checkpoints.digests import read_contents
from evalsvc.checkpoints.safetensors import Tensor
from evalsvc.errors import CheckpointError

LONG_AGO = (1e9, 1e9)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALSVC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_YOUNG", -1.0)  # files of a test are never older than two seconds
    path = tmp_path / "w.safetensors"
    save_file({"a": np.arange(7, dtype=np.float32), "b": np.zeros((3, 2), np.float16)}, path)
    return path


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count which tensors are really read from here on."""
    seen: list[str] = []
    real = digests._digest_tensor

    def read(tensor: Tensor, advance: Callable[[int], None]) -> digests.Content:
        seen.append(tensor.name)
        return real(tensor, advance)

    monkeypatch.setattr(digests, "_digest_tensor", read)
    return seen


def test_a_tensor_is_known_by_its_bytes(file: Path) -> None:
    a, b = sorted(read_contents([file])[file], key=lambda content: content.name)
    assert a.sha256 == hashlib.sha256(np.arange(7, dtype=np.float32).tobytes()).hexdigest()
    assert (a.dtype, a.shape, a.finite, a.zero) == ("F32", (7,), True, False)
    assert (b.dtype, b.shape, b.finite, b.zero) == ("F16", (3, 2), True, True)


def test_a_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, seen = read_contents([file]), reads(monkeypatch)
    assert read_contents([file]) == first
    assert seen == []


def test_a_changed_byte_under_an_old_time_stamp_is_seen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(file, LONG_AGO)
    first, seen = read_contents([file]), reads(monkeypatch)
    content = bytearray(file.read_bytes())
    content[-30] ^= 1
    file.write_bytes(content)
    os.utime(file, LONG_AGO)
    assert read_contents([file]) != first
    assert sorted(seen) == ["a", "b"]


def test_a_file_that_was_just_written_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_YOUNG", 2.0)
    read_contents([file])
    seen = reads(monkeypatch)
    read_contents([file])
    assert sorted(seen) == ["a", "b"]


def test_another_file_in_its_place_is_another(file: Path, tmp_path: Path) -> None:
    first = read_contents([file])
    save_file({"a": np.arange(7, dtype=np.float32) + 1, "b": np.zeros((3, 2), np.float16)}, tmp_path / "other")
    (tmp_path / "other").replace(file)
    assert read_contents([file]) != first


def test_a_damaged_or_unwritable_cache_costs_nothing_but_time(file: Path, tmp_path: Path) -> None:
    first = read_contents([file])
    (kept,) = (tmp_path / "cache" / "contents").glob("*.json")
    kept.write_text('{"format": 1, "stamp"')
    assert read_contents([file]) == first
    kept.unlink()
    kept.mkdir()
    assert read_contents([file]) == first


def test_progress_goes_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALSVC_CACHE", str(tmp_path / "cache"))
    files = []
    for name in "xy":
        files.append(tmp_path / f"{name}.safetensors")
        save_file({f"{name}{n}": np.zeros(1 << 19, np.float32) for n in range(3)}, files[-1])
    seen: list[tuple[int, int]] = []
    assert len(read_contents(files, lambda done, total: seen.append((done, total)))[files[0]]) == 3
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)


def test_blocks_do_not_matter(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = read_contents([file])
    monkeypatch.setattr(digests, "_BLOCK", 8)
    monkeypatch.setenv("EVALSVC_CACHE", str(tmp_path / "other"))
    assert read_contents([file]) == first


def test_a_file_that_cannot_be_read(file: Path) -> None:
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_contents([file])


def test_a_file_that_is_written_to_meanwhile(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = digests._digest_tensor

    def grow(tensor: Tensor, advance: Callable[[int], None]) -> digests.Content:
        with file.open("ab") as more:
            more.write(b"x")
        return real(tensor, advance)

    monkeypatch.setattr(digests, "_digest_tensor", grow)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        read_contents([file])
