"""Adapters of another base: what a message advises gives the numbers of the model that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraGAConfig, preprocess_loraga
from transformers import AutoTokenizer

from evalsvc.engine.scorer import Scorer
from evalsvc.errors import CheckpointError
from tests.support.tiny import randomise, save_peft
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


def test_lora_ga_converted_as_advised_is_the_model_that_was_trained(tmp_path: Path) -> None:
    base = kinds.save_base(tmp_path / "base", tied=False)
    model = kinds.load_base(base)
    config = kinds.lora(init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig())
    ids = torch.tensor([[3, 40, 300, 8, 9, 279]])
    preprocess_loraga(model, config, lambda: model(ids, labels=ids).loss.backward())
    trained: Any = peft.get_peft_model(model, config)
    trained.save_pretrained(str(tmp_path / "start"))
    trained = randomise(trained).eval()
    trained.save_pretrained(str(tmp_path / "raw"))
    with pytest.raises(CheckpointError, match=r"lora_ga changed the base's weights .* convert it to plain LoRA"):
        ours.open_checked(tmp_path / "raw", base)
    expected = oracle.ask(oracle.serve(trained, base), kinds.REQUESTS)
    start = tmp_path / "start"
    edited = json.loads((start / "adapter_config.json").read_text())
    (start / "adapter_config.json").write_text(json.dumps({**edited, "init_lora_weights": True}))
    trained.save_pretrained(str(tmp_path / "plain"), path_initial_model_for_weight_conversion=str(start))
    checkpoint = ours.open_checked(tmp_path / "plain", base)
    oracle.expect_equal(ours.answer(Scorer(), checkpoint, kinds.REQUESTS), expected)
