"""What a checkpoint cost to make, read from what training left beside it, and what training takes in memory.

In order of trust: what the user says, `evalsvc.json` (fields of Cost, and `method`), `trainer_state.json` with
`training_args.bin`. The latter is a pickle, which may run code on loading: its opcodes are looked through for the few
numbers that are wanted, and nothing is ever built from them.
"""

from __future__ import annotations

import json
import math
import pickletools
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from evalsvc.checkpoints.digests import Content
from evalsvc.checkpoints.safetensors import read_headers
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import DECLARED, Cost
from evalsvc.records.serialise import build_record

CARD = "evalsvc.json"
TRAINER_STATE = "trainer_state.json"
TRAINING_ARGUMENTS = "training_args.bin"
_WANTED = {"per_device_train_batch_size", "gradient_accumulation_steps", "num_processes", "_n_gpu"}


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's JSON object.

    Raises:
        CheckpointError: It holds none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return data


def write_card(folder: Path, cost: Cost) -> None:
    """Write a cost card beside a checkpoint: the costs that are known."""
    card = {name: value for name in DECLARED if (value := getattr(cost, name)) is not None}
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


def card_of(folder: Path) -> tuple[Cost, str | None]:
    """Return cost and method as a folder's `evalsvc.json` declares them.

    Raises:
        CheckpointError: It has unknown or malformed fields.
    """
    path = folder / CARD
    if not path.is_file():
        return Cost(), None
    card = read_json(path)
    method = card.pop("method", None)
    if unknown := sorted(card.keys() - set(DECLARED)):
        raise CheckpointError(f"{path}: unknown field {unknown[0]!r}; known: method, {', '.join(sorted(DECLARED))}")
    for name, value in card.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise CheckpointError(f"{path}: {name} is {value!r}, must be a number that is not negative")
    if method is not None and not isinstance(method, str):
        raise CheckpointError(f"{path}: method is {method!r}, must be a text")
    numbers = {k: round(v) if k.startswith("train_") else float(v) for k, v in card.items()}
    return build_record(Cost, numbers), method


def trainer_step(folder: Path) -> int | None:
    """Return the step that a trainer saved a checkpoint after, None if it does not say."""
    state = _state(folder)
    return int(state["global_step"]) if "global_step" in state else None


def read_training_cost(folder: Path) -> Cost:
    """Return what transformers' Trainer recorded of a checkpoint: tokens and samples seen, and GPU-hours.

    A runtime that only the whole run has is shared out by step. Hours on a CPU are not GPU-hours.
    """
    state = _state(folder)
    step = state.get("global_step")
    if not step:
        return Cost()
    arguments = _arguments(folder) or _arguments(folder.parent)
    batch = arguments.get("per_device_train_batch_size")
    devices = arguments.get("num_processes", 1) * arguments.get("_n_gpu", 0)
    samples = None
    if batch:
        parallel = max(devices, arguments.get("num_processes", 1))
        samples = step * batch * arguments.get("gradient_accumulation_steps", 1) * parallel
    seconds = _seconds(state, step) or _seconds(_state(folder.parent), step)
    return Cost(
        gpu_hours=seconds * devices / 3600 if seconds and devices else None,
        train_tokens=state.get("num_input_tokens_seen") or None,
        train_samples=samples,
    )


def _state(folder: Path) -> dict[str, Any]:
    path = folder / TRAINER_STATE
    return read_json(path) if path.is_file() else {}


def _seconds(state: dict[str, Any], step: int) -> float | None:
    """Return the wall time until a step: as logged, else its share of the whole run's."""
    logged = [entry for entry in state.get("log_history", []) if "train_runtime" in entry and entry.get("step")]
    if not logged:
        return None
    exact = [entry for entry in logged if entry["step"] == step]
    nearest = (exact or logged)[-1]
    return float(nearest["train_runtime"]) * step / float(nearest["step"])


def _arguments(folder: Path) -> dict[str, int]:
    """Return the wanted numbers of a folder's pickled training arguments, without loading them."""
    try:
        with zipfile.ZipFile(folder / TRAINING_ARGUMENTS) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            return dict(_numbers(archive.read(name)))
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError):
        return {}


def _numbers(pickled: bytes) -> Iterator[tuple[str, int]]:
    """Yield (key, integer) wherever a pickle has a wanted key with an integer behind it."""
    key: str | None = None
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name.endswith("PUT") or opcode.name == "MEMOIZE":
            continue
        if key is not None and opcode.name in {"BININT", "BININT1", "BININT2", "INT", "LONG1"}:
            yield key, int(str(argument))
        key = argument if isinstance(argument, str) and argument in _WANTED else None


def trainable_share(adapter: Iterable[Path], base: Iterable[Path]) -> float:
    """Return the parameters in an adapter's weight files over those in its base's; only headers are read."""
    own, of_base = (sum(tensor.count for tensor in read_headers(files).values()) for files in (adapter, base))
    return own / of_base


def changed_share(contents: Iterable[Content], base: Iterable[Content]) -> float | None:
    """Return the parameters of the tensors that training changed over all of the base's, by their digests.

    None where digests do not tell: a tensor has another number format or shape than the base's.
    """
    of_base = {content.name: content for content in base}
    changed = 0
    for content in contents:
        other = of_base.get(content.name)
        if other is None:
            continue
        if (content.dtype, content.shape) != (other.dtype, other.shape):
            return None
        changed += math.prod(content.shape) if content.sha256 != other.sha256 else 0
    return changed / sum(math.prod(content.shape) for content in of_base.values())


def share(cost: Cost, part: float) -> Cost:
    """Return what part of a run had cost: all grows with its steps, but for peak memory and annotation."""
    tokens, samples = cost.train_tokens, cost.train_samples
    return replace(
        cost,
        gpu_hours=None if cost.gpu_hours is None else cost.gpu_hours * part,
        cpu_hours=None if cost.cpu_hours is None else cost.cpu_hours * part,
        train_tokens=None if tokens is None else round(tokens * part),
        train_samples=None if samples is None else round(samples * part),
    )


def first_known(*costs: Cost) -> Cost:
    """Return, field by field, what the first of several sources knows."""
    known = {
        field.name: next((v for cost in costs if (v := getattr(cost, field.name)) is not None), None)
        for field in fields(Cost)
    }
    return build_record(Cost, known)


# ------------------------------------------------------------------------------------------------------------ memory


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Memory of training in GB (1e9 bytes): model states only, without activations, buffers and fragmentation."""

    full: float
    adapter: float
    adapter_4bit: float


def training_memory(parameters: int, trainable: int) -> TrainingMemory:
    """Return what a model's states take in training.

    Full fine-tuning with Adam in mixed precision takes 16 bytes per parameter: half-precision weights and gradients,
    and fp32 weights, momentum and variance (Rajbhandari et al. 2020, ZeRO, section 3.1). An adapter takes 16 bytes per
    trainable parameter, beside a frozen base of 2 bytes, or of 4 bits (QLoRA; the quantisation constants, half a bit
    per parameter at blocks of 64, are left out), per parameter.

    Args:
        parameters: Of the base.
        trainable: Of the adapter.
    """
    return TrainingMemory(
        full=16 * parameters / 1e9,
        adapter=(2 * parameters + 16 * trainable) / 1e9,
        adapter_4bit=(0.5 * parameters + 16 * trainable) / 1e9,
    )
