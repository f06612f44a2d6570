"""What training a checkpoint cost, and its seed, read from the files beside it, and how much memory training needs.

Sources, by precedence: the user's options, `evalsvc.json` (fields of Cost, `method`, `seed`), `trainer_state.json` with
`training_args.bin`. The latter is a pickle, which may run code on loading: its opcodes are scanned for a few numbers,
and it is never unpickled.
"""

from __future__ import annotations

import json
import math
import pickletools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from evalsvc.checkpoints.digests import Content
from evalsvc.checkpoints.safetensors import read_headers
from evalsvc.errors import CheckpointError
from evalsvc.files.json_files import read_object
from evalsvc.records.arms import DECLARED, Cost
from evalsvc.records.serialise import build_record

CARD = "evalsvc.json"
TRAINER_STATE = "trainer_state.json"
TRAINING_ARGUMENTS = "training_args.bin"
_ARGUMENT_NAMES = {"per_device_train_batch_size", "gradient_accumulation_steps", "num_processes", "_n_gpu", "seed"}


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's JSON object.

    Raises:
        CheckpointError: The file cannot be read, or is not a JSON object of sensible size and depth.
    """
    return read_object(path, CheckpointError)


@dataclass(frozen=True, slots=True)
class Card:
    """What a cost card declares; None for what it leaves out."""

    cost: Cost = Cost()
    method: str | None = None
    seed: int | None = None


def write_card(folder: Path, cost: Cost, seed: int) -> None:
    """Write the known costs of a checkpoint and the seed of its training to a cost card in its folder."""
    card = {name: value for name in DECLARED if (value := getattr(cost, name)) is not None} | {"seed": seed}
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


def read_card(folder: Path) -> Card:
    """Return what a folder's `evalsvc.json` declares.

    Raises:
        CheckpointError: A field is unknown or malformed.
    """
    path = folder / CARD
    if not path.is_file():
        return Card()
    card = read_json(path)
    method, seed = card.pop("method", None), card.pop("seed", None)
    if unknown := sorted(card.keys() - set(DECLARED)):
        raise CheckpointError(
            f"{path}: unknown field {unknown[0]!r}; choose from method, seed, {', '.join(sorted(DECLARED))}"
        )
    check_costs(card, str(path))
    if method is not None and not isinstance(method, str):
        raise CheckpointError(f"{path}: method is {method!r}, must be a string")
    if seed is not None:
        check_seed(seed, str(path))
    numbers = {k: round(v) if k.startswith("train_") else float(v) for k, v in card.items()}
    return Card(build_record(Cost, numbers), method, seed)


def check_seed(seed: object, source: str) -> None:
    """Check the seed of a training run.

    Raises:
        CheckpointError: It is no whole number from 0 to 2^63 - 1; the message begins with `source`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise CheckpointError(f"{source}: seed is {seed!r}, must be a whole number from 0 to 2^63 - 1")


def check_costs(costs: Mapping[str, Any], source: str) -> None:
    """Check declared costs: finite numbers of at least 0; counts are whole, the trainable share is at most 1.

    Raises:
        CheckpointError: One of them is something else; the message begins with `source`.
    """
    for name, value in costs.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise CheckpointError(f"{source}: {name} is {value!r}, must be a finite number of at least 0")
        if name.startswith("train_") and value != round(value):
            raise CheckpointError(f"{source}: {name} is {value!r}, must be a whole number")
        if name == "trainable_share" and value > 1:
            raise CheckpointError(f"{source}: {name} is {value!r}, must be at most 1")


def read_trainer_step(folder: Path) -> int | None:
    """Return the step after which a trainer saved a checkpoint; None if it is not recorded."""
    state = _state(folder)
    return int(state["global_step"]) if "global_step" in state else None


def read_training_seed(folder: Path) -> int | None:
    """Return the seed in the arguments that transformers' Trainer saved; None if there are none."""
    return (_arguments(folder) or _arguments(folder.parent)).get("seed")


