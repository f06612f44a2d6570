"""How fast is it on this device? Against the harness, against `generate`, and against the device's own peak."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from evalsvc.engine import generation, likelihood, parity
from evalsvc.engine import trie as tries
from evalsvc.engine.attention import NAME
from evalsvc.engine.sharding import Cut, cut_requests
from evalsvc.engine.unpacked import GenerationSettings
from evalsvc.records.digests import canonical
from evalsvc.records.plans import Request
from evalsvc.records.shards import Likelihoods, Prompts
from evalsvc.records.vocabulary import Floats
from tests.benchmarks import workloads
from tests.benchmarks.gpu import shapes
from tests.benchmarks.gpu.accuracy import differences
from tests.benchmarks.gpu.harness import Harness
from tests.benchmarks.gpu.meters import (
    MANY,
    PROCESS_LIMIT,
    Clock,
    busy_share,
    free_memory,
    limit_graphs,
    peak_gb,
    watch_graphs,
    watch_masks,
)
from tests.benchmarks.gpu.record import Record
from tests.benchmarks.gpu.shapes import Scale

PACKAGES = ("torch", "triton", "transformers", "tokenizers", "peft", "accelerate", "lm_eval", "bitsandbytes", "numpy")
SHOTS = 10
ROUNDS = 2
BUSY = 256
"""Requests of the harness that are profiled."""


def measure_environment(record: Record, scale: Scale) -> None:
    """Note the machine, and its peak at matrix products and copies."""
    record.note(packages={name: _version(name) for name in PACKAGES}, python=platform.python_version())
    record.note(cores=os.cpu_count(), threads=torch.get_num_threads(), device=scale.device)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        record.note(gpu=properties.name, memory_gb=properties.total_memory / 1e9, cuda=torch.version.cuda)
        record.note(free_gb=torch.cuda.mem_get_info()[0] / 1e9)
        record.attempt("nvidia_smi", _nvidia_smi)
    n = scale.matmul
    record.attempt("matmul_tflops", lambda: _matmul(scale.dtype, n, scale.device))
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = False
        record.attempt("matmul_fp32_tflops", lambda: _matmul(torch.float32, n // 2, scale.device))
        record.attempt("copy_tb_per_second", lambda: _copy(scale.device))
    record.attempt("launch_microseconds", lambda: _launch(scale.device))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _nvidia_smi() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "not there"
    query = "--query-gpu=name,driver_version,clocks.sm,power.draw,utilization.gpu"
    return subprocess.run([tool, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=20).stdout


def _best(run: Callable[[], object], rounds: int = 8) -> float:
    seconds = []
    for _ in range(rounds):
        with Clock() as clock:
            run()
        seconds.append(clock.wall)
    return max(1e-6, min(seconds))


def _matmul(dtype: torch.dtype, n: int, device: str) -> float:
    a, b = (torch.randn(n, n, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    return 2 * n**3 / _best(lambda: a @ b) / 1e12


def _copy(device: str) -> float:
    source = torch.zeros(2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / _best(lambda: target.copy_(source)) / 1e12


def _launch(device: str) -> float:
    small = torch.zeros(8, device=device)

    def run() -> None:
        for _ in range(1000):
            small.add_(1)

    return _best(run, 3) / 1000 * 1e6


def measure_masks(record: Record, scale: Scale) -> None:
    """Time the block masks of large shards, and the shards, on a model of one layer and on one with sliding windows."""
    limit_graphs(MANY)
    for name in ("llama", "gemma2"):
        config = shapes.architecture(name, scale)
        config.num_hidden_layers = 2
        if name == "gemma2":
            config.layer_types = ["sliding_attention", "full_attention"]
        record.attempt(name, lambda config=config: _masks(config, scale))  # type: ignore[misc]


def _masks(config: Any, scale: Scale) -> dict[str, Any]:
    model = shapes.build(config, scale.device, scale.dtype)
    model.set_attn_implementation(NAME)
    result: dict[str, Any] = {}
    # One pack, and several with trunks of earlier packs: then there are more keys than rows.
    for name, rows in (("one_pack", scale.mask_rows), ("several_packs", scale.mask_rows * 9 // 4)):
        work = shapes.shard_of_rows(3, rows)
        likelihood.score(model, work, scale.mask_rows)
        free_memory()
        with Clock() as whole:
            likelihood.score(model, work, scale.mask_rows)
        peak = peak_gb()
        with watch_masks() as calls:
            likelihood.score(model, work, scale.mask_rows)
        seconds = sum(call.seconds for call in calls)
        result[name] = {
            "rows": work.trie.rows,
            "shard_seconds": whole.wall,
            "shard_peak_gb": peak,
            "mask_seconds": seconds,
            "masks": [asdict(call) for call in calls],
        }
    return result


# -------------------------------------------------------------------------------------------------- against the harness


@cache
def _one_billion(scale: Scale) -> Any:
    return shapes.build(shapes.llama_1b(scale), scale.device, scale.dtype)


def measure_mmlu(record: Record, scale: Scale) -> None:
    """Score multiple-choice questions with five fixed shots on the 1B shape: answers of one token, shared prompts."""
    documents = [
        pairs for subject in range(scale.subjects) for pairs in workloads.mmlu(shapes.texts(), scale.documents, subject)
    ]
    _compare(record, scale, workloads.choose("mmlu", documents, 1, 0))


def measure_hellaswag(record: Record, scale: Scale) -> None:
    """Score endings of passages with ten random shots on the 1B shape: a long prompt of its own for every document."""
    documents = workloads.hellaswag(shapes.texts(), scale.documents, fixed=False, shots=SHOTS if not scale.small else 1)
    _compare(record, scale, workloads.choose("hellaswag", documents, 1, 0))


def _compare(record: Record, scale: Scale, workload: workloads.Workload) -> None:
    limit_graphs(MANY)
    model = _one_billion(scale)
    with Clock() as clock:
        encoder = shapes.encoder(model.config)
    with Clock() as planning:
        cut = cut_requests(workload.requests, encoder)
    works = [part.work for part in cut.slices if isinstance(part.work, Likelihoods)]
    record.note(requests=len(workload.requests), documents=len(workload.documents), tokenizer_seconds=clock.wall)
    record.note(plan_seconds=planning.wall, shards=len(works), rows=[work.trie.rows for work in works])
    if workload.name == "mmlu":
        record.attempt("with_torchs_limit", lambda: _score_some(model, works[:3]))
    scores: list[Floats] = []
    record.attempt("engine", lambda: _score_by_engine(record, model, works, scores))
    model.set_attn_implementation("sdpa")
    harness = Harness(model, shapes.tokenizer(), scale.batches)
    record.note(harness=harness.name)
    seconds, theirs = harness.run(record, workload.requests)
    if scores:
        ours = _in_order(cut, scores, workload.requests)
        best = record.values["engine"]["seconds"]
        record.note(
            ratio=seconds / best,
            ratio_with_plan=seconds / (best + planning.wall),
            difference=differences(ours, theirs),
            choices_equal=_equal_choices(workload, ours, theirs),
        )
    record.attempt("theirs_busy", lambda: busy_share(lambda: harness.score(workload.requests[:BUSY])))
    model.set_attn_implementation(NAME)
    record.attempt("engine_busy", lambda: busy_share(lambda: _run(model, works[:3])))
    record.attempt("engine_masks", lambda: _mask_share(model, works[:3]))


def _run(model: Any, works: Sequence[Likelihoods]) -> list[Floats]:
    return [likelihood.score(model, work, likelihood.pack_rows(model)).loglikelihood for work in works]


def _score_some(model: Any, works: Sequence[Likelihoods]) -> dict[str, Any]:
    """Probe and score as a service does: with torch's own limit of graphs, after which attention is not compiled."""
    limit_graphs(PROCESS_LIMIT)
    free_memory()
    try:
        with watch_graphs() as graphs:
            with Clock() as probe:
                probed = parity.examine(model, "sdpa")
            model.set_attn_implementation(NAME)
            with Clock() as cold:
                _run(model, works)
            with Clock() as clock:
                _run(model, works)
    finally:
        limit_graphs(MANY)
    tokens = sum(work.trie.rows for work in works)
    return {
        "trie": probed.trie,
        "reason": probed.reason,
        "probe_seconds": probe.wall,
        "cold_seconds": cold.wall,
        "seconds": clock.wall,
        "tokens": tokens,
        "tokens_per_second": tokens / clock.wall,
        "peak_gb": peak_gb(),
        **graphs.as_dict(),
    }


