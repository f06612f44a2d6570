"""Findings from a checkpoint's files, before any model is built. Reads files, imports no model code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalsvc.checkpoints.base_checks import examine_base
from evalsvc.checkpoints.costs import read_json
from evalsvc.checkpoints.digests import Content, read_contents
from evalsvc.checkpoints.weight_files import find_pickled_weights, list_weights
from evalsvc.records.arms import Checkpoint, Finding

_LORA = re.compile(r"\.lora_(?:embedding_)?([AB])(?:\.|$)")
_OTHER_TASKS = re.compile(r"For(?:Sequence|Token|Image|Audio)Classification|ForQuestionAnswering|ForMultipleChoice")
_HEAD = re.compile(r"(?:^|\.)(lm_head|embed_out|output)\.")
_ON_EMBEDDINGS = re.compile(r"\.(embed_tokens|wte|word_embeddings|embed_in|lm_head|embed_out)\.(lora_|weight$)")
_PLAIN = ("F64", "F32", "F16", "BF16")
"""Number formats of weights that are not quantised."""
EMBEDDINGS = re.compile(r"(?:^|\.)(embed_tokens|wte|word_embeddings|embed_in|lm_head|embed_out|output)\.weight$")
"""Names of tensors with one row per token."""


MERGE_RESIZED = "merge it into the base that it was trained on, and submit the merged model"
UNLOADABLE = {"not-gathered", "left-over-quantisation"}
"""Checks whose findings explain why loaders fail, so that nothing more is asked of them."""
_PREFIXES = {
    "_orig_mod.": "saved from a model compiled by torch.compile",
    "_fsdp_wrapped_module.": "saved from a model wrapped for FSDP",
    "_forward_module.": "saved from a model wrapped by Lightning",
    "base_model.model.base_model.model.": "saved from a PEFT model inside another PEFT model",
    "module.": "saved from a model wrapped for parallel training",
}
"""Beginnings of tensors' names that wrappers add -> where they come from."""


def explain_prefix(names: Iterable[str]) -> str | None:
    """Return why tensors' names fit no module, if all of them have the prefix of a wrapper; else None."""
    shared = list(names)
    for prefix, origin in _PREFIXES.items():
        whole = re.compile(rf"(?:^|^base_model\.model\.|\.){re.escape(prefix)}")
        if shared and all(whole.search(name) for name in shared):
            extra = prefix.removesuffix("base_model.model.")
            return f"it was {origin}: save the unwrapped model, or remove {extra!r} from the names in the file"
    return None


def examine_files(checkpoint: Checkpoint, base: Checkpoint | None, *, base_anyway: bool = False) -> list[Finding]:
    """Return the problems of a checkpoint that its files show.

    Args:
        base: What it was adapted from; None for a base.
        base_anyway: Whether an adapter may be attached to another base than the one that it names.

    Raises:
        CheckpointError: A file cannot be read, or is not a complete safetensors file.
    """
    folder = Path(checkpoint.path)
    contents = [content for contents in read_contents(list_weights(folder)).values() for content in contents]
    findings = [*_numbers(checkpoint, contents), *_leftovers(checkpoint, folder), *_code(checkpoint, folder)]
    if checkpoint.is_adapter and base is not None:
        return [
            *findings,
            *examine_base(checkpoint, base, accepted=base_anyway),
            *_adapter(checkpoint, base, folder, contents),
        ]
    config = read_json(folder / "config.json")
    return [
        *findings,
        *_other_task(checkpoint, config),
        *_quantisation(checkpoint, config, contents),
        *_find_untied_heads(checkpoint, config, contents),
        *_no_tokenizer(checkpoint),
    ]


def _numbers(checkpoint: Checkpoint, contents: Sequence[Content]) -> Iterator[Finding]:
    if empty := [content.name for content in contents if 0 in content.shape]:
        text = (
            f"{len(empty)} of {len(contents)} tensors are empty (first: {empty[0]}): the trainer saved them without "
            "gathering their parts; save again, with DeepSpeed ZeRO-3 under stage3_gather_16bit_weights_on_model_save"
        )
        yield Finding("error", "not-gathered", checkpoint.label, text)
    if bad := [content.name for content in contents if not content.finite]:
        text = f"{len(bad)} of {len(contents)} tensors hold NaN or infinity (first: {bad[0]}); the training diverged"
        yield Finding("error", "finite", checkpoint.label, text)


def _leftovers(checkpoint: Checkpoint, folder: Path) -> Iterator[Finding]:
    if pickled := find_pickled_weights(folder):
        text = f"{pickled[0]} is pickled and is not read; the safetensors files in the same folder are scored"
        yield Finding("note", "pickled", checkpoint.label, text)


def _code(checkpoint: Checkpoint, folder: Path) -> Iterator[Finding]:
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and (classes := read_json(folder / name).get("auto_map")):
            text = f"{name} refers to custom code ({next(iter(dict(classes)), '')}), which is never run"
            yield Finding("warning", "custom-code", checkpoint.label, text)


