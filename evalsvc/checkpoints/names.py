"""Names of checkpoints and training steps, from the names of their folders."""

from __future__ import annotations

import re
from pathlib import Path

_STEP = re.compile(r"^(?:checkpoint|global_step|step)[-_]?(\d+)$")


def read_step(folder: Path) -> int | None:
    """Return the training step in a folder's name, as trainers write it; None if there is none."""
    match = _STEP.match(folder.name)
    return int(match[1]) if match else None


def read_hub_id(folder: Path) -> str | None:
    """Return the Hub id of a folder of the Hub's cache; None for every other folder."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return None


def display_name(folder: Path) -> str:
    """Return the name of the checkpoint in a folder: the run's for a step, the Hub id for a folder of its cache."""
    if read_step(folder) is not None:
        return folder.parent.name
    return read_hub_id(folder) or folder.name
