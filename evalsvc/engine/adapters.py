"""An adapter's tensors and its base's modules, matched by PEFT's own loader: for checks, and for scoring.

PEFT renames and converts tensors while it loads them (experts of older versions of transformers, names with the
adapter's name), and says nothing of tensors that then match no module. So its result counts, not the names in the file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import PretrainedConfig

from evalsvc.checkpoints.file_checks import explain_prefix

if TYPE_CHECKING:
    from peft import PeftModel


_LAYER = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")


def match_tensors(adapted: PeftModel, tensors: Mapping[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """Load an adapter's tensors into its modules; return the names that match no module, and those that got no tensor.

    Args:
        adapted: The base with the adapter's modules, named "default".

    Raises:
        Exception: A tensor has another shape than its module's, or cannot be converted.
    """
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING  # takes seconds
    from peft.utils import set_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = set_peft_model_state_dict(adapted, dict(tensors))
    config = adapted.peft_config["default"]
    if config.is_prompt_learning:  # loaded strictly, beside the state dict
        return [], []
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(config.peft_type, "")
    missing = [
        name
        for name in result.missing_keys
        if prefix in name and "default" in name and not any(shared in name for shared in _SHARED)
    ]
    return sorted(result.unexpected_keys), sorted(missing)


_SHARED = ("vblora_vector_bank", ".tinylora_v.", ".unilora_theta_d.")
"""Parts of names of parameters that all layers share: they are in the file once."""


def describe_unmatched(
    unexpected: Sequence[str], missing: Sequence[str], count: int, config: PretrainedConfig
) -> Iterator[str]:
    """Yield what does not fit between an adapter's file and its base's modules, as sentences without a subject.

    Args:
        unexpected: Names that match no module.
        missing: Names of modules' tensors that are not in the file.
        count: Number of tensors in the file.
        config: The base's.
    """
    if unexpected:
        depth = config.get_text_config().num_hidden_layers
        deepest = max((int(match[1]) + 1 for name in unexpected if (match := _LAYER.search(name))), default=0)
        deep = f"; it has layers up to {deepest}, the base {depth}" if deepest > depth else ""
        cause = explain_prefix(unexpected) or "it was trained on another base"
        first = f"{len(unexpected)} of its {count} tensors match no module of the base (first: {unexpected[0]})"
        yield f"{first}{deep}; {cause}"
    if missing:
        yield (
            f"{len(missing)} tensors of its configuration are missing (first: {missing[0]}): those modules would "
            "behave like the base's"
        )


def waits_for_tokens(adapted: PeftModel | None) -> bool:
    """Whether an adapter is an activated LoRA, which begins at its invocation tokens (Greenewald et al. 2025)."""
    return adapted is not None and bool(getattr(adapted.peft_config["default"], "alora_invocation_tokens", None))


def adds_tokens(adapted: PeftModel | None) -> bool:
    """Whether an adapter puts virtual tokens before the prompt."""
    return adapted is not None and bool(adapted.peft_config["default"].is_prompt_learning)


def mixes_rows(adapted: PeftModel | None) -> bool:
    """Whether an adapter averages its router over all tokens of a batch, as LILY does in PEFT."""
    return adapted is not None and adapted.peft_config["default"].peft_type == "LILY"


def adapter_kind(adapted: PeftModel | None, digest: str) -> str:
    """Return what decides, beside the architecture, which path a model takes; empty without an adapter.

    A LoRA acts on every token alone, whatever its weights. What the code of another type does may not show in the first
    steps of a training, so each of its checkpoints, known by a digest, is a kind of its own.
    """
    if adapted is None:
        return ""
    config: Any = adapted.peft_config["default"]
    if config.peft_type != "LORA":
        return digest
    changes = (getattr(config, name, None) for name in ("alora_invocation_tokens", "layer_replication"))
    return " ".join(map(str, (config.peft_type, *changes)))
