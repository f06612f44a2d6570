"""Methods of adapting a checkpoint, and their groups.

An adapter is in group "peft", whatever its method's name. Other checkpoints are grouped by the method's name. A name
that is not listed here has no group: it is shown as given, and left out of claims about groups.
"""

from __future__ import annotations

import re
from typing import Literal

Group = Literal["base", "icl", "rag", "merged", "peft", "full", "cpt"]

PROMPTED = ("icl", "rag")
"""Methods without training: few-shot examples, or retrieved passages, in the prompt."""

# Adapter types of the library PEFT, and variants of LoRA that its configuration distinguishes.
_PEFT = """
    adalora adamss adaption_prompt beft boft bone c3a cartridge deft delora fourierft frod glora gralora hira hra ia3
    lily ln_tuning loha lokr lora miss multitask_prompt_tuning oft osf p_tuning peanut poly prefix_tuning prompt_tuning
    psoft pvera randlora road shadow shira supertuning tinylora trainable_tokens unilora vblora vera waveft xlora
    adapter context_aware_prompt_tuning dora peft pissa prefix qlora rslora
"""
_FULL = """
    full full_finetuning full_ft fft finetuning fine_tuning ft sft instruction_tuning dpo ipo kto orpo simpo cpo rl rlhf
    rlaif rlvr ppo grpo rloo reinforce distill distillation kd
"""
_CPT = "cpt continued_pretraining dapt pretraining"
_MERGED = "merged merge model_soup slerp task_arithmetic ties dare"
_PRECEDENCE: tuple[Group, ...] = ("peft", "cpt", "full", "merged")
_GROUPS: dict[str, Group] = {
    "base": "base",
    "icl": "icl",
    "rag": "rag",
    **dict.fromkeys(_MERGED.split(), "merged"),
    **dict.fromkeys(_PEFT.split(), "peft"),
    **dict.fromkeys(_FULL.split(), "full"),
    **dict.fromkeys(_CPT.split(), "cpt"),
}


def find_group(method: str, *, is_adapter: bool = False) -> Group | None:
    """Return the group of a method, in upper or lower case, with hyphens or underscores; None if it is not known.

    A name of several methods, such as "dpo-lora", is in the group of the one that says most about which weights change:
    an adapter's before that of continued pre-training, this before full fine-tuning, this before merging.

    Args:
        is_adapter: Whether the checkpoint is an adapter: its group is "peft", unless it is the base with other prompts.
    """
    if is_adapter and method not in PROMPTED:
        return "peft"
    name = re.sub(r"[^a-z0-9]+", "_", method.lower()).replace("pre_train", "pretrain")
    if name in _GROUPS:
        return _GROUPS[name]
    groups = {_GROUPS.get(part) for part in name.split("_")}
    if groups & set(PROMPTED):  # a hybrid of prompts and training is of neither group
        return None
    return next((group for group in _PRECEDENCE if group in groups), None)


def list_kinds(method: str, name: str, *, is_adapter: bool = False) -> frozenset[str]:
    """Return the kinds of a training run in claims: its group, its method within the group, and its use of replay.

    Continued pre-training has replay if "replay" is in its method or name. A method without a group has no kinds.
    """
    group = find_group(method, is_adapter=is_adapter)
    if group is None:
        return frozenset()
    kinds = {group, *([method.lower()] if find_group(method) == group else [])}
    if group == "cpt":
        kinds.add("replay" if "replay" in f"{method} {name}".lower() else "no replay")
    return frozenset(kinds)
