"""Stock HFLM and this project's engine, timed in turns in one process; parity, tokens and the floor beside them.

Time is the process's CPU time (wall time beside it), one thread. Loading, attaching and the parity probe are outside on
both sides. HFLM tokenizes while it scores; the engine has a plan, which serves every checkpoint with that tokenizer,
and whose time is kept apart.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig

from evalsvc.engine import trie as tries
from evalsvc.engine.encoding import Encoder, Prompt, Scored, load_encoder
from evalsvc.engine.scorer import Scorer
from evalsvc.engine.sharding import Cut, cut_requests
from evalsvc.records.arms import Arm, Checkpoint, Numerics
from evalsvc.records.plans import Request, Response
from evalsvc.records.shards import Shard
from evalsvc.records.vocabulary import Floats
from tests.benchmarks.workloads import Workload

NUMERICS = Numerics(device="cpu", dtype="float32", torch=torch.__version__, transformers="")
TOLERANCE, RELATIVE = 1e-4, 1e-6
"""Nats, and nats per nat of the log-likelihood: float32 sums over more tokens differ by more."""

BATCHES = (1, 2, 4, 8)

Answers = list[Any]
"""(nats, greedy), nats, or text of every request, as HFLM gives them."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """One timing."""

    cpu: float
    wall: float

    def __add__(self, other: Seconds) -> Seconds:
        """Add a timing of something else."""
        return Seconds(self.cpu + other.cpu, self.wall + other.wall)


class Clock:
    """Times what runs inside `with`."""

    def __enter__(self) -> Clock:
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = Seconds(time.process_time() - self._cpu, time.perf_counter() - self._wall)


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was found on one workload.

    Attributes:
        stock, ours, plan, ratios: One per round; ratios are of CPU time, without the plan.
        whole: The same ratios with the plan's time on the engine's side.
        walls: Ratios of wall time, without the plan.
        tokens: Tokens that HFLM fed to one model, its padding included.
        unique: Tokens of one trie over all requests.
        rows: Tokens that the engine fed: `unique`, and what slices repeat.
        floor: FLOPs of the unique tokens, or 0 for generation.
        fed: FLOPs of HFLM's tokens.
        peak: Best matmul rate beside the rounds, FLOP/s.
        difference: Largest difference in nats; `within` says whether all are inside the tolerance.
        choices, greedy: Shares of documents and requests on which both agree; None where there is no such thing.
        texts: Share of equal texts.
    """

    name: str
    requests: int
    batch: int
    target: float
    stock: list[Seconds] = field(default_factory=list)
    ours: list[Seconds] = field(default_factory=list)
    plan: list[Seconds] = field(default_factory=list)
    loading: dict[str, float] = field(default_factory=dict)
    search: dict[int, float] = field(default_factory=dict)
    tokens: int = 0
    unique: int = 0
    rows: int = 0
    floor: float = 0.0
    fed: float = 0.0
    peak: float = 0.0
    arms: int = 1
    difference: float | None = None
    within: bool = True
    choices: float | None = None
    greedy: float | None = None
    texts: float | None = None
    path: str = ""

    @property
    def ratios(self) -> list[float]:
        return [a.cpu / b.cpu for a, b in zip(self.stock, self.ours, strict=True)]

    @property
    def whole(self) -> list[float]:
        return [a.cpu / (b.cpu + c.cpu) for a, b, c in zip(self.stock, self.ours, self.plan, strict=True)]

    @property
    def walls(self) -> list[float]:
        return [a.wall / b.wall for a, b in zip(self.stock, self.ours, strict=True)]

    @property
    def share(self) -> float | None:
        """Share of the matmul peak, counting only the floor's FLOPs."""
        if not self.floor:
            return None
        return self.floor * self.arms / (float(np.median([s.cpu for s in self.ours])) * self.peak)

    @property
    def agrees(self) -> bool:
        """Whether both sides give the same answers."""
        return self.within and all(value in (None, 1.0) for value in (self.choices, self.greedy, self.texts))


