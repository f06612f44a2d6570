"""Which device and number format scoring uses here. Imports torch, but no model code."""

from __future__ import annotations

import psutil
import torch

from evalsvc.errors import UsageError


def chosen_device(wanted: str) -> str:
    """Return the device for "auto", or check that the wanted one is there.

    Raises:
        UsageError: It is not; falling back to another would change every score without a word.
    """
    there = available()
    if wanted == "auto":
        return there[0]
    if wanted not in there:
        raise UsageError(f"device {wanted!r} is not available here; available: {', '.join(there)}")
    return wanted


def available() -> list[str]:
    """Return the devices of this machine, fastest first."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, there in found.items() if there]


def spare_memory(device: torch.device) -> int:
    """Return how many bytes a computation may take: half of a GPU's free memory, a quarter of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 2)
    return int(psutil.virtual_memory().available // 4)


def chosen_dtype(wanted: str, device: str) -> str:
    """Return the dtype for "auto": float32 on a CPU, bfloat16 elsewhere."""
    if wanted != "auto":
        return wanted
    return "float32" if device == "cpu" else "bfloat16"
