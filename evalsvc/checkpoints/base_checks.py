"""Whether an adapter was trained on the base that it is attached to. Reads files, imports no model code.

PEFT attaches an adapter to any base with modules of the same names and sizes. If that is not the one it was trained on,
the scores are those of a model that nobody trained.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from evalsvc.checkpoints.costs import read_json
from evalsvc.checkpoints.digests import read_contents
from evalsvc.checkpoints.names import read_hub_id
from evalsvc.checkpoints.weight_files import is_adapter, list_weights
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Checkpoint, Finding

CONVERT = "convert it to plain LoRA (peft: save_pretrained with path_initial_model_for_weight_conversion)"
_CHANGE_THE_BASE = ("lora_ga", "corda")
"""Initialisations that change the base's weights by data that is not in the adapter, so that no loader repeats it."""


def examine_base(checkpoint: Checkpoint, base: Checkpoint, accepted: bool) -> Iterator[Finding]:
    """Yield a finding if an adapter was trained on other weights than its base's.

    Args:
        accepted: Whether the user says that the base is the right one: the finding is then only a warning.

    Raises:
        CheckpointError: A file cannot be read.
    """
    for fact, advice in _differences(Path(checkpoint.path), base):
        if advice is None:
            if not accepted:
                yield Finding("warning", "base-name", checkpoint.label, fact)
            continue
        severity: Any = "warning" if accepted else "error"
        yield Finding(severity, "other-base", checkpoint.label, fact if accepted else f"{fact}; {advice}")


def _differences(folder: Path, base: Checkpoint) -> Iterator[tuple[str, str | None]]:
    """Yield what shows that an adapter was trained on other weights than its base's, and what to do.

    There is nothing to do (None) where it may well be the same base, and nothing on this machine tells.
    """
    config = read_json(folder / "adapter_config.json")
    start = config.get("init_lora_weights")
    if str(start).lower() in _CHANGE_THE_BASE:
        fact = f"its initialisation {start} changed the base's weights before training, and loading does not repeat it"
        kept = "set init_lora_weights to true in its configuration and give --base CHANGED --base-anyway"
        yield fact, f"{CONVERT}; or, if the changed base was saved, {kept}"
        return
    named = str(config.get("base_model_name_or_path") or "")
    if not named:
        return
    place = find_named_base(folder, named, config.get("revision"))
    if place is not None and is_adapter(place):
        yield f"it was trained on the adapter {named!r}, not on {base.label}", advise_merging(named)
    elif place is not None and (same := _has_same_weights(place, Path(base.path))) is not None:
        if not same:
            fact = f"it was trained on {place}, whose weights differ from those of {base.path}"
            yield fact, f"give --base {place}, or add --base-anyway if it belongs on this base"
    elif (same := _match_names(named, Path(base.path))) is None:
        fact = f"its configuration names the base {named!r}, whose weights are not on this machine"
        yield f"{fact}: {base.path} is taken for it, as it has the same last part", None
    elif not same:
        fact = f"its configuration names the base {named!r}, not {base.path}"
        advice = "(if that is an adapter: the model into which it was merged)"
        yield (
            fact,
            f"give that model with --base {advice}, or add --base-anyway if {base.path} is the same model",
        )


def find_named_base(folder: Path, named: str, revision: str | None) -> Path | None:
    """Return the folder that an adapter names as its base: as named, beside the adapter, or in the Hub's cache.

    None if there is none that can be read; the name may be anything, such as a path on the machine that trained it.
    """
    for parent in (Path(), folder.resolve().parent):
        with suppress(OSError, RuntimeError, ValueError):
            place = parent / Path(named).expanduser()
            if place.is_dir() and os.access(place, os.R_OK | os.X_OK):
                return place
    from huggingface_hub import try_to_load_from_cache

    for name in ("config.json", "adapter_config.json"):
        with suppress(OSError, ValueError):  # the name is no Hub id
            file = try_to_load_from_cache(read_hub_id(Path(named)) or named, name, revision=revision)
            if isinstance(file, str):
                return Path(file).parent
    return None


def advise_merging(adapter: str) -> str:
    """Return what to do with an adapter that another one was trained on."""
    return (
        f"merge {adapter!r} into its own base (peft: merge_and_unload, then save_pretrained of model and tokenizer), "
        "and submit with --base MERGED --base-anyway"
    )


def _match_names(named: str, folder: Path) -> bool | None:
    """Whether a folder has the name that an adapter gives its base; None if a Hub id and a path end alike.

    Names are compared whole: two paths that both end in `final`, or two Hub ids in `llama`, name different models. A
    path may be a copy of a Hub id with the same last part.
    """
    hub_id, own_hub_id = read_hub_id(Path(named)), read_hub_id(folder)
    name, own = Path((hub_id or named).lower()), Path((own_hub_id or str(folder)).lower())
    if name == own or (len(name.parts) > 1 and own.parts[-len(name.parts) :] == name.parts):
        return True
    may_be_hub_id = not name.is_absolute() and len(name.parts) <= 2
    return None if may_be_hub_id != bool(own_hub_id) and name.name == own.name else False


def _has_same_weights(first: Path, second: Path) -> bool | None:
    """Whether two folders have equal tensors; None if the first has none that can be read."""
    if first.resolve() == second.resolve():
        return True
    lines = []
    for folder in (first, second):
        try:
            files = list_weights(folder)
        except CheckpointError:
            return None
        lines.append(sorted(content.line for contents in read_contents(files).values() for content in contents))
    return lines[0] == lines[1]


def read_invocation(checkpoint: Checkpoint) -> list[int]:
    """Return the tokens that an activated LoRA waits for; empty for every other checkpoint."""
    if not checkpoint.is_adapter:
        return []
    return list(read_json(Path(checkpoint.path) / "adapter_config.json").get("alora_invocation_tokens") or [])
