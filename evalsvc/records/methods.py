"""Methods of adapting a checkpoint, and the groups that they belong to: the one taxonomy.

An adapter is PEFT, whatever its method is called. Everything else goes by the method's name; a name that is not listed
here belongs to no group: it is shown as it was given, and left out of claims about groups.
"""

from __future__ import annotations

from typing import Literal

Group = Literal["base", "icl", "rag", "merged", "peft", "full", "cpt"]

PROMPTED = ("icl", "rag")
"""Methods that train nothing: worked examples, or retrieved passages, before every question."""

# The types of the library PEFT by its own names, and variants of LoRA that its configuration tells apart.
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
    """Return the group of a method, in any case and with hyphens or underscores; None if its name is not known.

    Args:
        is_adapter: Whether the checkpoint is an adapter; then it is PEFT, unless it is its base with other prompts.
    """
    if is_adapter and method not in PROMPTED:
        return "peft"
    name = method.lower().replace("-", "_").replace(" ", "_")
    return "cpt" if name.startswith("cpt_") else _GROUPS.get(name)


def list_kinds(method: str, name: str, *, is_adapter: bool = False) -> frozenset[str]:
    """Return what a training run counts as in claims: its group, its method within the group, and its use of replay.

    Continued pre-training says "replay" in its method or name if it has any. A method of no group counts as nothing.
    """
    group = find_group(method, is_adapter=is_adapter)
    if group is None:
        return frozenset()
    kinds = {group, *([method.lower()] if find_group(method) == group else [])}
    if group == "cpt":
        kinds.add("replay" if "replay" in f"{method} {name}".lower() else "no replay")
    return frozenset(kinds)
