"""The digest of every tensor of a checkpoint, and whether it is finite or zero; each byte is read once.

Tensors are read in parallel, a block at a time, largest first. The results are cached, one small file per weight file,
and are valid while path, size, times and inode stay the same. A file whose time stamps are younger than two seconds
could still change without a new time stamp, so its results are not cached.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalsvc.checkpoints.safetensors import Tensor, read_header
from evalsvc.errors import CheckpointError
from evalsvc.records.digests import digest
from evalsvc.records.serialise import build_record
from evalsvc.settings import cache_dir, core_count

Progress = Callable[[int, int], None]
"""Called with MiB read and MiB in total."""

_BLOCK = 1 << 20  # a block and its copy fit a core's cache
_YOUNG = 2.0
_FORMAT = 1
_BITS_OF_FLOATS: dict[str, tuple[type[Any], int, int]] = {
    # dtype: unsigned type of its bits, mask of all bits but the sign, smallest magnitude that is infinite or NaN
    "F16": (np.uint16, 0x7FFF, 0x7C00),
    "BF16": (np.uint16, 0x7FFF, 0x7F80),
    "F32": (np.uint32, 0x7FFF_FFFF, 0x7F80_0000),
    "F64": (np.uint64, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    "F8_E4M3": (np.uint8, 0x7F, 0x7F),
    "F8_E5M2": (np.uint8, 0x7F, 0x7C),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Summary of a tensor's content.

    Attributes:
        sha256: Digest of its bytes.
        finite: Whether it has no NaN and no infinity; True for integers.
        zero: Whether all elements are zero.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    finite: bool
    zero: bool

    @property
    def line(self) -> str:
        """The tensor's line in a checkpoint's digest."""
        return f"{self.name} {self.dtype} {list(self.shape)} {self.sha256}"


def ignore(done: int, total: int) -> None:
    """Show no progress."""


def read_contents(files: Iterable[Path], progress: Progress = ignore) -> dict[Path, list[Content]]:
    """Return the contents of safetensors files, from the cache or read in parallel.

    Raises:
        CheckpointError: A file cannot be read, is truncated, or was written to during reading.
    """
    contents: dict[Path, list[Content]] = {}
    fresh: dict[Path, tuple[list[Tensor], list[int], float]] = {}
    for file in dict.fromkeys(files):
        try:
            stamp, now = _stamp(file), time.time()
            known = _load_cached(file, stamp)
            if known is None:
                fresh[file] = (read_header(file), stamp, now)
            else:
                contents[file] = known
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    tensors = [tensor for header, *_ in fresh.values() for tensor in header]
    read = dict(zip(_keys(tensors), _read_all(tensors, progress), strict=True))
    for file, (header, stamp, started) in fresh.items():
        contents[file] = [read[key] for key in _keys(header)]
        if not file.is_file() or _stamp(file) != stamp:
            raise CheckpointError(f"{file}: changed while it was read; try again when it is complete")
        _cache(file, stamp, started, contents[file])
    return contents


def _keys(tensors: Sequence[Tensor]) -> list[tuple[Path, str]]:
    return [(tensor.file, tensor.name) for tensor in tensors]


def _read_all(tensors: Sequence[Tensor], progress: Progress) -> list[Content]:
    total, done, lock = sum(tensor.size for tensor in tensors), 0, threading.Lock()

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress(done >> 20, total >> 20)

    def digest_tensor(tensor: Tensor) -> Content:
        return _digest_tensor(tensor, advance)

    largest_first = sorted(range(len(tensors)), key=lambda i: -tensors[i].size)
    with ThreadPoolExecutor(max_workers=core_count()) as pool:
        contents = list(pool.map(digest_tensor, [tensors[i] for i in largest_first]))
    return [content for _, content in sorted(zip(largest_first, contents, strict=True), key=lambda pair: pair[0])]


def _digest_tensor(tensor: Tensor, advance: Callable[[int], None]) -> Content:
    state, finite, zero, left = hashlib.sha256(), True, True, tensor.size
    kind, mask, limit = _BITS_OF_FLOATS.get(tensor.dtype, (np.uint8, 0xFF, 0x100))
    memory = bytearray(min(_BLOCK, tensor.size))
    view, block = memoryview(memory), np.frombuffer(memory, dtype=np.uint8)
    magnitudes = np.empty(_BLOCK // np.dtype(kind).itemsize, dtype=kind)
    try:
        with tensor.file.open("rb") as file:
            file.seek(tensor.start)
            pending = 0
            while left:
                count = file.readinto(view[: min(left, _BLOCK)])
                if count == 0:
                    raise CheckpointError(f"{tensor.file}: ends within tensor {tensor.name}; copy it again")
                state.update(view[:count])
                bits = block[: count - count % np.dtype(kind).itemsize].view(kind)
                largest = int(np.bitwise_and(bits, kind(mask), out=magnitudes[: len(bits)]).max(initial=0))
                finite, zero = finite and largest < limit, zero and largest == 0
                left -= count
                pending += count
                if pending >= 64 * _BLOCK or not left:
                    advance(pending)
                    pending = 0
    except OSError as error:
        raise CheckpointError(f"{tensor.file}: cannot be read: {error.strerror}") from error
    return Content(
        name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, sha256=state.hexdigest(), finite=finite, zero=zero
    )


# ------------------------------------------------------------------------------------------------------------- cache


def _stamp(file: Path) -> list[int]:
    """Return numbers of a file that change with its content: size, times in nanoseconds and inode."""
    stats = file.stat()
    return [stats.st_size, stats.st_mtime_ns, stats.st_ctime_ns, stats.st_ino]


def _cache_file(file: Path) -> Path:
    return cache_dir() / "contents" / f"{digest(str(file.resolve()))}.json"


def _load_cached(file: Path, stamp: list[int]) -> list[Content] | None:
    try:
        cached = json.loads(_cache_file(file).read_text(encoding="utf-8"))
        if cached["format"] != _FORMAT or cached["stamp"] != stamp:
            return None
        return [build_record(Content, entry, shape=tuple(entry["shape"])) for entry in cached["contents"]]
    except (OSError, ValueError, KeyError, TypeError):  # absent, or written by another version
        return None


def _cache(file: Path, stamp: list[int], started: float, contents: list[Content]) -> None:
    if started - max(stamp[1], stamp[2]) / 1e9 < _YOUNG:
        return
    place = _cache_file(file)
    text = json.dumps({"format": _FORMAT, "stamp": stamp, "contents": [asdict(content) for content in contents]})
    with contextlib.suppress(OSError):  # with a full or read-only cache files are read again
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(f".{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(place)
