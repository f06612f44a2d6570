"""The taxonomy of methods."""

from __future__ import annotations

import pytest

from evalsvc.records.methods import find_group, list_kinds


@pytest.mark.parametrize(
    ("group", "methods"),
    [
        (
            "full",
            [
                "full",
                "Full-FT",
                "sft",
                "dpo",
                "rlhf",
                "grpo",
                "kto",
                "orpo",
                "ppo",
                "rl",
                "distill",
                "full fine-tuning",
                "DPO/KL",
            ],
        ),
        (
            "peft",
            ["lora", "QLoRA", "IA3", "prefix_tuning", "prefix", "prompt-tuning", "adalora", "dpo-lora", "LoRA + SFT"],
        ),
        ("cpt", ["cpt", "cpt-replay", "cpt-replay-5%", "pretraining", "Continued pre-training"]),
        ("merged", ["merged", "ties"]),
        ("base", ["base"]),
        ("icl", ["icl"]),
        ("rag", ["rag"]),
        (None, ["unknown", "our-own", "", "cptx", "icl+lora"]),
    ],
)
def test_a_method_belongs_to_one_group_by_its_name(group: str | None, methods: list[str]) -> None:
    assert {find_group(method) for method in methods} == {group}


def test_every_type_of_the_library_peft_is_known() -> None:
    peft = pytest.importorskip("peft")
    names = {str(kind.value).lower() for kind in peft.PeftType} - {"cpt"}  # its name for context-aware prompt tuning
    assert {name for name in names if find_group(name) != "peft"} == set()


@pytest.mark.parametrize("method", ["cpt", "dpo", "full", "our-own", "lora"])
def test_an_adapter_is_peft_whatever_it_is_called(method: str) -> None:
    assert find_group(method, is_adapter=True) == "peft"
    assert list_kinds(method, "a", is_adapter=True) - {"lora"} == {"peft"}
