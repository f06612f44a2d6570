"""Scores that depend on a whole batch, and checkpoints with generation settings of their own, as HFLM has them.

HFLM is asked one request at a time, so that no answer depends on its neighbours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from evalsvc.engine.scorer import Scorer
from evalsvc.records.digests import canonical
from evalsvc.records.plans import Request
from tests.support.tiny import make_tokenizer, save_peft
from tests.truth import kinds, oracle, ours

TEXT = "the cat sat on the mat and the dog ran over the hill to see one two three red houses"
SHORT = tuple(Request.of("loglikelihood", (TEXT[:n], TEXT[n : n + 9])) for n in (11, 20, 43))
LONG = tuple(
    Request.of("loglikelihood", (f"{TEXT} {TEXT}"[n:], f" {word}")) for n in (0, 30) for word in ("cat", "dog")
)
TEXTS = tuple(Request.of("loglikelihood_rolling", (text,)) for text in (TEXT[:30], f"{TEXT}, " * 4))
SAMPLED = '{"do_sample":true,"max_gen_toks":10,"temperature":0.9,"until":["\\n"]}'


def expect_right(folder: Path, base: Path, model: Any, requests: tuple[Request, ...], scorer: Scorer) -> None:
    """Check a folder's answers against those of a model that was loaded without evalsvc."""
    expected = oracle.ask(oracle.serve(model, base), requests)
    checkpoint = ours.open_checked(folder, base)
    oracle.expect_equal(ours.answer(scorer, checkpoint, requests), expected)


def load_adapter(folder: Path, base: Path) -> Any:
    return peft.PeftModel.from_pretrained(kinds.load_base(base), str(folder)).eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kinds.save_base(tmp_path_factory.mktemp("base") / "base", tied=False)


def test_frequencies_are_those_of_each_sequence_not_of_the_longest_in_its_batch(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = Phi3Config(
        vocab_size=368, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=96, original_max_position_embeddings=32, initializer_range=0.4,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 32,
            "short_factor": [1.0, 1.0, 1.1, 1.2], "long_factor": [4.0, 3.0, 2.0, 1.5],
        },
    )  # fmt: skip
    base = tmp_path / "phi3"
    Phi3ForCausalLM(config).save_pretrained(base)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(base)
    # Prompts that stay within 32 tokens with their answers, that exceed them with their answers, and that exceed them.
    texts = (TEXT[:12], f"{TEXT} {TEXT}"[:112], f"{TEXT} {TEXT}")
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    assert lengths[0] < 22 < lengths[1] < 32 < lengths[2], lengths
    prompts = [Request.of("generate_until", (text, kinds.GREEDY)) for text in texts]
    adapter = peft.LoraConfig(r=4, target_modules=["qkv_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(2)
    adapted = peft.get_peft_model(kinds.load_base(base), adapter)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    adapted.save_pretrained(str(tmp_path / "lora"))
    scorer = Scorer()
    for requests in (SHORT, (*SHORT, *LONG, *TEXTS), *((prompt,) for prompt in prompts), tuple(prompts)):
        expect_right(base, base, kinds.load_base(base), requests, scorer)
        expect_right(tmp_path / "lora", base, load_adapter(tmp_path / "lora", base), requests, scorer)


def test_an_adapter_that_routes_a_batch_scores_each_sequence_alone(base: Path, tmp_path: Path) -> None:
    config = peft.LilyConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    scorer = Scorer()
    for seed in (3, 4):
        folder = save_peft(tmp_path / f"lily{seed}", base, config, seed=seed)
        requests = (*SHORT, *LONG, *TEXTS, *kinds.REQUESTS)
        expect_right(folder, base, load_adapter(folder, base), requests, scorer)
    expect_right(base, base, kinds.load_base(base), requests, scorer)


OWN: dict[str, dict[str, Any]] = {
    "shorter": {"max_new_tokens": 5, "num_beams": 2, "no_repeat_ngram_size": 2, "suppress_tokens": [300, 301]},
    "longer": {"max_new_tokens": 17, "repetition_penalty": 1.3},
    "overruled": {"max_length": 9, "do_sample": True, "temperature": 0.2, "eos_token_id": [1, *range(200, 230)]},
    "sampling": {"do_sample": True, "top_k": 4, "top_p": 0.8, "min_new_tokens": 3, "bad_words_ids": [[5], [300]]},
}
"""Contents of generation_config.json."""


@pytest.mark.parametrize("name", OWN)
def test_answers_obey_the_checkpoints_own_generation_settings(base: Path, name: str, tmp_path: Path) -> None:
    folders = {
        "base": kinds.save_base(tmp_path / "base", tied=False),
        "full": kinds.save_full(tmp_path / "full", base),
        "other": kinds.save_full(tmp_path / "other", base),
        "lora": save_peft(tmp_path / "lora", tmp_path / "base", kinds.ADAPTERS["lora"](), seed=3),
    }
    for arm in ("base", "full"):
        settings = {"bos_token_id": 0, "eos_token_id": 1, **OWN[name]}
        (folders[arm] / "generation_config.json").write_text(json.dumps(settings))
    limits = (
        {"max_gen_toks": 10},
        {"max_gen_toks": 10, "max_length": 30},
        {"max_gen_toks": 4, "repetition_penalty": 1.1},
    )
    settings_of_tasks = [SAMPLED, *(canonical({"do_sample": False, "until": ["\n"], **limit}) for limit in limits)]
    requests = tuple(
        Request.of("generate_until", (text, settings))
        for text in ("the red house and the", "Question: what", TEXT[:30])
        for settings in settings_of_tasks
    )
    scorer, texts = Scorer(), {}
    for arm, folder in folders.items():
        model = load_adapter(folder, folders["base"]) if arm == "lora" else kinds.load_base(folder)
        texts[arm] = oracle.ask(oracle.serve(model, folders["base"]), requests)
        checkpoint = ours.open_checked(folder, folders["base"])
        assert ours.answer(scorer, checkpoint, requests) == texts[arm], arm
    assert texts["full"] != texts["other"], "the settings changed nothing"