def measure(
    workload: Workload, arms: Sequence[Checkpoint], rounds: int, say: Callable[[str], None], search: bool
) -> Measured:
    """Time a workload on every checkpoint in turns, HFLM first in even rounds."""
    torch.set_num_threads(1)
    encoder = load_encoder(arms[0])
    found = Measured(
        name=workload.name,
        requests=len(workload.requests),
        batch=workload.batch,
        target=workload.target,
        arms=len(arms),
    )
    stock, engine = Stock(workload.batch), Engine()
    if search:
        found.search = _search(stock, workload, arms[0])
        found.batch = stock.batch = min(found.search, key=found.search.__getitem__)
    for number in range(rounds):
        found.peak = max(found.peak, peak())
        with Clock() as planning:
            made = cut_requests(workload.requests, encoder)
        assert not made.refused, made.refused
        found.plan.append(planning.seconds)
        totals = {"stock": Seconds(0, 0), "ours": Seconds(0, 0)}
        for arm in arms:
            answers: dict[str, Answers] = {}
            for side in ("stock", "ours") if number % 2 == 0 else ("ours", "stock"):
                with Clock() as loading:
                    stock.hold(arm) if side == "stock" else engine.hold(arm, made, workload)
                found.loading[side] = found.loading.get(side, 0.0) + loading.seconds.cpu / rounds
                with Clock() as scoring:
                    answers[side] = stock.run(workload) if side == "stock" else engine.run(arm, made, workload)
                totals[side] = totals[side] + scoring.seconds
            _compare(found, workload, answers["stock"], answers["ours"])
        found.stock.append(totals["stock"])
        found.ours.append(totals["ours"])
        say(f"{workload.name}: round {number + 1} of {rounds}: {found.ratios[-1]:.2f}x")
    found.peak = max(found.peak, peak())
    found.path, found.rows = engine.path, made.rows
    _count(found, workload, encoder, stock, arms[0])
    return found


def peak() -> float:
    """Return the best of several 1024^3 float32 matmuls, FLOP/s of one thread."""
    torch.manual_seed(0)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(12):
        with Clock() as clock:
            a @ b
        best = min(best, clock.seconds.cpu)
    return float(2 * 1024**3 / best)