def _other_task(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Iterator[Finding]:
    architectures = config.get("architectures") or []
    if wrong := [name for name in architectures if _OTHER_TASKS.search(str(name))]:
        text = f"is a {wrong[0]}, must be a causal language model; its head was trained for another task"
        yield Finding("error", "task-type", checkpoint.label, text)


def _quantisation(checkpoint: Checkpoint, config: Mapping[str, Any], contents: Sequence[Content]) -> Iterator[Finding]:
    settings = config.get("quantization_config")
    if settings and all(content.dtype in _PLAIN for content in contents):
        how = dict(settings).get("quant_method", "unknown")
        text = (
            f"its config.json has a quantization_config ({how}), but its weights are not quantised, as after merging "
            "an adapter: delete that key, or loaders quantise them"
        )
        yield Finding("error", "left-over-quantisation", checkpoint.label, text)


def _ties(config: Mapping[str, Any]) -> bool:
    """Whether a configuration says that the output head is the embeddings."""
    return bool(config.get("tie_word_embeddings") or dict(config.get("text_config") or {}).get("tie_word_embeddings"))


def _find_untied_heads(
    checkpoint: Checkpoint, config: Mapping[str, Any], contents: Sequence[Content]
) -> Iterator[Finding]:
    if not _ties(config):
        return
    rows = {content.name: content for content in contents if EMBEDDINGS.search(content.name)}
    heads = [name for name in rows if _HEAD.search(name)]
    embeddings = {content.sha256 for name, content in rows.items() if name not in heads}
    if embeddings and (own := [name for name in heads if rows[name].sha256 not in embeddings]):
        text = (
            f"its configuration ties the output head to the embeddings, but its file has another {own[0]}: it is "
            "scored with that head, as transformers loads it; lm-eval ties them again, and has other numbers"
        )
        yield Finding("warning", "tied", checkpoint.label, text)


def _no_tokenizer(checkpoint: Checkpoint) -> Iterator[Finding]:
    if checkpoint.tokenizer_path is not None:
        text = f"has no tokenizer files; its base's tokenizer is used ({checkpoint.tokenizer_path})"
        yield Finding("warning", "no-tokenizer", checkpoint.label, text)


# ----------------------------------------------------------------------------------------------------------- adapters


def _adapter(checkpoint: Checkpoint, base: Checkpoint, folder: Path, contents: Sequence[Content]) -> Iterator[Finding]:
    config = read_json(folder / "adapter_config.json")
    task = config.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        text = f"was trained for task {task}, must be CAUSAL_LM; its head would be ignored"
        yield Finding("error", "task-type", checkpoint.label, text)
    if is_zero(contents):
        text = "its change is exactly zero (every B or every A is zero): it was saved before it was trained"
        yield Finding("error", "no-effect", checkpoint.label, text)
    yield from _own_embeddings(checkpoint, base, config, contents)
    saved = {name.rsplit(".", 1)[-1] for name in config.get("modules_to_save") or []}
    matches = [match for content in contents if (match := _ON_EMBEDDINGS.search(content.name))]
    trained = sorted({match[1] for match in matches if match[2] == "lora_" or match[1] in saved})
    if trained and not config.get("ensure_weight_tying") and _ties(read_json(Path(base.path) / "config.json")):
        text = (
            f"it trains {' and '.join(trained)}, but the base's output head is its embeddings: merged into the base or "
            "saved with it, it changes both, and is another model than the adapter that is scored"
        )
        yield Finding("warning", "tied", checkpoint.label, text)


def is_zero(contents: Sequence[Content]) -> bool:
    """Whether a LoRA adapter's change is exactly zero: it has only pairs of factors, and one of each pair is zero."""
    factors: dict[str, list[bool]] = {}
    for content in contents:
        match = _LORA.search(content.name)
        if match is None:
            return False
        factors.setdefault(content.name[: match.start()], []).append(content.zero and 0 not in content.shape)
    return bool(factors) and all(any(pair) for pair in factors.values())


def _own_embeddings(
    checkpoint: Checkpoint, base: Checkpoint, config: Mapping[str, Any], contents: Sequence[Content]
) -> Iterator[Finding]:
    """Compare embeddings that an adapter's files contain, but that it did not train, with the base's.

    Attaching overwrites the base's embeddings. Equal ones are harmless; others show that the adapter was trained on
    another base.
    """
    carried = [content for content in contents if EMBEDDINGS.search(content.name)]
    if not carried:
        return
    base_embeddings = {
        content.name: content
        for contents_of_file in read_contents(list_weights(Path(base.path))).values()
        for content in contents_of_file
        if EMBEDDINGS.search(content.name)
    }
    tied = next(iter(base_embeddings.values()), None) if len(base_embeddings) == 1 else None
    trained = list(config.get("modules_to_save") or [])
    if tied is not None and trained and config.get("ensure_weight_tying"):
        return  # PEFT trains what is tied to a trained module as well
    for content in carried:
        other = base_embeddings.get(content.name.removeprefix("base_model.model.")) or tied
        if other is None or any(f".{name}.weight" in content.name for name in trained):
            continue
        if content.shape != other.shape:
            text = (
                f"its {content.name} has {content.shape[0]} rows, the base's {other.shape[0]}: it was trained with "
                f"another vocabulary; {MERGE_RESIZED}"
            )
            yield Finding("error", "vocabulary", checkpoint.label, text)
        elif content.dtype == other.dtype and content.sha256 != other.sha256:
            text = f"its embeddings ({content.name}) differ from the base's: it was trained on another base"
            yield Finding("error", "embeddings", checkpoint.label, text)
