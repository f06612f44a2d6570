"""The bytes of a regular file, if there are not too many."""

from __future__ import annotations

import gzip
import stat
import zlib
from io import BytesIO
from pathlib import Path

from evalsvc.errors import EvalsvcError

MOST_BYTES = 4 << 30
"""Largest file that is read whole, unpacked: the samples of a large evaluation take some hundred megabytes."""
_PART = 1 << 20
"""Bytes that are unpacked at once."""


def read_bounded(path: Path, noun: str, error_type: type[EvalsvcError], most: int = MOST_BYTES) -> bytes:
    """Return the bytes of a regular file, unpacked if it is gzipped.

    Args:
        noun: Name of the kind of file, to begin error messages with: "policy p.yaml".
        most: Number of bytes that are read at most, unpacked.

    Raises:
        EvalsvcError: Of type `error_type`: the file cannot be read, is no regular file, or is too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, and a device never ends
            kind = "a folder" if path.is_dir() else "no regular file"
            raise error_type(f"{noun}: cannot be read: it is {kind}")
        data = path.read_bytes() if status.st_size <= most else b""
        if data[:2] == b"\x1f\x8b":
            data = _unpack(data, most)
    except OSError as error:  # also a damaged gzip file
        raise error_type(f"{noun}: cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise error_type(f"{noun}: cannot be unpacked: {error}") from error
    if max(status.st_size, len(data)) > most:
        raise error_type(f"{noun}: is larger than {most / 1e6:,.0f} MB, which is not read")
    return data


def _unpack(packed: bytes, most: int) -> bytes:
    """Return gzipped data, up to the first part beyond a number of bytes.

    To ask for that number at once would take memory for all of them, however small the file is.
    """
    data = bytearray()
    with gzip.GzipFile(fileobj=BytesIO(packed)) as file:
        while len(data) <= most and (part := file.read(_PART)):
            data += part
    return bytes(data)