class Stock:
    """lm-eval's Hugging Face model as it comes.

    Attributes:
        fed: (rows, length) of every forward pass of the last run.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.fed: list[tuple[int, int]] = []
        self._held = ""
        self._model: Any = None
        logging.getLogger("lm_eval").setLevel(logging.ERROR)

    def hold(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint, unless it is there."""
        if self._held == checkpoint.digest:
            return
        self._model = None
        self._model = HFLM(
            pretrained=checkpoint.resident,
            peft=checkpoint.path if checkpoint.is_adapter else None,
            dtype="float32",
            device="cpu",
            batch_size=self.batch,
        )
        self._model.model.register_forward_pre_hook(self._note, with_kwargs=True)
        self._held = checkpoint.digest

    def _note(self, _module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        rows, length = (arguments[0] if arguments else named["input_ids"]).shape
        self.fed.append((rows, length))

    def run(self, workload: Workload) -> Answers:
        """Answer all requests, in their order."""
        self.fed = []
        self._model.batch_size_per_gpu = self.batch
        asked = [_instance(workload, number) for number in range(len(workload.requests))]
        ask = getattr(self._model, workload.kind)
        answers: Answers = ask(asked, disable_tqdm=True)
        return answers


def _instance(workload: Workload, number: int) -> Any:
    first, *rest = workload.requests[number].arguments
    second = [json.loads(text) if workload.kind == "generate_until" else text for text in rest]
    return Instance(request_type=workload.kind, doc={}, arguments=(first, *second), idx=number)


class Engine:
    """The engine, as executors use it."""

    def __init__(self) -> None:
        self.path = ""
        self._scorer = Scorer()

    def hold(self, checkpoint: Checkpoint, made: Cut, workload: Workload) -> None:
        """Load a checkpoint and let the probe decide, by one small request."""
        request = Request.of("loglikelihood", ("one", " two"))
        small = cut_requests([request], load_encoder(checkpoint))
        self._scorer.score(
            Shard(key="small", arm=Arm(checkpoint, NUMERICS), requests=(request.digest,), work=small.slices[0].work)
        )

    def run(self, checkpoint: Checkpoint, made: Cut, workload: Workload) -> Answers:
        """Answer all requests, in their order."""
        found: dict[str, Response] = {}
        for number, part in enumerate(made.slices):
            shard = Shard(key=str(number), arm=Arm(checkpoint, NUMERICS), requests=made.digests(part), work=part.work)
            result = self._scorer.score(shard)
            assert not result.failures
            self.path = result.path
            found |= {response.request: response for response in result.responses}
        return [_answer(found[request.digest]) for request in workload.requests]


def _answer(response: Response) -> Any:
    if response.text is not None:
        return response.text
    return response.loglikelihood if response.greedy is None else (response.loglikelihood, response.greedy)


# -------------------------------------------------------------------------------------------------------------- parity


def _compare(found: Measured, workload: Workload, stock: Answers, ours: Answers) -> None:
    """Keep the worst agreement of all rounds and checkpoints."""
    if workload.kind == "generate_until":
        equal = float(np.mean([a == b for a, b in zip(stock, ours, strict=True)]))
        found.texts = min(equal, 1.0 if found.texts is None else found.texts)
        return
    a, b = _nats(stock), _nats(ours)
    difference = np.abs(a - b)
    found.difference = max(float(difference.max()), found.difference or 0.0)
    found.within = found.within and bool((difference <= TOLERANCE + RELATIVE * np.abs(a)).all())
    if workload.kind == "loglikelihood":
        hits = float(np.mean([p[1] == q[1] for p, q in zip(stock, ours, strict=True)]))
        found.greedy = min(hits, 1.0 if found.greedy is None else found.greedy)
        several = [list(numbers) for numbers in workload.documents if len(numbers) > 1]
        if several:
            same = float(np.mean([a[numbers].argmax() == b[numbers].argmax() for numbers in several]))
            found.choices = min(same, 1.0 if found.choices is None else found.choices)


def _nats(answers: Answers) -> Floats:
    return np.array([answer[0] if isinstance(answer, tuple) else answer for answer in answers], np.float64)


# --------------------------------------------------------------------------------------------------------------- FLOPs


def _count(found: Measured, workload: Workload, encoder: Encoder, stock: Stock, base: Checkpoint) -> None:
    """Note tokens and FLOPs: two per weight and token, exact attention, the output head.

    HFLM's head runs at every position, the floor's at scored ones. Adapters' own FLOPs are not counted: they can be
    merged.
    """
    config = AutoConfig.from_pretrained(base.path)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * hidden**2 + 3 * hidden * config.intermediate_size)  # as many key-value heads as heads
    head = hidden * config.vocab_size

    def flops(tokens: int, seen: int, scored: int) -> int:
        return 2 * int(weights * tokens + 2 * layers * hidden * seen + head * scored)

    sequences = _sequences(workload, encoder)
    trie, rows = tries.build([s.tokens for s in sequences], [len(s.targets) for s in sequences])
    found.unique = trie.rows
    if workload.kind == "generate_until":
        found.tokens = sum(rows * length for rows, length in stock.fed if length > 1)
        return
    found.tokens = sum(rows * length for rows, length in stock.fed)
    found.floor = flops(trie.rows, int((tries.positions(trie) + 1).sum()), len(np.unique(np.concatenate(rows))))
    found.fed = flops(found.tokens, sum(n * length * (length + 1) // 2 for n, length in stock.fed), found.tokens)


def _sequences(workload: Workload, encoder: Encoder) -> list[Scored]:
    if workload.kind == "generate_until":
        prompts = encoder.prompts(workload.requests)
        return [Scored(prompt.tokens, prompt.tokens[-1:]) for prompt in prompts if isinstance(prompt, Prompt)]
    if workload.kind == "loglikelihood_rolling":
        texts = encoder.rolling(workload.requests)
        return [window for windows in texts if isinstance(windows, list) for window in windows]
    return [item for item in encoder.loglikelihood(workload.requests) if isinstance(item, Scored)]


def _search(stock: Stock, workload: Workload, base: Checkpoint) -> dict[int, float]:
    """Return HFLM's CPU seconds by batch size, the better of two runs."""
    stock.hold(base)
    found: dict[int, float] = {}
    for batch in BATCHES * 2:
        stock.batch = batch
        with Clock() as clock:
            stock.run(workload)
        found[batch] = min(clock.seconds.cpu, found.get(batch, float("inf")))
    return found
