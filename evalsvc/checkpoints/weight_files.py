"""Which files of a folder are a checkpoint's weights: the single rule for digests, checks, costs and scoring.

An adapter's weights are what PEFT loads, full weights what transformers loads: `model.safetensors` if it exists, else
the shards that the index names. Other files in the folder, such as shards of an earlier save, are not read.
"""

from __future__ import annotations

from pathlib import Path

from evalsvc.checkpoints.costs import read_json
from evalsvc.checkpoints.names import read_step
from evalsvc.errors import CheckpointError

INDEX = "model.safetensors.index.json"
_TRAINER_FILES = ("rng_state", "optimizer", "scheduler", "scaler")
"""Prefixes of files in which trainers pickle their own state."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder contains an adapter, not full weights."""
    return (folder / "adapter_config.json").is_file()


def list_weights(folder: Path) -> list[Path]:
    """Return the safetensors files that a loader reads, by name; all of them exist.

    Raises:
        CheckpointError: The folder has no weights, or a shard is missing.
    """
    if problem := describe_missing(folder):
        raise CheckpointError(f"checkpoint {folder}: {problem}")
    return find_weights(folder)


def find_weights(folder: Path) -> list[Path]:
    """Return the safetensors files that a loader would read, including missing shards; empty if there are no weights.

    Raises:
        CheckpointError: The index is damaged, or refers to files outside the folder.
    """
    single, index = folder / ("adapter_model" if is_adapter(folder) else "model"), folder / INDEX
    single = single.with_suffix(".safetensors")
    if single.is_file():
        return [single]
    if is_adapter(folder) or not index.is_file():
        return []
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"{index}: has no weight_map; copy the file again")
    names = sorted({str(name) for name in shards.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{index}: refers to {outside[0]!r}, must refer to files in the same folder")
    return [folder / name for name in names]


def describe_missing(folder: Path) -> str | None:
    """Return what a checkpoint's folder lacks, as a sentence without a subject; None if it is complete."""
    config = folder / ("adapter_config.json" if is_adapter(folder) else "config.json")
    weights = find_weights(folder)
    if weights and not config.is_file():
        return f"has weights but no {config.name}"
    if absent := [path.name for path in weights if not path.is_file()]:
        return f"{len(absent)} of its {len(weights)} weight files are missing (first: {absent[0]}); copy them as well"
    if weights:
        return None
    if pickled := find_pickled_weights(folder):
        return f"its weights are pickled ({pickled[0]}), which can run code on loading; save them as safetensors"
    if shards := sorted(folder.glob("model-*-of-*.safetensors")):
        return f"has {len(shards)} shards but no {INDEX}, which loaders need to find them; copy the index as well"
    if parts := sorted(folder.glob("**/*.distcp")):
        place = parts[0].parent.relative_to(folder)
        return (
            f"its weights are parts of an FSDP checkpoint ({place}), which no loader reads; join them with `accelerate "
            f"merge-weights {parts[0].parent} OUTPUT`, and put config.json beside the result"
        )
    if (folder / "zero_to_fp32.py").is_file():
        return (
            "its weights are parts of a DeepSpeed checkpoint, which no loader reads; join them with `python "
            "zero_to_fp32.py . OUTPUT --safe_serialization`, and put config.json beside the result"
        )
    if others := sorted(path.name for path in folder.glob("*.safetensors")):
        name = "adapter_model.safetensors" if is_adapter(folder) else "model.safetensors"
        return f"has {others[0]}, but loaders only read {name}; if those are its weights, rename the file"
    if inside := find_named_adapter(folder):
        return (
            f"has its adapter in the subfolder {inside.name}, where PEFT saves an adapter of that name; submit {inside}"
        )
    if config.is_file():
        return "has a configuration but no safetensors weights"
    return "is not a checkpoint: no config.json or adapter_config.json, and no checkpoint-*/step_* folders inside"


def find_named_adapter(folder: Path) -> Path | None:
    """Return the first subfolder with an adapter, steps apart; PEFT saves an adapter there that has a name."""
    inside = sorted(path.parent for path in folder.glob("*/adapter_config.json"))
    return next((path for path in inside if find_weights(path) and read_step(path) is None), None)


def find_pickled_weights(folder: Path) -> list[str]:
    """Return the names of pickled files that may contain weights; they are never read."""
    return sorted(
        path.name
        for pattern in ("*model*.bin", "*.pt", "*.pth", "*.ckpt")
        for path in folder.glob(pattern)
        if not path.name.startswith(_TRAINER_FILES)
    )
