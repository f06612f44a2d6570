"""Encoder-decoders take the plain path, with stock's numbers and texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import T5Config, T5ForConditionalGeneration

from evalsvc.checkpoints.discover import Description, open_base, open_checkpoints
from evalsvc.engine.encoding import load_encoder
from evalsvc.engine.scorer import Scorer
from evalsvc.engine.sharding import cut_requests
from evalsvc.records.arms import Checkpoint
from evalsvc.records.plans import Request
from tests.support import tiny

PAIRS = [("the cat", " sat on"), ("the cat", " dog"), ("the cat ", "sat"), ("", "the sun"), ("one two " * 40, " three")]
SETTINGS = '{"do_sample":false,"max_gen_toks":9,"until":["a"]}'


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=368,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        n_positions=48,
        decoder_start_token_id=1,
        pad_token_id=1,
        eos_token_id=1,
        initializer_factor=3.0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tiny.make_tokenizer().save_pretrained(folder)
    base, _ = open_checkpoints(str(folder), None, Description("base"))
    return base


def test_numbers_and_texts_are_stocks(t5: Checkpoint, tmp_path: Path) -> None:
    stock = HFLM(pretrained=t5.path, backend="seq2seq", device="cpu", dtype="float32", batch_size=1)
    asked = [Request.of("loglikelihood", pair) for pair in PAIRS]
    asked += [Request.of("generate_until", (text, SETTINGS)) for text in ("the cat", "one two three")]
    results = [Scorer().score(shard) for shard in tiny.make_shards(asked, t5)]
    assert {result.path for result in results} == {"plain: it is an encoder-decoder"}
    answers = {response.request: response for result in results for response in result.responses}
    wanted = stock.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in PAIRS], disable_tqdm=True)
    for request, (value, greedy) in zip(asked, wanted, strict=False):
        assert answers[request.digest].loglikelihood == pytest.approx(value, abs=1e-4)
        assert answers[request.digest].greedy == greedy
    texts = stock.generate_until(
        [Instance("generate_until", {}, (r.arguments[0], json.loads(SETTINGS)), 0) for r in asked[len(PAIRS) :]],
        disable_tqdm=True,
    )
    assert [answers[request.digest].text for request in asked[len(PAIRS) :]] == texts
    assert answers[asked[4].digest].truncated > 0


def test_a_checkpoints_own_limit_is_stocks(t5: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    shutil.copytree(t5.path, folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_new_tokens": 4}))
    checkpoint = open_base(str(folder))
    stock = HFLM(pretrained=str(folder), backend="seq2seq", device="cpu", dtype="float32", batch_size=1)
    request = Request.of("generate_until", ("the cat", SETTINGS))
    ((response,),) = (Scorer().score(shard).responses for shard in tiny.make_shards([request], checkpoint))
    instance = Instance("generate_until", {}, ("the cat", json.loads(SETTINGS)), 0)
    assert [response.text] == stock.generate_until([instance], disable_tqdm=True)
    assert response.tokens == 4


def test_a_text_has_no_perplexity_under_an_encoder_decoder(t5: Checkpoint) -> None:
    request = Request.of("loglikelihood_rolling", ("the cat sat",))
    made = cut_requests([request], load_encoder(t5))
    assert "encoder-decoder" in made.refused[request.digest]
