"""A path, adapter folder or Hub id in; `Checkpoint` records out. Reads files, never loads a model.

A checkpoint's digest covers everything that can change an answer: every tensor (by content, so shards and file names do
not matter), the model and generation configuration, the tokenizer's files and the chat template. It does not cover
local paths, library versions and training logs. An adapter's digest covers its base as well.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from evalsvc.checkpoints.base_checks import advise_merging, find_named_base
from evalsvc.checkpoints.costs import (
    TRAINER_STATE,
    TRAINING_ARGUMENTS,
    compute_changed_share,
    compute_trainable_share,
    merge_costs,
    read_card,
    read_json,
    read_trainer_step,
    read_training_cost,
    read_training_seed,
    scale_cost,
)
from evalsvc.checkpoints.digests import Progress, ignore, read_contents
from evalsvc.checkpoints.names import display_name, read_step
from evalsvc.checkpoints.safetensors import read_header
from evalsvc.checkpoints.weight_files import (
    describe_missing,
    find_named_adapter,
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
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(?:@[\w./-]+)?$|^[\w.-]+@[\w./-]+$")
_WRITING_SECONDS = 600
"""An incomplete step that was modified within this time, in seconds, is assumed to be still being written."""

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Description:
    """What the user declares about a checkpoint; None takes it from the files."""

    method: str | None = None
    name: str | None = None
    step: int | None = None
    seed: int | None = None
    cost: Cost = Cost()


def _discard(text: str) -> None:
    """Show no notes."""


def open_base(source: str, progress: Progress = ignore) -> Checkpoint:
    """Return the base checkpoint at a path or Hub id.

    Raises:
        CheckpointError: It does not exist, is an adapter, or cannot be loaded safely.
    """
    folder = locate(source)
    if is_adapter(folder):
        raise CheckpointError(
            f"base {source}: is an adapter; give the full model that it was trained on, or, for an adapter that was "
            f"trained on it: {advise_merging(source)}"
        )
    return _describe(folder, None, Description(), progress, method="base")


def open_checkpoints(
    source: str,
    base: str | None,
    description: Description,
    *,
    progress: Progress = ignore,
    note: Note = _discard,
) -> tuple[Checkpoint, list[Checkpoint]]:
    """Return the base, and the checkpoint at `source` or every step of a training run's output folder, by step.

    Args:
        source: Folder or Hub id.
        base: Folder or Hub id of the base. None takes the base that an adapter's configuration names; a full model
            without a base is itself a base, and the list of checkpoints is then empty.
        description: Declared method, name, step, seed and cost.
        progress: Called while files are read.
        note: Called with a message for each step that is left out because it is still being written.

    Raises:
        CheckpointError: The source is not loadable, or the base cannot be resolved.
    """
    folder = locate(source)
    steps = _steps(folder, note)
    root = open_base(base, progress) if base else _own_base(steps[0][1] if steps else folder, progress)
    if root is None:
        if steps:
            raise CheckpointError(
                f"{source}: holds {len(steps)} full checkpoints; give the model that they were trained from with --base"
            )
        return _describe(folder, None, description, progress, method="base"), []
    if not steps:
        only = _open_step(folder, root, description, progress)
        return root, [only] if only.digest != root.digest else []
    if description.step is not None:
        raise CheckpointError(
            f"--step {description.step}: {source} holds {len(steps)} steps; give the folder of one step, or omit --step"
        )
    return root, _open_run(folder, root, steps, description, progress)


def _open_run(
    folder: Path, root: Checkpoint, steps: list[tuple[int, Path]], description: Description, progress: Progress
) -> list[Checkpoint]:
    """Return the checkpoints of a training run; its total cost is divided in proportion to their steps."""
    name = description.name or folder.resolve().name
    card = read_card(folder)
    seed = card.seed if description.seed is None else description.seed
    description = replace(description, name=name, method=description.method or card.method, seed=seed)
    whole, last = merge_costs(description.cost, card.cost), steps[-1][0] or 1
    checkpoints = []
    for step, path in steps:
        try:
            checkpoint = _open_step(
                path, root, replace(description, step=step, cost=scale_cost(whole, step / last)), progress
            )
        except (CheckpointError, FileNotFoundError):
            if path.is_dir():
                raise
            continue  # the trainer keeps only its latest steps, and has just removed this one
        checkpoints.append(replace(checkpoint, trajectory=name))
    if find_weights(folder):  # a trainer saves the final model beside its checkpoints; it may equal the last of them
        final = replace(_open_step(folder, root, replace(description, cost=whole), progress), trajectory=name)
        if final.digest not in {earlier.digest for earlier in checkpoints}:
            checkpoints.append(final)
    return checkpoints


def _own_base(folder: Path, progress: Progress) -> Checkpoint | None:
    """Return the base that an adapter's configuration names; None for full weights.

    Raises:
        CheckpointError: The configuration names none, or it cannot be resolved.
    """
    if not is_adapter(folder):
        return None
    config = read_json(folder / "adapter_config.json")
    named = str(config.get("base_model_name_or_path") or "")
    if not named:
        raise CheckpointError(f"adapter {folder}: names no base; give the model that it was trained on with --base")
    revision = config.get("revision")
    place = find_named_base(folder, named, revision)
    if place is not None and is_adapter(place):
        raise CheckpointError(f"adapter {folder}: was trained on the adapter {named!r}: {advise_merging(named)}")
    try:
        return open_base(f"{named}@{revision}" if revision and not Path(named).is_dir() else named, progress)
    except CheckpointError as error:
        raise CheckpointError(
            f"adapter {folder}: its base {named!r} cannot be found; give its path with --base ({error})"
        ) from error


def locate(source: str) -> Path:
    """Return the folder of a path or Hub id; for Hub ids the local cache is tried first.

    Raises:
        CheckpointError: It is neither a folder nor a Hub id that can be downloaded.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"checkpoint {source}: is a file, must be a folder with config.json and weights")
    if path.parent != Path() and path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir() if entry.is_dir()])
        hint = f"; did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else ""
        raise CheckpointError(f"checkpoint {source}: no such folder{hint}")
    if not _HUB_ID.match(source) or source.startswith((".", "/")):
        raise CheckpointError(f"checkpoint {source}: neither a folder nor a Hub id (organisation/name[@revision])")
    return _from_hub(source)


