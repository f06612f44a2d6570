"""The other side of the comparison: lm-eval's Hugging Face model where it can be imported, else a loop like its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from evalsvc.engine.encoding import Scored
from evalsvc.records.plans import Request
from evalsvc.records.vocabulary import Floats
from tests.benchmarks.gpu import shapes
from tests.benchmarks.gpu.meters import Clock, free_memory, peak_gb
from tests.benchmarks.gpu.record import Record

TRIAL = 8
"""One request in so many is scored to find the best batch size."""

Scores = Callable[[int, Sequence[Request]], list[float]]
"""Batch size, requests -> nats."""


class Harness:
    """The harness at the best of some batch sizes.

    Attributes:
        name: What runs, and why if it is not lm-eval itself.
    """

    def __init__(self, model: Any, tokenizer: Any, batches: Sequence[int]) -> None:
        self._batches = batches
        self._best = batches[0]
        self._score: Scores
        try:
            self._score = _lm_eval(model, tokenizer)
            self.name = "lm-eval's HFLM"
        except Exception as error:  # not installed, or not for these versions
            self._score = lambda batch, requests: _plain(model, batch, requests)
            self.name = f"a loop like HFLM's over transformers ({type(error).__name__}: {error})"
            logging.getLogger(__name__).warning("lm-eval is not used: %s", error)

    def run(self, record: Record, requests: Sequence[Request]) -> tuple[float, Floats]:
        """Return the seconds and the log-likelihoods of all requests, by the best batch size."""
        trials: dict[int, float] = {}
        # Neighbours, so that requests of one document stay together.
        some = requests[: max(4, len(requests) // TRIAL)]
        self._score(self._batches[0], some[:4])
        for batch in self._batches:
            try:
                with Clock() as clock:
                    self._score(batch, some)
            except torch.OutOfMemoryError:
                free_memory()
                continue
            trials[batch] = clock.wall
        best = min(trials, key=trials.__getitem__)
        free_memory()
        with Clock() as clock:
            scores = self._score(best, requests)
        record.note(
            theirs={
                "trials": {str(batch): seconds for batch, seconds in trials.items()},
                "batch": best,
                "seconds": clock.wall,
                "cpu_seconds": clock.cpu,
                "peak_gb": peak_gb(),
            }
        )
        self._best = best
        return clock.wall, np.array(scores)

    def score(self, requests: Sequence[Request]) -> list[float]:
        """Score requests with the best batch size."""
        return self._score(self._best, requests)


def _lm_eval(model: Any, tokenizer: Any) -> Scores:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    stock: Any = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)

    def score(batch: int, requests: Sequence[Request]) -> list[float]:
        stock.batch_size_per_gpu = batch
        instances = [
            Instance(request_type="loglikelihood", doc={}, arguments=request.arguments, idx=number)
            for number, request in enumerate(requests)
        ]
        return [float(nats) for nats, _ in stock.loglikelihood(instances, disable_tqdm=True)]

    return score


def _plain(model: Any, batch: int, requests: Sequence[Request]) -> list[float]:
    """Score as HFLM does: sorted by length, padded on the right, log-softmax at every position, one row at a time."""
    encoded = shapes.encoder(model.config).loglikelihood(requests)
    items = [item for item in encoded if isinstance(item, Scored)]
    assert len(items) == len(requests)
    # Requests of one context whose continuations have one token share a row, as in HFLM.
    rows: dict[tuple[int, ...], list[int]] = {}
    for number, item in enumerate(items):
        rows.setdefault(tuple(item.tokens.tolist()), []).append(number)
    order = sorted(rows, key=lambda tokens: -len(tokens))
    nats = [0.0] * len(items)
    device = next(model.parameters()).device
    with torch.inference_mode():
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            padded = np.zeros((len(chosen), len(chosen[0])), np.int64)
            for row, tokens in enumerate(chosen):
                padded[row, : len(tokens)] = tokens
            logits = model(torch.from_numpy(padded).to(device)).logits.log_softmax(-1)
            for row, tokens in enumerate(chosen):
                for number in rows[tokens]:
                    targets = torch.from_numpy(items[number].targets.astype(np.int64)).to(device)
                    scored = logits[row, len(tokens) - len(targets) : len(tokens)]
                    nats[number] = float(scored.gather(1, targets[:, None]).sum())
    return nats
