"""What lm-eval's own HFLM, or transformers alone, says of a model: the numbers that ours must equal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import AutoTokenizer

from evalsvc.records.plans import Request
from tests.support.tiny import make_llama


def serve(model: Any, tokenizer_folder: Path) -> HFLM:
    """Return stock lm-eval's model around one that is loaded."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    # HFLM ties the weights of the model that it is given, whatever was loaded: it gets the model afterwards.
    lm = HFLM(pretrained=make_llama(window=96), tokenizer=tokenizer, batch_size=1, device="cpu")
    lm._model = model
    return lm


def ask(lm: HFLM, requests: Sequence[Request]) -> list[Any]:
    """Return HFLM's answers: (nats, greedy), nats, or text, by the kind of request."""
    answers = []
    for request in requests:
        arguments: tuple[Any, ...] = tuple(request.arguments)
        if request.kind == "generate_until":
            arguments = (arguments[0], json.loads(arguments[1]))
        instance = Instance(request_type=request.kind, doc={}, arguments=arguments, idx=0)
        torch.manual_seed(int(request.digest[:15], 16))  # documented in concepts.md
        (answer,) = getattr(lm, request.kind)([instance], disable_tqdm=True)
        answers.append(answer)
    return answers


def expect_equal(answers: Sequence[Any], expected: Sequence[Any]) -> None:
    """Check answers against those of `ask`: nats to rounding, texts and the greedy flag exactly."""
    for answer, right in zip(answers, expected, strict=True):
        if isinstance(right, tuple):
            assert answer == (pytest.approx(right[0], abs=2e-4), right[1])
        else:
            assert answer == (right if isinstance(right, str) else pytest.approx(right, rel=1e-5))


@torch.inference_mode()
def divergences(base: Any, adapted: Any, lm: HFLM, text: str) -> list[float]:
    """Return KL(base || adapted) in nats of each token's prediction, float64, over lm-eval's windows of a text."""
    values: list[float] = []
    windows = get_rolling_token_windows(lm.tok_encode(text), lm.prefix_token_id, lm.max_length, context_len=1)
    for context, continuation in map(make_disjoint_window, windows):
        ids = torch.tensor([[*context, *continuation][:-1]])
        p, q = (model(ids).logits[0, -len(continuation) :].double().log_softmax(1) for model in (base, adapted))
        values += (p.exp() * (p - q)).sum(1).tolist()
    return values
