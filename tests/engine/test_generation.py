"""Answers that grow side by side are those that lm-eval's own model and transformers give one at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evalsvc.engine import generation, unpacked
from evalsvc.engine import trie as tries
from evalsvc.engine.attention import NAME
from evalsvc.engine.encoding import Encoder, Prompt
from evalsvc.engine.sharding import cut_requests
from evalsvc.records.digests import canonical
from evalsvc.records.plans import Request
from evalsvc.records.shards import Prompts
from tests.support import architectures, tiny

pytestmark = pytest.mark.slow

TOKENIZER: Any = tiny.make_tokenizer()
GREEDY = canonical({"do_sample": False, "max_gen_toks": 12, "until": ["a"]})
SAMPLED = canonical({"do_sample": True, "temperature": 0.8, "top_p": 0.95, "max_gen_toks": 15, "until": ["the", "\n"]})
PENALTY = canonical({"do_sample": False, "max_gen_toks": 15, "repetition_penalty": 1.3, "until": []})


def prompts(kind: str) -> Prompts:
    rng = np.random.default_rng(3)

    def some(low: int, high: int) -> Any:
        return rng.integers(2, 360, int(rng.integers(low, high))).astype(np.int32)

    if kind == "shared":
        head = some(66, 70)
        items = [np.concatenate([head, some(1, 9)]) for _ in range(40)]  # more than there are slots
    elif kind == "apart":
        items = [some(1, 60) for _ in range(10)]
    else:
        one, two = some(70, 74), some(20, 30)
        items = [one] * 4 + [two] * 3 + [np.concatenate([one, some(1, 4)]), one[:60]]
    trie, rows = tries.build(items, [1] * len(items))
    settings = tuple((GREEDY, SAMPLED, PENALTY)[number % 3] for number in range(len(items)))
    return Prompts(trie, np.concatenate(rows), settings, np.zeros(len(items), np.int32))


@pytest.mark.parametrize("kind", ["shared", "apart", "repeated"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt_oss", "gpt2", "qwen3_moe"])
def test_tokens_are_those_of_transformers_generate(name: str, kind: str) -> None:
    model, work = architectures.make(name), prompts(kind)
    wishes = [unpacked.GenerationSettings.of(settings, TOKENIZER) for settings in work.settings]
    seeds = list(range(100, 100 + len(wishes)))
    expected = unpacked.generate(model, TOKENIZER, work, wishes, seeds)
    model.set_attn_implementation(NAME)
    for rows in (1536, 32):
        assert generation.generate(model, TOKENIZER, work, wishes, seeds, rows) == expected


def test_out_of_memory_halves_the_answers_that_grow_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    model, work = architectures.make("llama"), prompts("shared")
    model.set_attn_implementation(NAME)
    wishes = [unpacked.GenerationSettings.of(settings, TOKENIZER) for settings in work.settings]
    seeds = list(range(len(wishes)))
    expected = generation.generate(model, TOKENIZER, work, wishes, seeds, 256)
    ready = generation._Slots.prepare_step
    most: list[int] = []

    def scarce(self: generation._Slots, answers: Sequence[Any], positions: Sequence[int]) -> None:
        if len(answers) > 20:
            raise torch.OutOfMemoryError("no memory")
        most.append(len(answers))
        ready(self, answers, positions)

    monkeypatch.setattr(generation._Slots, "prepare_step", scarce)
    monkeypatch.setattr(generation, "BLOCK_ROWS", 8)
    assert generation.generate(model, TOKENIZER, work, wishes, seeds, 256) == expected
    assert 1 < max(most) <= 20

    def never(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(generation._Slots, "prepare_step", never)
    with pytest.raises(torch.OutOfMemoryError):
        generation.generate(model, TOKENIZER, work, wishes, seeds, 256)


def test_fewer_answers_grow_side_by_side_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    model, work = architectures.make("llama"), prompts("apart")
    wishes = [unpacked.GenerationSettings.of(settings, TOKENIZER) for settings in work.settings]
    arguments = model, TOKENIZER, work, wishes, [0] * len(wishes), 256, 16
    assert generation._Run(*arguments)._side_by_side == len(wishes)
    monkeypatch.setattr(generation, "spare_memory", lambda _: 1)
    assert generation._Run(*arguments)._side_by_side == 1


def test_texts_are_those_of_stock() -> None:
    model = architectures.make("llama", max_position_embeddings=128)
    contexts = [f"the cat sat on the mat. one two {n} the" for n in range(8)] + ["the dog", "the cat sat " * 40]
    requests = [Request.of("generate_until", (context, GREEDY)) for context in contexts]
    harness = HFLM(pretrained=model, tokenizer=TOKENIZER, batch_size=1)
    wanted = harness.generate_until(
        [Instance("generate_until", {}, (c, json.loads(GREEDY)), 0) for c in contexts], disable_tqdm=True
    )
    encoder = Encoder(TOKENIZER, model.config)
    assert isinstance(encoder.prompts(requests[-1:])[0], Prompt)
    model.set_attn_implementation(NAME)
    found: dict[str, str] = {}
    made = cut_requests(requests, encoder)
    for part in made.slices:
        assert isinstance(part.work, Prompts)
        wishes = [unpacked.GenerationSettings.of(settings, TOKENIZER) for settings in part.work.settings]
        answers = generation.generate(model, TOKENIZER, part.work, wishes, [0] * len(wishes), 64)
        texts = [unpacked.text_of(TOKENIZER, tokens, wish) for tokens, wish in zip(answers, wishes, strict=True)]
        found |= dict(zip(made.digests(part), texts, strict=True))
    assert [found[request.digest] for request in requests] == wanted
    assert len({len(text) for text in wanted}) > 2


def test_what_does_not_grow_token_by_token_is_left_to_transformers() -> None:
    model = architectures.make("llama")
    assert generation.can_generate(model, unpacked.GenerationSettings((), 8, {"do_sample": True, "temperature": 0.5}))
    assert not generation.can_generate(model, unpacked.GenerationSettings((), 8, {"do_sample": False, "num_beams": 3}))


def test_an_answer_that_runs_into_eos_ends() -> None:
    model = architectures.make("llama")
    model.set_attn_implementation(NAME)
    work = prompts("apart")
    wishes = [unpacked.GenerationSettings((), 40, {"do_sample": False}) for _ in work.settings]
    free = generation.generate(model, TOKENIZER, work, wishes, [0] * 10, 64)
    model.generation_config.eos_token_id = [free[0][3], 359]
    ended = generation.generate(model, TOKENIZER, work, wishes, [0] * 10, 64)
    first = free[0].index(free[0][3])
    assert ended[0] == free[0][: first + 1]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 24},
        {"max_length": 24, "max_gen_toks": 2},
        {"do_sample": True, "temperature": 0.8},
        {"temperature": 1.3, "top_k": 5},
        {"do_sample": True, "temperature": 1.0, "top_p": 0.7, "min_p": 0.01},
        {"do_sample": True, "temperature": 1.0, "typical_p": 0.5},
        {"do_sample": True, "temperature": 1.0, "top_h": 0.4},
        {"do_sample": True, "temperature": 1.0, "epsilon_cutoff": 0.002, "eta_cutoff": 0.002},
        {"repetition_penalty": 1.4},
        {"encoder_repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2},
        {"encoder_no_repeat_ngram_size": 1},
        {"num_beams": 3, "length_penalty": 0.3, "early_stopping": True},
        {"guidance_scale": 2.5},
        {"bad_words_ids": [[5], [300]]},
        {"sequence_bias": [[[7], 9.0]]},
        {"suppress_tokens": list(range(100, 200))},
        {"begin_suppress_tokens": list(range(0, 350))},
        {"forced_eos_token_id": 9},
        {"eos_token_id": list(range(150, 250)), "min_new_tokens": 4},
        {"eos_token_id": list(range(150, 250)), "min_length": 14},
        {"eos_token_id": list(range(150, 170)), "exponential_decay_length_penalty": [2, 1.5]},
        {"renormalize_logits": True, "remove_invalid_values": True},
        {"until": ["\n", ""]},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_every_setting_is_obeyed_as_stock_obeys_it(settings: dict[str, Any]) -> None:
    model = architectures.make("llama", max_position_embeddings=512)
    whole = {"until": ["\n"], **({"max_gen_toks": 12} if "max_length" not in settings else {}), **settings}
    contexts = ["the cat sat on the mat. one two the", "the dog", "a red hat on the hill and the sun"]
    requests = [Request.of("generate_until", (context, canonical(whole))) for context in contexts]
    harness = HFLM(pretrained=model, tokenizer=TOKENIZER, batch_size=1)
    expected = []
    for number, context in enumerate(contexts):
        torch.manual_seed(number)
        instance = Instance("generate_until", {}, (context, json.loads(canonical(whole))), 0)
        expected += harness.generate_until([instance], disable_tqdm=True)
    cut = cut_requests(requests, Encoder(TOKENIZER, model.config))
    assert not cut.refused
    (part,) = cut.slices
    assert isinstance(part.work, Prompts)
    lengths = tries.positions(part.work.trie)[part.work.ends] + 1
    wishes = [
        unpacked.GenerationSettings.of(each, TOKENIZER).for_prompt(int(length))
        for each, length in zip(part.work.settings, lengths, strict=True)
    ]
    order = [[request.digest for request in requests].index(key) for key in cut.digests(part)]
    answers = unpacked.generate(model, TOKENIZER, part.work, wishes, order)
    texts = {order[n]: unpacked.text_of(TOKENIZER, answers[n], wishes[n]) for n in range(3)}
    assert [texts[n] for n in range(3)] == expected
    if generation.can_generate(model, wishes[0]):
        model.set_attn_implementation(NAME)
        assert generation.generate(model, TOKENIZER, part.work, wishes, order, 64) == answers
    else:
        assert settings.keys() & {"num_beams", "guidance_scale"}


@pytest.mark.parametrize("think_end", ["on", " the", "nowhere", 277, 9999])
def test_what_a_model_thinks_is_left_out_as_in_stock(think_end: str | int) -> None:
    model = architectures.make("llama", max_position_embeddings=512)
    settings = {"until": ["cat"], "max_gen_toks": 40, "do_sample": True, "temperature": 1.5}
    contexts = ["the cat sat on the mat. one two the", "the dog", "a red hat on the hill and the sun"]
    harness = HFLM(pretrained=model, tokenizer=TOKENIZER, batch_size=1, think_end_token=think_end)
    plain = HFLM(pretrained=model, tokenizer=TOKENIZER, batch_size=1)
    changed = 0
    for number, context in enumerate(contexts * 2):
        instance = Instance("generate_until", {}, (context, settings), 0)
        torch.manual_seed(number)
        (expected,) = harness.generate_until([instance], disable_tqdm=True)
        torch.manual_seed(number)
        changed += plain.generate_until([instance], disable_tqdm=True) != [expected]
        request = Request.of("generate_until", (context, canonical({**settings, "think_end": think_end})))
        (part,) = cut_requests([request], Encoder(TOKENIZER, model.config)).slices
        assert isinstance(part.work, Prompts)
        wishes = [unpacked.GenerationSettings.of(part.work.settings[0], TOKENIZER)]
        (answer,) = unpacked.generate(model, TOKENIZER, part.work, wishes, [number])
        assert unpacked.text_of(TOKENIZER, answer, wishes[0]) == expected
    assert changed or think_end in ("nowhere", 9999)
