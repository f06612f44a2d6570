"""Compatibility of tensors with their architecture, of an adapter with its base, of a tokenizer with its embeddings.

Models are built on torch's meta device, where tensors have shapes but no memory: this module reads no weights.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from evalsvc.checkpoints.base_checks import CONVERT
from evalsvc.checkpoints.costs import read_json
from evalsvc.checkpoints.file_checks import MERGE_RESIZED, explain_prefix
from evalsvc.engine.adapters import describe_unmatched, match_tensors
from evalsvc.engine.encoding import first_line, load_tokenizer
from evalsvc.engine.resident import silence
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Checkpoint, Finding

Shapes = Mapping[str, tuple[int, ...]]
_RANDOM_START = re.compile(r"pissa_niter_\d+$")
"""Initialisations of LoRA that take a randomised decomposition off the base's weights."""
_LEFT_FROM_AN_ADAPTER = re.compile(r"\.(?:lora_|ia3_|base_layer|modules_to_save)")


def examine_fit(checkpoint: Checkpoint, base: Checkpoint | None, tensors: Shapes) -> list[Finding]:
    """Return findings about what is incompatible, without loading weights.

    Args:
        base: What the checkpoint was adapted from; None for a base.
        tensors: Shapes of the tensors in the checkpoint's files, by name.
    """
    silence()
    try:
        config = _config(checkpoint.resident)
    except CheckpointError as error:
        return [Finding("error", "architecture", checkpoint.label, str(error))]
    if checkpoint.is_adapter:
        findings = list(_adapter(checkpoint, config, tensors))
    else:
        findings = [*_full(checkpoint), *_family(checkpoint, base, config)]
    return (
        findings
        if any(finding.severity == "error" for finding in findings)
        else [*findings, *_tokens(checkpoint, base, config)]
    )


def _config(folder: str) -> PretrainedConfig:
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises anything on a damaged file
        reason = first_line(error)
        if "trust_remote_code" in str(error):
            known = f"{len(CONFIG_MAPPING)} architectures of transformers"
            reason = f"its architecture needs custom code, which is never run, and is not among the {known}"
        raise CheckpointError(f"its configuration cannot be loaded: {reason}") from error
    return config


def _empty_model(config: PretrainedConfig) -> Any:
    loader: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return loader.from_config(config, trust_remote_code=False)


# ------------------------------------------------------------------------------------------------------- full weights


