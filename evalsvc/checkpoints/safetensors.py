"""Safetensors files: which tensors they contain, and where. Reads headers, never weights.

Layout: 8 bytes with the header's length, the header as JSON, then the tensors one after another without gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from evalsvc.errors import CheckpointError
from evalsvc.files.json_files import parse_object

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Where a tensor's bytes are.

    Attributes:
        dtype: Name in the file's header: "F32", "BF16", ...
        start: Offset in the file, in bytes.
        size: Length in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_headers(files: Iterable[Path]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's files by name.

    Raises:
        CheckpointError: A file is not a complete safetensors file, or two contain the same tensor.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        for tensor in read_header(file):
            if tensor.name in tensors:
                raise CheckpointError(
                    f"{file}: contains tensor {tensor.name}, which {tensors[tensor.name].file.name} contains as well; "
                    "delete the file that does not belong to the checkpoint"
                )
            tensors[tensor.name] = tensor
    return tensors


def read_header(path: Path) -> list[Tensor]:
    """Return the tensors of one file in the order of their bytes.

    Raises:
        CheckpointError: It is a Git LFS pointer, truncated, or not a safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if not 0 < length <= min(size - 8, _LARGEST_HEADER):
            raise CheckpointError(f"{path}: {_not_safetensors(path, size)}")
        try:
            header = parse_object(file.read(length), str(path), CheckpointError)
            header.pop("__metadata__", None)
            start = 8 + length
            tensors = [
                Tensor(
                    name=name, dtype=entry["dtype"], shape=tuple(entry["shape"]), file=path,
                    start=start + entry["data_offsets"][0], size=entry["data_offsets"][1] - entry["data_offsets"][0],
                )
                for name, entry in header.items()
            ]  # fmt: skip
        except (CheckpointError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise CheckpointError(f"{path}: {_not_safetensors(path, size)}") from error
    tensors.sort(key=lambda tensor: (tensor.start, tensor.size))
    _check(path, size, start, tensors)
    return tensors


def _check(path: Path, size: int, start: int, tensors: list[Tensor]) -> None:
    """Check the header against the file: tensors of the right size, one after another, to the end of the file."""
    for tensor in tensors:
        if tensor.start != start:
            raise CheckpointError(
                f"{path}: is corrupt: tensor {tensor.name} overlaps another, or leaves a gap; copy the file again"
            )
        bits = BITS.get(tensor.dtype)
        if bits is not None and tensor.count * bits != tensor.size * 8:
            raise CheckpointError(
                f"{path}: is corrupt: tensor {tensor.name} has {tensor.size} bytes, which does not match "
                f"{tensor.dtype} {list(tensor.shape)}; copy the file again"
            )
        start += tensor.size
    if start > size:
        raise CheckpointError(f"{path}: is truncated: {size} bytes, {start} by its header; copy the file again")
    if start < size:
        raise CheckpointError(f"{path}: is corrupt: {size - start} bytes after the last tensor; copy the file again")


def _not_safetensors(path: Path, size: int) -> str:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            return "is a Git LFS pointer, not the weights; run `git lfs pull`"
    return f"is not a safetensors file ({size} bytes); copy the file again"
