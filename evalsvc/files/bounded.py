"""The bytes of a regular file, if there are not too many."""

from __future__ import annotations

import gzip
import stat
import zlib
from pathlib import Path

from evalsvc.errors import EvalsvcError

MOST_BYTES = 4 << 30
"""Largest file that is read whole, unpacked: the samples of a large evaluation take some hundred megabytes."""


def read_bounded(path: Path, noun: str, error_type: type[EvalsvcError], most: int = MOST_BYTES) -> bytes:
    """Return the bytes of a regular file, unpacked if it is gzipped.

    Args:
        noun: Name of the kind of file, to begin error messages with: "policy p.yaml".
        most: Number of bytes that are read at most, unpacked.

    Raises:
        EvalsvcError: Of type `error_type`: the file cannot be read, is no regular file, or is too large.
    """
    try:
        # A pipe would be waited for, and a device never ends.
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "no regular file"
            raise error_type(f"{noun}: cannot be read: it is {kind}")
        with path.open("rb") as file:
            data = file.read(most + 1)
        if data[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                data = file.read(most + 1)
    except OSError as error:  # also a damaged gzip file
        raise error_type(f"{noun}: cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise error_type(f"{noun}: cannot be unpacked: {error}") from error
    if len(data) > most:
        raise error_type(f"{noun}: is larger than {most / 1e6:,.0f} MB, which is not read")
    return data
