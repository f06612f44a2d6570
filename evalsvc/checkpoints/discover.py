"""A path, adapter folder or hub id in; `Checkpoint` records out. Reads files, never loads a model.

A checkpoint's digest covers what can change an answer: every tensor (so that shards and file names do not matter), the
model's and generation's configuration, the tokenizer's files and the chat template; not local paths, library versions
or training logs. An adapter's digest covers its base as well.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from evalsvc.checkpoints.costs import (
    TRAINER_STATE,
    TRAINING_ARGUMENTS,
    card_of,
    changed_share,
    first_known,
    read_json,
    read_training_cost,
    share,
    trainable_share,
    trainer_step,
)
from evalsvc.checkpoints.digests import Progress, ignore, read_contents
from evalsvc.checkpoints.safetensors import read_header
from evalsvc.checkpoints.weight_files import (
    describe_missing,
    find_pickled_weights,
    find_weights,
    is_adapter,
    list_weights,
)
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Checkpoint, Cost
from evalsvc.records.digests import canonical

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
_WRITING_SECONDS = 600
"""A step that is incomplete and was touched within this time is taken to be on its way to the disk."""

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Description:
    """What the user says of a checkpoint; None leaves it to what the files say."""

    method: str | None = None
    name: str | None = None
    step: int | None = None
    cost: Cost = Cost()


def _silent(text: str) -> None:
    """Note nothing."""


def open_base(source: str, progress: Progress = ignore) -> Checkpoint:
    """Return the base checkpoint at a path or hub id.

    Raises:
        CheckpointError: It does not exist, is an adapter, or cannot be loaded safely.
    """
    folder = locate(source)
    if is_adapter(folder):
        raise CheckpointError(f"base {source}: is an adapter; give the full model that it is attached to")
    return _describe(folder, None, Description(), progress, method="base")


def open_checkpoints(
    source: str,
    base: str | None,
    said: Description,
    *,
    progress: Progress = ignore,
    note: Note = _silent,
) -> tuple[Checkpoint, list[Checkpoint]]:
    """Return the base, and the checkpoint at `source` or every step inside a training run's output folder, by step.

    Args:
        source: Folder or hub id.
        base: Folder or hub id of what it was adapted from; None takes an adapter's own word for it, and means that a
            full model is itself a base, which is then not among the checkpoints.
        said: Declared method, name, step and cost.
        progress: Told how much has been read.
        note: Told which steps of a run that is still being written were left out.

    Raises:
        CheckpointError: Nothing loadable is there, or the base cannot be resolved.
    """
    folder = locate(source)
    steps = _steps(folder, note)
    root = open_base(base, progress) if base else _own_base(steps[0][1] if steps else folder, progress)
    if root is None:
        if steps:
            raise CheckpointError(
                f"{source}: holds {len(steps)} full checkpoints; say with --base what they started from"
            )
        return _describe(folder, None, said, progress, method="base"), []
    if not steps:
        only = _open_one(folder, root, said, progress)
        return root, [only] if only.digest != root.digest else []
    if said.step is not None:
        raise CheckpointError(f"--step {said.step}: {source} holds {len(steps)} steps; give one of its folders instead")
    return root, _open_run(folder, root, steps, said, progress)


def _open_run(
    folder: Path, root: Checkpoint, steps: list[tuple[int, Path]], said: Description, progress: Progress
) -> list[Checkpoint]:
    """Return the checkpoints of a training run; what it cost in all is shared out over its steps."""
    name = said.name or folder.resolve().name
    card, method = card_of(folder)
    said = replace(said, name=name, method=said.method or method)
    whole, last = first_known(said.cost, card), steps[-1][0] or 1
    found = []
    for step, path in steps:
        try:
            one = _open_one(path, root, replace(said, step=step, cost=share(whole, step / last)), progress)
        except (CheckpointError, FileNotFoundError):
            if path.is_dir():
                raise
            continue  # the trainer keeps only its last few, and has just removed this one
        found.append(replace(one, trajectory=name))
    if find_weights(
        folder
    ):  # the final model that a trainer leaves beside its checkpoints, unless it is the last of them
        final = replace(_open_one(folder, root, replace(said, cost=whole), progress), trajectory=name)
        if final.digest not in {checkpoint.digest for checkpoint in found}:
            found.append(final)
    return found


def _own_base(folder: Path, progress: Progress) -> Checkpoint | None:
    """Return the base that an adapter names; None for full weights.

    Raises:
        CheckpointError: The adapter names none, or one that is not here.
    """
    if not is_adapter(folder):
        return None
    config = read_json(folder / "adapter_config.json")
    named = str(config.get("base_model_name_or_path") or "")
    if not named:
        raise CheckpointError(f"adapter {folder}: names no base; say what it was trained on with --base")
    revision = config.get("revision")
    try:
        return open_base(f"{named}@{revision}" if revision and not Path(named).is_dir() else named, progress)
    except CheckpointError as error:
        raise CheckpointError(
            f"adapter {folder}: its base {named!r} cannot be resolved here; say where it is with --base ({error})"
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
    """Return a hub id's folder in the local cache; what is not there whole is asked of the hub, where that is allowed.

    Raises:
        CheckpointError: It is not to be had; says how to fill the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = source.partition("@")
    flag = f" --revision {revision}" if revision else ""

    def fetch(*, offline: bool) -> Path:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES, local_files_only=offline)
        )

    try:
        folder = fetch(offline=True)
        if describe_missing(folder) is None:
            return folder
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    try:
        folder = fetch(offline=False)
        reason = describe_missing(folder)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
    if reason is None:
        return folder
    raise CheckpointError(
        f"checkpoint {source}: no such folder, and not to be had from the hub ({reason}); "
        f"where there is network, fill the cache with: hf download {repository}{flag}"
    )


