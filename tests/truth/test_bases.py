"""Adapters on adapters: what a message advises gives the numbers of PEFT's stack."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
from transformers import AutoTokenizer

from evalsvc.engine.scorer import Scorer
from evalsvc.errors import CheckpointError
from tests.support.tiny import save_peft
from tests.truth import kinds, oracle, ours


def test_merging_the_first_adapter_as_advised_gives_the_stack_of_both(tmp_path: Path) -> None:
    base = kinds.save_base(tmp_path / "base", tied=False)
    sft = save_peft(tmp_path / "sft", base, kinds.ADAPTERS["lora"](), seed=3)
    merged = tmp_path / "merged"
    model = peft.PeftModel.from_pretrained(kinds.load_base(base), str(sft)).merge_and_unload()
    model.save_pretrained(merged)
    AutoTokenizer.from_pretrained(base).save_pretrained(merged)
    dpo = save_peft(tmp_path / "dpo", merged, kinds.ADAPTERS["lora"](), seed=4)
    file = dpo / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "sft"}))
    with pytest.raises(CheckpointError, match=r"trained on the adapter 'sft', not on base; merge 'sft' into"):
        ours.open_checked(dpo, base)
    checkpoint = ours.open_checked(dpo, merged, base_anyway=True)

    stack = peft.PeftModel.from_pretrained(kinds.load_base(base), str(sft)).merge_and_unload()
    stack = peft.PeftModel.from_pretrained(stack, str(dpo)).eval()
    expected = oracle.ask(oracle.serve(stack, base), kinds.REQUESTS)
    oracle.expect_equal(ours.answer(Scorer(), checkpoint, kinds.REQUESTS), expected)