def _full(checkpoint: Checkpoint) -> Iterator[Finding]:
    loader: Any = AutoModelForCausalLM
    try:
        _, info = loader.from_pretrained(
            checkpoint.path,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except Exception as error:  # see _config
        text = f"cannot be loaded as a causal language model: {first_line(error)}"
        yield Finding("error", "architecture", checkpoint.label, text)
        return
    if wrong := sorted(info["mismatched_keys"]):
        name, here, configured = wrong[0]
        text = (
            f"the shapes of {len(wrong)} tensors differ from its configuration (first: {name} is {_by(here)}, must "
            f"be {_by(configured)}); they would be replaced by random numbers"
        )
        yield Finding("error", "shapes", checkpoint.label, text)
    if (missing := sorted(info["missing_keys"])) and (cause := explain_prefix(info["unexpected_keys"])):
        yield Finding("error", "missing-tensors", checkpoint.label, f"{cause} (first: {min(info['unexpected_keys'])})")
        return
    if missing:
        text = f"{len(missing)} tensors are missing (first: {missing[0]}); they would be replaced by random numbers"
        yield Finding("error", "missing-tensors", checkpoint.label, text)
    if unexpected := sorted(info["unexpected_keys"]):
        rest = [name for name in unexpected if _LEFT_FROM_AN_ADAPTER.search(name)]
        first = f"{len(unexpected)} tensors belong to no module and would be ignored (first: {(rest or unexpected)[0]})"
        text = f"{first}; merge the adapter before saving" if rest else first
        yield Finding("error" if rest else "warning", "unexpected-tensors", checkpoint.label, text)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _sizes(config: PretrainedConfig) -> dict[str, Any]:
    text = config.get_text_config()
    names = {"architecture": "model_type", "hidden size": "hidden_size", "depth": "num_hidden_layers"}
    return {noun: getattr(text, name, None) for noun, name in names.items()}


def _family(checkpoint: Checkpoint, base: Checkpoint | None, config: PretrainedConfig) -> Iterator[Finding]:
    if base is None:
        return
    base_config = _config(base.path)
    sizes, base_sizes = _sizes(config), _sizes(base_config)
    for noun in sizes:
        if sizes[noun] != base_sizes[noun]:
            text = f"its {noun} is {sizes[noun]}, the base's {base_sizes[noun]}: it was not adapted from this base"
            yield Finding("warning", "base-shape", checkpoint.label, text)
    rows, before = config.get_text_config().vocab_size, base_config.get_text_config().vocab_size
    if rows != before:
        text = f"its vocabulary has {rows} rows, the base's {before}: compare perplexities per byte, not per token"
        yield Finding("note", "vocabulary", checkpoint.label, text)


# ----------------------------------------------------------------------------------------------------------- adapters


def _adapter(checkpoint: Checkpoint, config: PretrainedConfig, tensors: Shapes) -> Iterator[Finding]:
    start = read_json(Path(checkpoint.path) / "adapter_config.json").get("init_lora_weights")
    if _RANDOM_START.match(str(start)):
        text = (
            f"its initialisation {start} is random and is repeated at every load, so that every load is another model; "
            f"{CONVERT}"
        )
        yield Finding("error", "adapter-initialisation", checkpoint.label, text)
        return
    try:
        adapted = attach_empty(checkpoint.path, config)
    except Exception as error:  # peft raises ValueError, TypeError, KeyError, ... on what it cannot inject
        if "meta" in str(error).lower():
            return  # a few types need the base's weights when they are created: only scoring can check them
        text = f"cannot be attached to {checkpoint.base_path}: {first_line(error)}"
        yield Finding("error", "adapter-keys", checkpoint.label, text)
        return
    for check, text in _mismatches(adapted, config, tensors):
        yield Finding("error", check, checkpoint.label, text)


def _mismatches(adapted: Any, config: PretrainedConfig, tensors: Shapes) -> Iterator[tuple[str, str]]:
    """Yield (name of the check, text) of what does not fit between an adapter's tensors and the base's modules."""
    # `checkpoints.file_checks` compares embeddings in an adapter's files with the base's.
    own = {name for name, shape in _shapes(adapted.state_dict()).items() if tensors.get(name, shape) != shape}
    empty = {name: torch.empty(shape, device="meta") for name, shape in tensors.items() if name not in own}
    try:
        unexpected, missing = match_tensors(adapted, empty)
    except KeyError as error:  # a module that is saved as a whole
        unexpected, missing = [], [str(error.args[0])]
    except Exception as error:  # of another shape, or not convertible
        yield _describe_shape(adapted, config, tensors) or ("adapter-keys", f"cannot be loaded: {first_line(error)}")
        return
    for text in describe_unmatched(unexpected, missing, len(tensors), config):
        yield "adapter-keys", text


def attach_empty(folder: str, config: PretrainedConfig) -> Any:
    """Return a base of this architecture with an adapter's modules, without memory; may raise any exception."""
    from peft import PeftConfig, get_peft_model

    adapter = PeftConfig.from_pretrained(folder)
    for name in ("init_lora_weights", "init_weights"):
        if isinstance(getattr(adapter, name, None), str):
            setattr(adapter, name, True)  # PiSSA and similar methods decompose weights, which are not loaded
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        return get_peft_model(_empty_model(config), adapter)


def _describe_shape(adapted: Any, config: PretrainedConfig, tensors: Shapes) -> tuple[str, str] | None:
    """Return (name of the check, text) of the first tensor of another shape than its module's; None if all fit."""
    from peft import get_peft_model_state_dict

    rows, sizes = config.get_text_config().vocab_size, _sizes(config)
    expected = _shapes(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    for name in sorted(tensors.keys() & expected.keys()):
        here, needed = tensors[name], expected[name]
        if here == needed:
            continue
        text = f"{name} is {_by(here)}, this base needs {_by(needed)}"
        pairs = list(zip(here, needed, strict=False))
        if len(here) == len(needed) and all(a == b or b == rows for a, b in pairs):
            other = next(a for a, b in pairs if a != b)
            return "vocabulary", f"{text}: it was trained with a vocabulary of {other} rows; {MERGE_RESIZED}"
        size = f"(this one: hidden size {sizes['hidden size']}, depth {sizes['depth']})"
        return "adapter-shapes", f"{text}: it was trained on a base of another size {size}"
    return None


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


# --------------------------------------------------------------------------------------------------------- tokenizers


def _tokens(checkpoint: Checkpoint, base: Checkpoint | None, config: PretrainedConfig) -> Iterator[Finding]:
    try:
        tokenizer: Any = load_tokenizer(checkpoint)
    except CheckpointError as error:
        yield Finding("error", "tokenizer", checkpoint.label, str(error))
        return
    ids = tokenizer("a b")["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id and not config.is_encoder_decoder:
        text = (
            "its tokenizer appends EOS to every text, so that a prompt ends before its answer begins, here and in "
            "lm-eval; set add_eos_token to false in tokenizer_config.json (or remove it from tokenizer.json)"
        )
        yield Finding("warning", "appended-eos", checkpoint.label, text)
    rows, largest = config.get_text_config().vocab_size, max(tokenizer.get_vocab().values(), default=-1)
    beyond = {token for token, number in tokenizer.get_vocab().items() if number >= rows}
    if beyond and beyond <= tokenizer.get_added_vocab().keys():
        text = (
            f"its embeddings lack {len(beyond)} tokens that were added to its tokenizer (first: {min(beyond)!r}): "
            "requests that contain them cannot be scored, others are not affected"
        )
        yield Finding("warning", "vocabulary", checkpoint.label, text)
    elif beyond:
        text = (
            f"its tokenizer has ids up to {largest}, its embeddings only {rows} rows: the tokenizer belongs to "
            "another model"
        )
        yield Finding("error", "vocabulary", checkpoint.label, text)
    elif largest + 1 < rows and base is None:
        text = f"its embeddings have {rows} rows for {largest + 1} tokens (padding); they are not resized"
        yield Finding("note", "vocabulary", checkpoint.label, text)
    if base is not None and base.tokenizer != checkpoint.tokenizer:
        yield from _against_base(checkpoint, tokenizer, load_tokenizer(base))


def _against_base(checkpoint: Checkpoint, tokenizer: Any, base_tokenizer: Any) -> Iterator[Finding]:
    tokens, base_tokens = tokenizer.get_vocab(), base_tokenizer.get_vocab()
    if tokens != base_tokens:
        added, gone = sorted(tokens.keys() - base_tokens.keys()), sorted(base_tokens.keys() - tokens.keys())
        moved = [token for token in tokens.keys() & base_tokens.keys() if tokens[token] != base_tokens[token]]
        parts = [
            f"{len(group)} tokens {change} (first: {min(group)!r})"
            for group, change in ((added, "added"), (gone, "removed"), (moved, "with other ids"))
            if group
        ]
        text = f"its tokenizer differs from the base's: {', '.join(parts)}; per-token metrics are not comparable"
        yield Finding("warning", "tokenizer", checkpoint.label, text)
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        before, after = getattr(base_tokenizer, name, None), getattr(tokenizer, name, None)
        if before != after:
            text = f"its {name} is {after!r}, the base's {before!r}"
            severity: Any = "warning" if name in {"bos_token", "eos_token"} else "note"
            yield Finding(severity, "special-tokens", checkpoint.label, text)
    if tokenizer.chat_template != base_tokenizer.chat_template:
        if not base_tokenizer.chat_template:
            difference, choices = "has a chat template, but the base has none", "adapted or plain"
        elif not tokenizer.chat_template:
            difference, choices = "has no chat template, but the base has one", "base or plain"
        else:
            difference, choices = "its chat template differs from the base's", "base, adapted or plain"
        text = f"{difference}; choose how the prompts of both arms are rendered: --rendering {choices}"
        yield Finding("warning", "chat-template", checkpoint.label, text)