def _score_by_engine(record: Record, model: Any, works: Sequence[Likelihoods], scores: list[Floats]) -> dict[str, Any]:
    """Score all slices, with as many graphs as that takes; add the log-likelihoods of each to `scores`."""
    model.set_attn_implementation(NAME)
    free_memory()
    with Clock() as cold, watch_graphs() as graphs:
        _run(model, works)
    rounds = []
    for _ in range(ROUNDS):
        with Clock() as clock:
            values = _run(model, works)
        rounds.append(clock)
    scores += values
    best = min(rounds, key=lambda clock: clock.wall)
    tokens = sum(work.trie.rows for work in works)
    tflops = sum(_flops(model, work) for work in works) / best.wall / 1e12
    peak = record.earlier.get("environment", {}).get("matmul_tflops")
    return {
        "cold_seconds": cold.wall,
        "seconds": best.wall,
        "cpu_seconds": best.cpu,
        "pack_rows": likelihood.pack_rows(model),
        "tokens": tokens,
        "tokens_per_second": tokens / best.wall,
        "tflops": tflops,
        "share_of_peak": tflops / peak if isinstance(peak, float) else None,
        "peak_gb": peak_gb(),
        **graphs.as_dict(),
    }


def _in_order(cut: Cut, scores: Sequence[Floats], requests: Sequence[Request]) -> Floats:
    """Return the log-likelihoods of slices in the order of the requests."""
    by_digest = {
        digest: value
        for part, values in zip(cut.slices, scores, strict=True)
        for digest, value in zip(cut.digests(part), values.tolist(), strict=True)
    }
    return np.array([by_digest[request.digest] for request in requests])