def read_training_cost(folder: Path) -> Cost:
    """Return the cost that transformers' Trainer recorded: tokens and samples seen, and GPU-hours.

    If only the whole run's time is recorded, it is divided in proportion to steps. Hours on a CPU are not GPU-hours.
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
    """Return the wall time until a step in seconds: as logged, else in proportion to the whole run's steps."""
    logged = [entry for entry in state.get("log_history", []) if "train_runtime" in entry and entry.get("step")]
    if not logged:
        return None
    exact = [entry for entry in logged if entry["step"] == step]
    nearest = (exact or logged)[-1]
    return float(nearest["train_runtime"]) * step / float(nearest["step"])


def _arguments(folder: Path) -> dict[str, int]:
    """Return the numbers of `_ARGUMENT_NAMES` from a folder's pickled training arguments, without unpickling them."""
    try:
        with zipfile.ZipFile(folder / TRAINING_ARGUMENTS) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            return dict(_numbers(archive.read(name)))
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError):
        return {}


def _numbers(pickled: bytes) -> Iterator[tuple[str, int]]:
    """Yield (key, integer) wherever in a pickle a key of `_ARGUMENT_NAMES` is followed by an integer."""
    key: str | None = None
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name.endswith("PUT") or opcode.name == "MEMOIZE":
            continue
        if key is not None and opcode.name in {"BININT", "BININT1", "BININT2", "INT", "LONG1"}:
            yield key, int(str(argument))
        key = argument if isinstance(argument, str) and argument in _ARGUMENT_NAMES else None


def compute_trainable_share(adapter: Iterable[Path], base: Iterable[Path]) -> float:
    """Return an adapter's number of parameters divided by its base's; reads only the headers of weight files."""
    own, of_base = (sum(tensor.count for tensor in read_headers(files).values()) for files in (adapter, base))
    return own / of_base


def compute_changed_share(contents: Iterable[Content], base: Iterable[Content]) -> float | None:
    """Return the number of parameters in tensors with a changed digest, divided by all of the base's.

    None if digests cannot be compared: a tensor's number format or shape differs from the base's.
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


def scale_cost(cost: Cost, part: float) -> Cost:
    """Return the cost of a part of a run: all costs grow with its steps, except peak memory and annotation."""
    tokens, samples = cost.train_tokens, cost.train_samples
    return replace(
        cost,
        gpu_hours=None if cost.gpu_hours is None else cost.gpu_hours * part,
        cpu_hours=None if cost.cpu_hours is None else cost.cpu_hours * part,
        train_tokens=None if tokens is None else round(tokens * part),
        train_samples=None if samples is None else round(samples * part),
    )


def merge_costs(*costs: Cost) -> Cost:
    """Return, field by field, the value of the first source that has one."""
    known = {
        field.name: next((v for cost in costs if (v := getattr(cost, field.name)) is not None), None)
        for field in fields(Cost)
    }
    return build_record(Cost, known)


# ------------------------------------------------------------------------------------------------------------ memory


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Memory that training needs, in GB (1e9 bytes): model states, without activations, buffers and fragmentation.

    Attributes:
        full: Full fine-tuning.
        adapter: The adapter on a 16-bit base; None for a checkpoint that is no adapter.
        adapter_4bit: The adapter on a 4-bit base; None for a checkpoint that is no adapter.
    """

    full: float
    adapter: float | None
    adapter_4bit: float | None


def estimate_training_memory(parameters: int, trainable: int | None) -> TrainingMemory:
    """Return the memory of a model's states in training.

    Full fine-tuning with Adam in mixed precision needs 16 bytes per parameter: half-precision weights and gradients,
    and fp32 weights, momentum and variance (Rajbhandari et al. 2020, ZeRO, section 3.1). An adapter needs 16 bytes per
    trainable parameter, in addition to the frozen base with 2 bytes per parameter, or 4 bits with QLoRA (without the
    quantisation constants, half a bit per parameter at blocks of 64).

    Args:
        parameters: Number of the base's parameters.
        trainable: Number of the adapter's parameters; None for a checkpoint that is no adapter.
    """
    return TrainingMemory(
        full=16 * parameters / 1e9,
        adapter=None if trainable is None else (2 * parameters + 16 * trainable) / 1e9,
        adapter_4bit=None if trainable is None else (0.5 * parameters + 16 * trainable) / 1e9,
    )
