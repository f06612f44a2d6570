"""Tokens are those that lm-eval's Hugging Face model would score."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evalsvc.engine.encoding import Encoder, Prompt, RequestError, Scored, cut_at_stops, stop_texts
from evalsvc.engine.unpacked import loglikelihoods
from evalsvc.records.plans import Request
from tests.support import tiny

WINDOW = 32
MODEL = tiny.make_llama(window=WINDOW)
TOKENIZER = tiny.make_tokenizer()
ENCODER = Encoder(TOKENIZER, MODEL.config)
STOCK = HFLM(pretrained=MODEL, tokenizer=TOKENIZER, batch_size=3)

PIECES = st.sampled_from(["the cat", " ", "  ", "\n", "dog", " dog", "x", "", "<s>", "a b c d e f g h", "é", "7 8"])
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def instance(kind: Any, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), min_size=1, max_size=6))
def test_loglikelihoods_equal_stock(pairs: list[tuple[str, str]]) -> None:
    requests = [Request.of("loglikelihood", pair) for pair in pairs]
    encoded = ENCODER.loglikelihood(requests)
    kept = [(pair, item) for pair, item in zip(pairs, encoded, strict=True) if isinstance(item, Scored)]
    ours = loglikelihoods(MODEL, [item for _, item in kept])
    for (pair, _), found in zip(kept, ours, strict=True):
        try:
            # One at a time: stock's cache of one-token continuations mixes up splits of the same text.
            ((value, greedy),) = STOCK.loglikelihood([instance("loglikelihood", *pair)], disable_tqdm=True)
        except AssertionError:  # a token spans the join: stock stops there
            continue
        assert found[0] == pytest.approx(value, abs=1e-4, rel=1e-6)
        assert found[1] == greedy


@settings(max_examples=40, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=80).map("".join).filter(str.strip))
def test_rolling_windows_equal_stock(text: str) -> None:
    (windows,) = ENCODER.rolling([Request.of("loglikelihood_rolling", (text,))])
    assert isinstance(windows, list)
    total = sum(value for value, _ in loglikelihoods(MODEL, windows))
    (expected,) = STOCK.loglikelihood_rolling([instance("loglikelihood_rolling", text)], disable_tqdm=True)
    assert total == pytest.approx(expected, abs=1e-4, rel=1e-6)
    assert sum(len(window.targets) for window in windows) == len(TOKENIZER(text)["input_ids"])


def test_too_long_a_context_is_cut_from_the_left_and_counted() -> None:
    request = Request.of("loglikelihood", ("the cat sat " * 20, " dog"))
    (item,) = ENCODER.loglikelihood([request])
    assert isinstance(item, Scored)
    assert len(item.tokens) == WINDOW
    whole = len(TOKENIZER("the cat sat " * 20 + " dog")["input_ids"])
    assert item.truncated == whole - 1 - WINDOW


def test_a_continuation_longer_than_the_window_is_refused_not_asserted() -> None:
    (item,) = ENCODER.loglikelihood([Request.of("loglikelihood", ("a", " cat" * 60))])
    assert isinstance(item, RequestError)
    assert f"window of {WINDOW}" in str(item)


def test_a_token_across_the_join_does_not_lose_the_continuation() -> None:
    # "th" + "e" is one token "the": stock's continuation is empty, and an assertion ends its whole run.
    assert len(TOKENIZER("the")["input_ids"]) == 1
    (item,) = ENCODER.loglikelihood([Request.of("loglikelihood", ("the ca", "t"))])
    assert isinstance(item, Scored)
    assert len(item.targets)


def test_the_window_of_a_prompt_leaves_room_for_the_answer() -> None:
    request = Request.of("generate_until", ("the cat sat " * 20, '{"max_gen_toks":10,"until":["x"]}'))
    (item,) = ENCODER.prompts([request])
    assert isinstance(item, Prompt)
    assert len(item.tokens) == WINDOW - 10
    assert item.truncated > 0
    assert stop_texts(TOKENIZER, ["x"]) == ("x", "</s>")
    assert stop_texts(TOKENIZER, ["x", ""]) == ("x", "", "</s>")
    crowded = Request.of("generate_until", ("the cat", f'{{"max_gen_toks":{WINDOW}}}'))
    assert isinstance(ENCODER.prompts([crowded])[0], RequestError)


def test_text_is_cut_at_the_first_stop() -> None:
    assert cut_at_stops("red red\n\nblue", ["\n\n", "blue"]) == "red red"
    assert cut_at_stops("red", ["\n"]) == "red"
    assert cut_at_stops("red house", ["", "house"]) == "red "