def _mask_share(model: Any, works: Sequence[Likelihoods]) -> dict[str, Any]:
    """Return what making block masks takes of a run."""
    with watch_masks() as calls, Clock() as clock:
        _run(model, works)
    seconds = sum(call.seconds for call in calls)
    return {
        "masks": len(calls),
        "seconds": seconds,
        "share": seconds / clock.wall,
        "largest_gb": max((call.gb for call in calls if call.gb is not None), default=None),
    }


def _flops(model: Any, work: Likelihoods) -> float:
    """Return the FLOPs of a shard's unique tokens: of weights, exact attention, and the head at scored rows."""
    config = model.config
    layers: int = sum(weight.numel() for layer in model.get_decoder().layers for weight in layer.parameters())
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    seen = int((tries.positions(work.trie) + 1).sum())
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * size * seen
    head = config.hidden_size * config.vocab_size * len(np.unique(work.rows))
    return 2.0 * float(layers * work.trie.rows + attention + head)


def _equal_choices(workload: workloads.Workload, ours: Floats, theirs: Floats) -> float:
    """Return the share of documents of which both sides choose the same answer."""
    pairs = [list(numbers) for numbers in workload.documents]
    return float(np.mean([ours[numbers].argmax() == theirs[numbers].argmax() for numbers in pairs]))


# ------------------------------------------------------------------------------------------------------ large, answers


def measure_8b(record: Record, scale: Scale) -> None:
    """Score shards of HellaSwag's shape on the 8B shape."""
    limit_graphs(MANY)
    free_memory()
    with Clock() as clock:
        model = shapes.build(shapes.llama_8b(scale), scale.device, scale.dtype)
    record.note(making_seconds=clock.wall, weights_gb=sum(weight.nbytes for weight in model.parameters()) / 1e9)
    documents = workloads.hellaswag(shapes.texts(), 12 if not scale.small else 2, fixed=False, shots=4)
    cut = cut_requests(workloads.choose("8b", documents, 1, 0).requests, shapes.encoder(model.config))
    works = [part.work for part in cut.slices if isinstance(part.work, Likelihoods)][:1]
    model.set_attn_implementation(NAME)
    peak = record.earlier.get("environment", {}).get("matmul_tflops")
    for number, work in enumerate([*works, *works, *works]):
        free_memory()
        rows = likelihood.pack_rows(model)
        with Clock() as clock:
            likelihood.score(model, work, rows)
        tflops = _flops(model, work) / clock.wall / 1e12
        record.note(
            **{
                f"round_{number}": {
                    "rows": work.trie.rows,
                    "pack_rows": rows,
                    "seconds": clock.wall,
                    "tokens_per_second": work.trie.rows / clock.wall,
                    "tflops": tflops,
                    "share_of_peak": tflops / peak if isinstance(peak, float) else None,
                    "peak_gb": peak_gb(),
                }
            }
        )
    record.attempt("busy", lambda: busy_share(lambda: likelihood.score(model, works[0], likelihood.pack_rows(model))))


