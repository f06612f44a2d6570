"""What transformers and PEFT load is scored, with the same numbers: files as other versions and tools write them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

from evalsvc.engine.encoding import load_encoder
from evalsvc.engine.scorer import Scorer
from evalsvc.engine.sharding import Cutter, cut_requests
from evalsvc.records.plans import Request
from evalsvc.scoring.preflight import examine_checkpoints
from evalsvc.scoring.probe import PLAN
from tests.support.tiny import make_tokenizer, save_peft
from tests.truth import kinds, oracle, ours


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kinds.save_base(tmp_path_factory.mktemp("base") / "base", tied=False)


def expect_right(folder: Path, base: Path, model: Any) -> None:
    """Check a folder's answers against those of a model that was loaded without evalsvc."""
    expected = oracle.ask(oracle.serve(model, base), kinds.REQUESTS)
    checkpoint = ours.open_checked(folder, base)
    oracle.expect_equal(ours.answer(Scorer(), checkpoint, kinds.REQUESTS), expected)


def test_an_adapter_of_mixtral_in_transformers_4(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = MixtralConfig(
        vocab_size=368, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=96,
        initializer_range=0.4, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    base, folder = tmp_path / "mixtral", tmp_path / "lora"
    MixtralForCausalLM(config).save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    tensors, sizes = {}, {"w1": (48, 32), "w2": (32, 48), "w3": (48, 32)}
    for layer in range(2):
        prefix = f"base_model.model.model.layers.{layer}"
        targets = {f"{prefix}.self_attn.q_proj": (32, 32)}
        for expert in range(4):
            experts = f"{prefix}.block_sparse_moe.experts.{expert}"
            targets |= {f"{experts}.{name}": size for name, size in sizes.items()}
        for name, (rows, columns) in targets.items():
            tensors[f"{name}.lora_A.weight"] = 0.3 * torch.randn(4, columns)
            tensors[f"{name}.lora_B.weight"] = 0.3 * torch.randn(rows, 4)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(base),
        "target_modules": ["q_proj", *sizes],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))

    # By hand: every expert's matrices, as transformers 4 computed them, with 2 B A added.
    model = kinds.load_base(base)
    state = model.state_dict()
    with torch.no_grad():
        for name, a in tensors.items():
            if match := re.search(r"layers\.(\d).*experts\.(\d)\.(w[123])\.lora_A", name):
                change = 2 * tensors[name.replace("lora_A", "lora_B")] @ a
                fused = "down_proj" if match[3] == "w2" else "gate_up_proj"
                weight = state[f"model.layers.{match[1]}.mlp.experts.{fused}"][int(match[2])]
                weight[slice(48, None) if match[3] == "w3" else slice(0, len(change))] += change
            elif "lora_A" in name:
                target = name.removeprefix("base_model.model.").replace(".lora_A", "")
                state[target] += 2 * tensors[name.replace("lora_A", "lora_B")] @ a
    expect_right(folder, base, model)


def test_a_token_that_an_adapters_tokenizer_adds_and_nothing_uses(base: Path, tmp_path: Path) -> None:
    folder = save_peft(tmp_path / "lora", base, kinds.ADAPTERS["lora"](), seed=3)
    words = AutoTokenizer.from_pretrained(base)
    words.add_tokens([f"<new{n}>" for n in range(9)])  # 360 tokens, 368 rows: the last has none
    words.save_pretrained(folder)
    model = peft.PeftModel.from_pretrained(kinds.load_base(base), str(folder)).eval()
    expect_right(folder, base, model)
    checkpoint = ours.open_checked(folder, base)
    request = Request.of("loglikelihood", ("the cat <new8> sat", " on"))
    cut = cut_requests([request, *kinds.REQUESTS], load_encoder(checkpoint))
    assert list(cut.refused) == [request.digest]
    assert "the token '<new8>', for which the model has no embedding" in cut.refused[request.digest]
    root = ours.open_checked(base, base)
    assert Cutter(tmp_path / "cuts").has_same_tokens(PLAN, checkpoint, root)  # so that its drift is measured
    texts = [finding.text for finding in examine_checkpoints(root, [checkpoint]) if finding.check == "vocabulary"]
    assert "its embeddings lack 1 tokens that were added to its tokenizer (first: '<new8>')" in texts[-1]


def test_full_weights_without_a_tokenizer_get_the_bases(base: Path, tmp_path: Path) -> None:
    full = kinds.save_full(tmp_path / "full", base)
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in ("config.json", "model.safetensors", "generation_config.json"):
        shutil.copy(full / file, bare)
    expect_right(bare, base, kinds.load_base(full))
    checkpoint = ours.open_checked(bare, base)
    findings = examine_checkpoints(ours.open_checked(base, base), [checkpoint])
    assert [f.text for f in findings if f.check == "no-tokenizer"] == [
        f"has no tokenizer files; its base's tokenizer is used ({base})"
    ]


def test_an_activated_lora_leaves_prompts_without_its_tokens_to_the_base(base: Path, tmp_path: Path) -> None:
    tokens = make_tokenizer()(" eight nine")["input_ids"]
    config = peft.LoraConfig(
        r=4, target_modules=kinds.LINEAR, task_type="CAUSAL_LM", alora_invocation_tokens=[*tokens, 0]
    )
    folder = save_peft(tmp_path / "alora", base, config, seed=3)
    scorer, checkpoint = Scorer(), ours.open_checked(folder, base)
    expected = oracle.ask(oracle.serve(kinds.load_base(base), base), kinds.REQUESTS)
    oracle.expect_equal(ours.answer(scorer, checkpoint, kinds.REQUESTS), expected)
    # Two lengths in one batch, whose padding must not complete the invocation (it ends in token 0, "<s>").
    longer = [
        Request.of("loglikelihood", ("one two eight nine", " ten")),
        Request.of("loglikelihood", ("one eight nine<s> two three four five six seven eight", " ten")),
    ]
    model = peft.PeftModel.from_pretrained(kinds.load_base(base), str(folder)).eval()
    oracle.expect_equal(ours.answer(scorer, checkpoint, longer), oracle.ask(oracle.serve(model, base), longer))
