"""A shard in, its result out: adapters, restoration of the base, failures, memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from evalsvc.checkpoints.discover import Description, open_checkpoints
from evalsvc.engine import likelihood, unpacked
from evalsvc.engine.attention import PackAttention
from evalsvc.engine.encoding import Scored
from evalsvc.engine.packs import Pack
from evalsvc.engine.parity import Parity
from evalsvc.engine.resident import Resident
from evalsvc.engine.scorer import Scorer
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Arm, Checkpoint
from evalsvc.records.plans import Request
from tests.support import tiny

REQUESTS = (
    Request.of("loglikelihood", ("the cat", " sat on")),
    Request.of("loglikelihood", ("the cat", " dog")),
    Request.of("loglikelihood", ("", "the sun is hot")),
    Request.of("loglikelihood_rolling", ("one two three four " * 30,)),
    Request.of("generate_until", ("the dog", '{"do_sample":false,"max_gen_toks":6,"until":["\\n"]}')),
)


def score(
    scorer: Scorer, checkpoint: Checkpoint, requests: Sequence[Request] = REQUESTS, rerun: int = 0
) -> dict[str, float | str | None]:
    arm = Arm(checkpoint, replace(tiny.NUMERICS, rerun=rerun))
    results = [scorer.score(replace(shard, arm=arm)) for shard in tiny.make_shards(requests, checkpoint)]
    assert not any(result.failures for result in results)
    answers = [response for result in results for response in result.responses]
    return {r.request: r.text if r.text is not None else r.loglikelihood for r in answers}


def test_the_base_is_bit_identical_before_between_and_after_adapters(
    base: Checkpoint, lora: Checkpoint, full: Checkpoint
) -> None:
    scorer = Scorer()
    first = score(scorer, base)
    adapted = score(scorer, lora)
    assert score(scorer, base) == first
    other = score(scorer, full)
    assert score(scorer, lora) == adapted
    assert score(scorer, base) == first
    assert len({str(v) for v in (first, adapted, other)}) == 3
    assert score(Scorer(), lora) == adapted


def test_a_rerun_takes_the_items_in_another_order_and_finds_the_same(
    base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[int]] = []
    run = PackAttention.run

    def watched(self: PackAttention, decoder: Any, pack: Pack, device: torch.device) -> torch.Tensor:
        orders.append(pack.tokens.tolist())
        return run(self, decoder, pack, device)

    monkeypatch.setattr(PackAttention, "run", watched)
    (shard, *_) = tiny.make_shards(REQUESTS[:3], base)
    scorer = Scorer()
    scorer.score(shard)  # a model's first shard is preceded by a probe
    orders.clear()
    usual = scorer.score(shard).responses
    one = list(chain.from_iterable(orders))
    orders.clear()
    again = scorer.score(
        replace(shard, arm=replace(shard.arm, numerics=replace(shard.arm.numerics, rerun=1)))
    ).responses
    other = list(chain.from_iterable(orders))
    assert one != other
    assert sorted(one) == sorted(other)
    assert [response.request for response in again] == [response.request for response in usual]
    assert [r.loglikelihood for r in again] == pytest.approx([r.loglikelihood for r in usual], abs=1e-4)


def test_an_adapter_scores_as_peft_serves_it(lora: Checkpoint) -> None:
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(lora.resident), lora.path).eval()
    tokens = tiny.make_tokenizer()("the cat sat on")["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    begin = len(tiny.make_tokenizer()("the cat")["input_ids"])
    expected = sum(float(logits[i - 1, tokens[i]]) for i in range(begin, len(tokens)))
    found = score(Scorer(), lora)[REQUESTS[0].digest]
    assert found == pytest.approx(expected, abs=1e-5)


def test_an_adapter_of_another_base_is_refused(models: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig

    other = LlamaForCausalLM(LlamaConfig(**{**tiny.make_llama().config.to_dict(), "num_hidden_layers": 3}))
    other.save_pretrained(tmp_path / "other")
    tiny.make_tokenizer().save_pretrained(tmp_path / "other")
    tiny.save_adapter(tmp_path / "adapter", tmp_path / "other", seed=0)
    _, (misfit,) = open_checkpoints(str(tmp_path / "adapter"), str(models / "base"), Description())
    with pytest.raises(CheckpointError, match="match no module of the base"):
        score(Scorer(), misfit)


def test_after_a_refused_adapter_the_base_still_scores_the_same(models: Path, tmp_path: Path, base: Checkpoint) -> None:
    scorer = Scorer()
    first = score(scorer, base)
    shutil.copytree(models / "lora", tmp_path / "broken")
    config = (tmp_path / "broken" / "adapter_config.json").read_text()
    (tmp_path / "broken" / "adapter_config.json").write_text(config.replace('"q_proj"', '"no_such_module"'))
    _, (broken,) = open_checkpoints(str(tmp_path / "broken"), str(models / "base"), Description())
    with pytest.raises(CheckpointError):
        score(scorer, broken)
    assert score(scorer, base) == first


def test_a_padded_vocabulary_is_never_resized(base: Checkpoint, lora: Checkpoint) -> None:
    resident = Resident("cpu", "float32")
    model = resident.hold(lora)
    assert model.get_input_embeddings().weight.shape[0] == 368 > len(resident.tokenizer)


def test_out_of_memory_halves_the_batch_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make_llama()
    items = [Scored(np.array((1, 2, 3, i), np.int32), np.array((i,), np.int32)) for i in range(4, 20)]
    expected = unpacked.loglikelihoods(model, items)
    sizes: list[int] = []
    forward = unpacked._forward

    def scarce(model: torch.nn.Module, batch: list[tuple[int, ...]]) -> torch.Tensor:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("no memory")
        sizes.append(len(batch))
        return forward(model, batch)

    monkeypatch.setattr(unpacked, "_forward", scarce)
    found = unpacked.loglikelihoods(model, items)
    assert max(sizes) <= 3
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-5)


def test_a_sampled_answer_depends_on_its_request_alone(base: Checkpoint) -> None:
    settings = '{"do_sample":true,"max_gen_toks":8,"temperature":1.0,"until":[]}'
    asked = [Request.of("generate_until", ("the cat", settings), repeat) for repeat in range(4)]
    together = score(Scorer(), base, asked)
    alone = {key: text for request in asked for key, text in score(Scorer(), base, [request]).items()}
    assert together == alone
    assert len(set(together.values())) > 1


def test_a_rerun_has_other_seeds_and_the_same_likelihoods_but_for_rounding(base: Checkpoint) -> None:
    settings = '{"do_sample":true,"max_gen_toks":8,"temperature":1.0,"until":[]}'
    asked = [Request.of("generate_until", ("the cat", settings), repeat) for repeat in range(4)]
    first, again = (score(Scorer(), base, asked, rerun) for rerun in (0, 1))
    assert all(first[key] != again[key] for key in first)
    assert again == score(Scorer(), base, asked, rerun=1)
    likelihoods = [request for request in REQUESTS if request.kind != "generate_until"]
    first, again = (score(Scorer(), base, likelihoods, rerun) for rerun in (0, 1))
    assert first == pytest.approx(again, rel=1e-5)


@pytest.mark.parametrize("trie", [True, False])
def test_a_rerun_has_other_batches_on_either_path(
    base: Checkpoint, monkeypatch: pytest.MonkeyPatch, trie: bool
) -> None:
    sizes: list[int] = []
    owner, name = (likelihood, "packs") if trie else (unpacked, "_forward")
    usual = getattr(owner, name)

    def watched(first: Any, second: Any, *rest: Any) -> Any:
        sizes.append(second if trie else len(second))  # rows of a pack, or sequences of a batch
        return usual(first, second, *rest)

    monkeypatch.setattr(owner, name, watched)
    if not trie:
        monkeypatch.setattr("evalsvc.engine.resident.examine", lambda *_: Parity(False, "a test", None, "eager"))
    many = [Request.of("loglikelihood", (f"{i} the cat " * 15, " sat on")) for i in range(300)]
    used = []
    for rerun in (0, 1):
        scorer = Scorer()
        score(scorer, base, many[:1], rerun)  # loading may look at sentences of its own
        sizes.clear()
        score(scorer, base, many, rerun)
        used.append(max(sizes))
    assert used[1] == pytest.approx(used[0] * 2 / 3, rel=0.1)