def measure_generation(record: Record, scale: Scale) -> None:
    """Continue prompts greedily on the 1B shape, beside transformers' `generate` on all of them as one batch."""
    limit_graphs(MANY)
    model = _one_billion(scale)
    kinds = workloads.generation(
        "answers", shapes.texts(), scale.prompts, 0, fixed=True, limit=scale.answer, shots=3
    ).requests
    settings = canonical({"until": [], "max_gen_toks": scale.answer, "do_sample": False})
    requests = [Request.of("generate_until", (request.arguments[0], settings)) for request in kinds]
    encoder = shapes.encoder(model.config)
    with Clock() as planning:
        cut = cut_requests(requests, encoder)
    works = [part.work for part in cut.slices if isinstance(part.work, Prompts)]
    prompts = [work.trie.tokens[tries.path(work.trie, int(end))] for work in works for end in work.ends]
    record.note(
        prompts=len(prompts),
        plan_seconds=planning.wall,
        shards=[len(work.ends) for work in works],
        rows=[work.trie.rows for work in works],
        prompt_tokens=float(np.mean([len(prompt) for prompt in prompts])),
    )
    answers = record.attempt("engine", lambda: _generate_by_engine(model, works, scale))
    model.set_attn_implementation("sdpa")
    expected = record.attempt("transformers", lambda: _generate_by_transformers(model, prompts, scale))
    if answers and expected:
        pairs = list(zip(answers["answers"], expected["answers"], strict=True))
        record.values["engine"].pop("answers")
        record.values["transformers"].pop("answers")
        record.note(
            ratio=expected["seconds"] / answers["seconds"],
            texts_equal=float(np.mean([a == b for a, b in pairs])),
            first_tokens_equal=float(np.mean([a[0] == b[0] for a, b in pairs])),
            answer_tokens=sum(len(a) for a, _ in pairs),
        )
    if works:
        record.attempt("engine_busy", lambda: _busy_generating(model, works[0], scale))


def _answer(model: Any, work: Prompts, limit: int) -> list[list[int]]:
    settings = canonical({"until": [], "max_gen_toks": limit, "do_sample": False})
    wishes = [GenerationSettings.of(settings, shapes.tokenizer())] * len(work.ends)
    seeds = list(range(len(work.ends)))
    return generation.generate(model, shapes.tokenizer(), work, wishes, seeds, likelihood.pack_rows(model))


def _generate_by_engine(model: Any, works: Sequence[Prompts], scale: Scale) -> dict[str, Any]:
    model.set_attn_implementation(NAME)
    with Clock() as cold, watch_graphs() as graphs:
        for work in works:
            _answer(model, work, 2)
    free_memory()
    with Clock() as prefill:
        for work in works:
            _answer(model, work, 1)
    with Clock() as clock:
        answers = [tokens for work in works for tokens in _answer(model, work, scale.answer)]
    return {
        "cold_seconds": cold.wall,
        "first_token_seconds": prefill.wall,
        "seconds": clock.wall,
        "cpu_seconds": clock.cpu,
        "peak_gb": peak_gb(),
        **graphs.as_dict(),
        "answers": answers,
    }


def _generate_by_transformers(model: Any, prompts: Sequence[Any], scale: Scale) -> dict[str, Any]:
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, longest - len(prompt) :] = 1
    tokens, mask = tokens.to(scale.device), mask.to(scale.device)

    def run(limit: int) -> Any:
        return model.generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=limit, do_sample=False, pad_token_id=1
        )[:, longest:]

    run(2)
    free_memory()
    with Clock() as prefill:
        run(1)
    with Clock() as clock:
        answers = run(scale.answer)
    return {
        "first_token_seconds": prefill.wall,
        "seconds": clock.wall,
        "cpu_seconds": clock.cpu,
        "peak_gb": peak_gb(),
        "answers": answers.tolist(),
    }


def _busy_generating(model: Any, work: Prompts, scale: Scale) -> dict[str, Any]:
    model.set_attn_implementation(NAME)
    return busy_share(lambda: _answer(model, work, min(16, scale.answer)))
