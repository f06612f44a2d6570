"""A path, adapter folder or hub id in; `Checkpoint` records out. Reads files, never loads a model.

A checkpoint's digest covers what can change an answer: every tensor (so that shards and file names do not matter), the
model's and generation's configuration, the tokenizer's files and the chat template; not local paths, library versions
or training logs. An adapter's digest covers its base as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalsvc.errors import CheckpointError
from evalsvc.records import Checkpoint, Cost, canonical
from evalsvc.settings import core_count

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)
HUB_FILES = [
    *TOKENIZER_FILES,
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
]

# Keys that differ between machines and library versions without changing an answer.
_VOLATILE = {
    "_name_or_path",
    "name_or_path",
    "transformers_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "peft_version",
    "auto_mapping",
    "tokenizer_file",
    "special_tokens_map_file",
    "is_local",
    "local_files_only",
}
_STEP = re.compile(r"^(?:checkpoint|global_step|step)[-_]?(\d+)$")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(?:@[\w./-]+)?$|^[\w.-]+@[\w./-]+$")
_BLOCK = 8 << 20


@dataclass(frozen=True, slots=True)
class Description:
    """What the user says of a checkpoint; None leaves it to what the files say."""

    method: str | None = None
    name: str | None = None
    step: int | None = None
    cost: Cost = Cost()


def open_base(source: str) -> Checkpoint:
    """Return the base checkpoint at a path or hub id.

    Raises:
        CheckpointError: It does not exist, is an adapter, or cannot be loaded safely.
    """
    folder = locate(source)
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"base {source}: is an adapter; give the full model that it is attached to")
    return _describe(folder, None, Description(), method="base")


def open_checkpoints(source: str, base: str | None, said: Description) -> tuple[Checkpoint, list[Checkpoint]]:
    """Return the base, and the checkpoint at `source` or every step inside a training run's output folder, by step.

    Args:
        source: Folder or hub id.
        base: Folder or hub id of what it was adapted from; None takes an adapter's own word for it, and means that a
            full model is itself a base, which is then not among the checkpoints.
        said: Declared method, name, step and cost.

    Raises:
        CheckpointError: Nothing loadable is there, or the base cannot be resolved.
    """
    folder = locate(source)
    steps = _steps(folder)
    root = open_base(base) if base else _own_base(steps[0][1] if steps else folder)
    if root is None:
        if steps:
            raise CheckpointError(
                f"{source}: holds {len(steps)} full checkpoints; say with --base what they started from"
            )
        return _describe(folder, None, said, method="base"), []
    if not steps:
        only = _open_one(folder, root, said)
        return root, [only] if only.digest != root.digest else []
    if said.step is not None:
        raise CheckpointError(f"--step {said.step}: {source} holds {len(steps)} steps; give one of its folders instead")
    name = said.name or folder.resolve().name
    last = steps[-1][0] or 1
    found = [
        replace(
            _open_one(path, root, replace(said, name=name, step=step, cost=_share(said.cost, step / last))),
            trajectory=name,
        )
        for step, path in steps
    ]
    if _weights(folder):  # the final model that a trainer leaves beside its checkpoints, unless it is the last of them
        final = replace(_open_one(folder, root, said), trajectory=name)
        if final.digest not in {checkpoint.digest for checkpoint in found}:
            found.append(final)
    return root, found


def _share(cost: Cost, share: float) -> Cost:
    """Return what part of a run had cost: time and tokens grow with its steps, peak memory does not."""
    hours, tokens = cost.gpu_hours, cost.train_tokens
    return replace(
        cost,
        gpu_hours=None if hours is None else hours * share,
        train_tokens=None if tokens is None else round(tokens * share),
    )


def _own_base(folder: Path) -> Checkpoint | None:
    """Return the base that an adapter names; None for full weights.

    Raises:
        CheckpointError: The adapter names none, or one that is not here.
    """
    if not (folder / "adapter_config.json").is_file():
        return None
    named = str(_json(folder / "adapter_config.json").get("base_model_name_or_path") or "")
    if not named:
        raise CheckpointError(f"adapter {folder}: names no base; say what it was trained on with --base")
    try:
        return open_base(named)
    except CheckpointError as error:
        raise CheckpointError(
            f"adapter {folder}: its base {named!r} cannot be resolved here; say where it is with --base"
        ) from error


def locate(source: str) -> Path:
    """Return the folder of a path or hub id; hub ids come from the local cache where it has them.

    Raises:
        CheckpointError: Neither a folder nor a hub id that can be had.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"checkpoint {source}: is a file, must be the folder with config.json and weights")
    if not _HUB_ID.match(source) or source.startswith((".", "/")):
        raise CheckpointError(f"checkpoint {source}: no such folder, and not a hub id (organisation/name[@revision])")
    return _from_hub(source)


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = source.partition("@")
    flag = f" --revision {revision}" if revision else ""
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"checkpoint {source}: no such folder, and not to be had from the hub ({reason}); "
            f"where there is network, fill the cache with: hf download {repository}{flag}"
        ) from error