# ------------------------------------------------------------------------------------------------------------- files


def _steps(folder: Path, note: Note) -> list[tuple[int, Path]]:
    """Return (step, folder) of a run's checkpoints by step, without those that are still being written."""
    found = []
    for path in folder.iterdir():
        match = _STEP.match(path.name)
        if not match or not path.is_dir():
            continue
        if _is_being_written(path):
            note(f"{path.name} is still being written: left out; submit again when it is complete")
        elif find_weights(path) or (find_pickled_weights(path) and (path / "config.json").is_file()):
            found.append((int(match[1]), path))
    return sorted(found)


def _is_being_written(folder: Path) -> bool:
    """Whether a step was touched a short while ago and lacks something: transformers' Trainer writes its state last."""
    try:
        touched = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        if time.time() - touched > _WRITING_SECONDS:
            return False
        by_trainer = (folder / TRAINING_ARGUMENTS).is_file() or any(folder.parent.glob(f"*/{TRAINER_STATE}"))
        if by_trainer:
            return not (folder / TRAINER_STATE).is_file()
        for file in find_weights(folder):
            read_header(file)
        return describe_missing(folder) is not None and not find_pickled_weights(folder)
    except (OSError, CheckpointError):  # it went away, or ends before its header's end
        return True


# ------------------------------------------------------------------------------------------------------- description


def _open_one(folder: Path, base: Checkpoint, said: Description, progress: Progress) -> Checkpoint:
    if not is_adapter(folder):
        return _describe(folder, base, said, progress, method="full")
    config = read_json(folder / "adapter_config.json")
    kind = "dora" if config.get("use_dora") else str(config.get("peft_type", "")).lower()
    return _describe(folder, base, said, progress, method=kind)


def _describe(
    folder: Path, base: Checkpoint | None, said: Description, progress: Progress, *, method: str
) -> Checkpoint:
    weights = list_weights(folder)
    adapter = is_adapter(folder)
    tokenizer = _tokenizer_digest(folder)
    if tokenizer is None:
        if base is None:
            raise CheckpointError(f"checkpoint {folder}: has no tokenizer files; save the tokenizer beside the weights")
        tokenizer = base.tokenizer
    contents = list(chain.from_iterable(read_contents(weights, progress).values()))
    lines = sorted(content.line for content in contents)
    parts = [*lines, _settings(folder / ("adapter_config.json" if adapter else "config.json")), tokenizer]
    generation = folder / "generation_config.json"
    parts += [_settings(generation)] if generation.is_file() else []
    parts += [base.digest] if adapter and base else []
    trainable = None
    if base is not None:
        of_base = list_weights(Path(base.path))
        trainable = (
            trainable_share(weights, of_base)
            if adapter
            else changed_share(contents, chain.from_iterable(read_contents(of_base, progress).values()))
        )
    match = _STEP.match(folder.resolve().name)
    card, declared = card_of(folder)
    steps = (said.step, int(match[1]) if match else None, trainer_step(folder) if base else None)
    return Checkpoint(
        digest="sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        name=said.name or _name_of(folder.resolve()),
        path=str(folder.resolve()),
        method=said.method or declared or method,
        tokenizer=tokenizer,
        parent=base.digest if base else None,
        base_path=base.path if adapter and base else None,
        step=next((step for step in steps if step is not None), None),
        cost=first_known(
            said.cost, card, *([read_training_cost(folder)] if base else []), Cost(trainable_share=trainable)
        ),
    )


def _name_of(folder: Path) -> str:
    if _STEP.match(folder.name):
        return folder.parent.name
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def _settings(path: Path) -> str:
    return canonical({k: v for k, v in read_json(path).items() if k not in _VOLATILE})


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
