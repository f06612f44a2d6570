"""Device and number format of scoring on this machine. Imports torch, but no model code."""

from __future__ import annotations

import psutil
import torch

from evalsvc.errors import UsageError


def choose_device(device: str) -> str:
    """Return the fastest device for "auto", else the device itself if it is available.

    Raises:
        UsageError: It is not available; falling back to another device would silently change every score.
    """
    devices = list_devices()
    if device == "auto":
        return devices[0]
    if device not in devices:
        raise UsageError(f"device {device!r} is not available on this machine; choose from {', '.join(devices)}")
    return device


def list_devices() -> list[str]:
    """Return the devices of this machine, fastest first."""
    availability = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, is_available in availability.items() if is_available]


def spare_memory(device: torch.device) -> int:
    """Return how many bytes a computation may use: half of a GPU's free memory, a quarter of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 2)
    return int(psutil.virtual_memory().available // 4)


def choose_dtype(dtype: str, device: str) -> str:
    """Return the dtype for "auto": float32 on a CPU, bfloat16 elsewhere."""
    if dtype != "auto":
        return dtype
    return "float32" if device == "cpu" else "bfloat16"
