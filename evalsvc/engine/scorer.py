"""What an executor runs: a shard in, its result out. Knows no task."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import torch

from evalsvc.engine import plain
from evalsvc.engine.encoding import Encoder, Prompt, RequestError, Scored
from evalsvc.engine.models import Resident, silence
from evalsvc.records import Failure, Kind, Request, Response, Shard, ShardResult


class Scorer:
    """Scores shards, keeping the last base in memory."""

    def __init__(self, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        silence()
        self._resident: Resident | None = None
        self._served: tuple[str, str] | None = None

    def score(self, shard: Shard) -> ShardResult:
        """Answer every request of a shard, or say why not.

        Raises:
            CheckpointError: The shard's checkpoint cannot be loaded.
        """
        started = time.monotonic()
        numerics = shard.arm.numerics
        if self._resident is None or self._served != (numerics.device, numerics.dtype):
            self._resident = Resident(numerics.device, numerics.dtype)
            self._served = (numerics.device, numerics.dtype)
        model, encoder = self._resident.hold(shard.arm.checkpoint)
        responses: list[Response] = []
        failures: list[Failure] = []
        for answer in _answers(model, encoder, shard.requests):
            (responses if isinstance(answer, Response) else failures).append(answer)  # type: ignore[arg-type]
        return ShardResult(
            shard, tuple(responses), tuple(failures), worker=str(os.getpid()), seconds=time.monotonic() - started
        )


def _answers(model: torch.nn.Module, encoder: Encoder, requests: Sequence[Request]) -> list[Response | Failure]:
    by_kind: dict[Kind, list[Request]] = {}
    for request in requests:
        by_kind.setdefault(request.kind, []).append(request)
    answers: list[Response | Failure] = []
    if chosen := by_kind.get("loglikelihood"):
        answers += _loglikelihood(model, encoder, chosen)
    if chosen := by_kind.get("loglikelihood_rolling"):
        answers += _rolling(model, encoder, chosen)
    if chosen := by_kind.get("generate_until"):
        answers += _generate(model, encoder, chosen)
    return answers


def _loglikelihood(model: torch.nn.Module, encoder: Encoder, requests: list[Request]) -> list[Response | Failure]:
    encoded = encoder.loglikelihood(requests)
    scored = iter(plain.loglikelihoods(model, [item for item in encoded if isinstance(item, Scored)]))
    answers: list[Response | Failure] = []
    for request, item in zip(requests, encoded, strict=True):
        if isinstance(item, RequestError):
            answers.append(Failure(request.digest, str(item)))
        else:
            value, greedy = next(scored)
            answers.append(Response(request.digest, value, greedy, None, len(item.targets), item.truncated))
    return answers


def _rolling(model: torch.nn.Module, encoder: Encoder, requests: list[Request]) -> list[Response | Failure]:
    windows = [encoder.rolling(request) for request in requests]
    scored = iter(plain.loglikelihoods(model, [window for same_text in windows for window in same_text]))
    answers: list[Response | Failure] = []
    for request, same_text in zip(requests, windows, strict=True):
        total = sum(next(scored)[0] for _ in same_text)
        answers.append(Response(request.digest, total, tokens=sum(len(window.targets) for window in same_text)))
    return answers


def _generate(model: torch.nn.Module, encoder: Encoder, requests: list[Request]) -> list[Response | Failure]:
    encoded = [(request, encoder.prompt(request)) for request in requests]
    prompts = [(item, _seed(request)) for request, item in encoded if isinstance(item, Prompt)]
    texts = plain.generate(model, encoder.tokenizer, prompts)
    answers: list[Response | Failure] = []
    for request, item in encoded:
        if isinstance(item, RequestError):
            answers.append(Failure(request.digest, str(item)))
        else:
            text, count = next(texts)
            answers.append(Response(request.digest, text=text, tokens=count, truncated=item.truncated))
    return answers


def _seed(request: Request) -> int:
    """The random seed of a sampled answer: the request's own, whatever batch or worker it lands in."""
    return int(request.digest[:15], 16)
