"""Methods of adapting a checkpoint, and their groups.

An adapter is in group "peft", whatever its method's name. Other checkpoints are grouped by the method's name. A name
that is not listed here has no group: it is shown as given, and left out of claims about groups.
"""

from __future__ import annotations

from typing import Literal

Group = Literal["base", "icl", "rag", "merged", "peft", "full", "cpt"]

PROMPTED = ("icl", "rag")
"""Methods without training: few-shot examples, or retrieved passages, in the prompt."""

# Adapter types of the library PEFT, and variants of LoRA that its configuration distinguishes.
_PEFT = """
    adalora adamss adaption_prompt beft boft bone c3a cartridge deft delora fourierft frod glora gralora hira hra ia3
    lily ln_tuning loha lokr lora miss multitask_prompt_tuning oft osf p_tuning peanut poly prefix_tuning prompt_tuning
    psoft pvera randlora road shadow shira supertuning tinylora trainable_tokens unilora vblora vera waveft xlora
    adapter dora peft pissa qlora rslora
"""
_FULL = """
    full full_finetuning full_ft fft finetuning fine_tuning ft sft instruction_tuning dpo ipo kto orpo simpo cpo rl rlhf
    rlaif rlvr ppo grpo rloo reinforce distill distillation kd
"""
_CPT = "cpt continued_pretraining dapt pretraining"
_MERGED = "merged merge model_soup slerp task_arithmetic ties dare"
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

    Args:
        is_adapter: Whether the checkpoint is an adapter: its group is "peft", unless it is the base with other prompts.
    """
    if is_adapter and method not in PROMPTED:
        return "peft"
    name = method.lower().replace("-", "_").replace(" ", "_")
    return "cpt" if name.startswith("cpt_") else _GROUPS.get(name)


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