def _steps(folder: Path) -> list[tuple[int, Path]]:
    found = [(int(m[1]), p) for p in folder.iterdir() if p.is_dir() and (m := _STEP.match(p.name))]
    return sorted((step, path) for step, path in found if _weights(path))


def _weights(folder: Path) -> list[Path]:
    """Return the weight files that a loader would take; adapter files for an adapter."""
    pattern = "adapter_model*.safetensors" if (folder / "adapter_config.json").is_file() else "model*.safetensors"
    return sorted(folder.glob(pattern))


def _open_one(folder: Path, base: Checkpoint, said: Description) -> Checkpoint:
    if not (folder / "adapter_config.json").is_file():
        return _describe(folder, base, said, method="full")
    config = _json(folder / "adapter_config.json")
    kind = "dora" if config.get("use_dora") else str(config.get("peft_type", "")).lower()
    return _describe(folder, base, said, method=kind, adapter=True)


def _describe(
    folder: Path, base: Checkpoint | None, said: Description, *, method: str, adapter: bool = False
) -> Checkpoint:
    weights = _weights(folder)
    if not weights:
        raise CheckpointError(f"checkpoint {folder}: {_what_is_missing(folder)}")
    config = folder / ("adapter_config.json" if adapter else "config.json")
    if not config.is_file():
        raise CheckpointError(f"checkpoint {folder}: has weights but no {config.name}")
    tokenizer = _tokenizer_digest(folder)
    if tokenizer is None:
        if base is None:
            raise CheckpointError(f"checkpoint {folder}: has no tokenizer files; save the tokenizer beside the weights")
        tokenizer = base.tokenizer
    parts = [*_tensor_digests(weights), _settings(config), tokenizer]
    generation = folder / "generation_config.json"
    parts += [_settings(generation)] if generation.is_file() else []
    parts += [base.digest] if adapter and base else []
    match = _STEP.match(folder.resolve().name)
    return Checkpoint(
        digest="sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        name=said.name or _name_of(folder.resolve()),
        path=str(folder.resolve()),
        method=said.method or method,
        tokenizer=tokenizer,
        parent=base.digest if base else None,
        base_path=base.path if adapter and base else None,
        step=said.step if said.step is not None else int(match[1]) if match else None,
        cost=said.cost,
    )


def _name_of(folder: Path) -> str:
    if _STEP.match(folder.name):
        return folder.parent.name
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def _what_is_missing(folder: Path) -> str:
    pickled = [p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
    if pickled:
        return f"its weights are pickled ({pickled[0]}), which can run code on loading; save them as safetensors"
    if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
        return "has a configuration but no safetensors weights"
    return "is not a checkpoint: no config.json or adapter_config.json, and no checkpoint-*/step_* folders inside"


# ------------------------------------------------------------------------------------------------------------ digest


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return data


def _settings(path: Path) -> str:
    return canonical({k: v for k, v in _json(path).items() if k not in _VOLATILE})


def _tokenizer_digest(folder: Path) -> str | None:
    """Return the digest of a folder's tokenizer, None if it has none."""
    state, found = hashlib.sha256(), False
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            found = found or name != "special_tokens_map.json"
            # Pretty-printing differs between library versions; the content of JSON does not.
            data = _settings(path).encode() if path.suffix == ".json" else path.read_bytes()
            state.update(f"{name}:{len(data)}:".encode() + data)
    return state.hexdigest()[:32] if found else None


def _tensor_digests(files: Sequence[Path]) -> list[str]:
    """Return "name dtype shape sha256" of every tensor, sorted by name; files are read in parallel."""
    with ThreadPoolExecutor(max_workers=core_count()) as pool:
        found = [line for lines in pool.map(lambda path: list(_tensors(path)), files) for line in lines]
    return sorted(found)


def _tensors(path: Path) -> Iterator[str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            raise CheckpointError(f"{path}: {_not_safetensors(path, size)}")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except ValueError as error:
            raise CheckpointError(f"{path}: {_not_safetensors(path, size)}") from error
        header.pop("__metadata__", None)
        tensors = sorted(header.items(), key=lambda item: int(item[1]["data_offsets"][0]))
        if tensors and 8 + length + max(int(t["data_offsets"][1]) for _, t in tensors) > size:
            raise CheckpointError(f"{path}: is truncated: {size} bytes, its header promises more; copy it again")
        for name, tensor in tensors:
            start, end = tensor["data_offsets"]
            file.seek(8 + length + start)
            yield f"{name} {tensor['dtype']} {tensor['shape']} {_hash(file.read, end - start)}"


def _hash(read: Callable[[int], bytes], count: int) -> str:
    state = hashlib.sha256()
    while count > 0 and (block := read(min(count, _BLOCK))):
        state.update(block)
        count -= len(block)
    return state.hexdigest()


def _not_safetensors(path: Path, size: int) -> str:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            return "is a git-lfs pointer, not the weights; run `git lfs pull`"
    return f"is not a safetensors file ({size} bytes); copy it again"