def _from_hub(source: str) -> Path:
    """Return a Hub id's folder in the local cache; if it is incomplete, download it, unless offline.

    Raises:
        CheckpointError: It cannot be downloaded; the message says how to fill the cache.
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
        f"checkpoint {source}: not found locally or on the Hub ({reason}); "
        f"fill the cache on a machine with network: hf download {repository}{flag}"
    )


# ------------------------------------------------------------------------------------------------------------- files


def _steps(folder: Path, note: Note) -> list[tuple[int, Path]]:
    """Return (step, folder) of a run's checkpoints, by step, without those that are incomplete.

    Raises:
        CheckpointError: There are steps, and none of them can be loaded.
    """
    steps, left_out = [], []
    for path in folder.iterdir():
        step = read_step(path)
        if step is None or not path.is_dir():
            continue
        if _is_being_written(path):
            note(f"{path.name}: skipped, because it is still being written; submit again when it is complete")
        elif find_weights(path) or (find_pickled_weights(path) and (path / "config.json").is_file()):
            steps.append((step, path))
        else:
            note(f"{path.name}: left out of the trajectory: {describe_missing(path)}")
            left_out.append(path)
    if left_out and not steps and not find_weights(folder):
        first = min(left_out, key=lambda path: read_step(path) or 0)
        raise CheckpointError(f"{folder}: no step can be loaded; {first.name}: {describe_missing(first)}")
    return sorted(steps)


def _is_being_written(folder: Path) -> bool:
    """Whether a step was modified recently and is incomplete: transformers' Trainer writes its state last."""
    try:
        touched = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        if time.time() - touched > _WRITING_SECONDS:
            return False
        by_trainer = (folder / TRAINING_ARGUMENTS).is_file() or any(folder.parent.glob(f"*/{TRAINER_STATE}"))
        if by_trainer:
            return not (folder / TRAINER_STATE).is_file()
        named = find_named_adapter(folder)
        for file in find_weights(named or folder):
            read_header(file)
        return describe_missing(folder) is not None and not (named or find_pickled_weights(folder))
    except (OSError, CheckpointError):  # it was removed, or ends within its header
        return True


# ------------------------------------------------------------------------------------------------------- description


def _open_step(folder: Path, base: Checkpoint, description: Description, progress: Progress) -> Checkpoint:
    if not is_adapter(folder):
        return _describe(folder, base, description, progress, method="full")
    config = read_json(folder / "adapter_config.json")
    kind = "dora" if config.get("use_dora") else str(config.get("peft_type", "")).lower()
    kind = "context_aware_prompt_tuning" if kind == "cpt" else kind  # not continued pre-training
    return _describe(folder, base, description, progress, method=kind)


def _describe(
    folder: Path, base: Checkpoint | None, description: Description, progress: Progress, *, method: str
) -> Checkpoint:
    weights = list_weights(folder)
    adapter = is_adapter(folder)
    tokenizer, tokenizer_path = _tokenizer_digest(folder), None
    if tokenizer is None:
        if base is None:
            raise CheckpointError(f"checkpoint {folder}: has no tokenizer files; save the tokenizer in the same folder")
        tokenizer, tokenizer_path = base.tokenizer, base.path
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
            compute_trainable_share(weights, of_base)
            if adapter
            else compute_changed_share(contents, chain.from_iterable(read_contents(of_base, progress).values()))
        )
    card = read_card(folder)
    seeds = (description.seed, card.seed, read_training_seed(folder) if base else None)
    steps = (description.step, read_step(folder.resolve()), read_trainer_step(folder) if base else None)
    return Checkpoint(
        digest="sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        name=description.name or display_name(folder.resolve()),
        path=str(folder.resolve()),
        method=description.method or card.method or method,
        tokenizer=tokenizer,
        parent=base.digest if base else None,
        base_path=base.path if adapter and base else None,
        tokenizer_path=tokenizer_path,
        step=next((step for step in steps if step is not None), None),
        seed=next((seed for seed in seeds if seed is not None), None),
        cost=merge_costs(
            description.cost,
            card.cost,
            *([read_training_cost(folder)] if base else []),
            Cost(trainable_share=trainable),
        ),
    )


def _settings(path: Path) -> str:
    return canonical({k: v for k, v in read_json(path).items() if k not in _VOLATILE})


def _tokenizer_digest(folder: Path) -> str | None:
    """Return the digest of a folder's tokenizer; None if it has none."""
    state, has_tokenizer = hashlib.sha256(), False
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            has_tokenizer = has_tokenizer or name != "special_tokens_map.json"
            # The whitespace of JSON differs between library versions.
            data = _settings(path).encode() if path.suffix == ".json" else path.read_bytes()
            state.update(f"{name}:{len(data)}:".encode() + data)
    return state.hexdigest()[:32] if has_tokenizer else None
