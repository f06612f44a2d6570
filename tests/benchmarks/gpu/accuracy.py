"""Are the numbers right on this device? Parity with float64, bf16 beside the harness's, memory, quantised weights."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evalsvc.engine import likelihood, parity
from evalsvc.engine.attention import NAME
from evalsvc.engine.packs import BLOCK_ROWS
from evalsvc.engine.quantised import bitsandbytes
from evalsvc.engine.resident import load_full
from evalsvc.errors import UsageError
from evalsvc.records.shards import Likelihoods
from evalsvc.records.vocabulary import Floats, Quantisation
from tests.benchmarks.gpu import shapes
from tests.benchmarks.gpu.meters import (
    MANY,
    Clock,
    free_memory,
    limit_graphs,
    peak_gb,
    synchronize,
    watch_graphs,
)
from tests.benchmarks.gpu.record import Record
from tests.benchmarks.gpu.shapes import ARCHITECTURES, Scale

PACK_ROWS = 1024
"""Rows per forward pass where trunks of earlier packs are to be attended to."""

QUANTISATIONS: tuple[Quantisation, ...] = ("int8", "nf4", "bnb-int8", "bnb-nf4")


def differences(found: Floats, expected: Floats) -> dict[str, float]:
    """Return how far log-likelihoods are from each other, in nats."""
    gap = np.abs(found - expected)
    return {
        "rms": float(np.sqrt((gap**2).mean())),
        "max": float(gap.max()),
        "mean_size": float(np.abs(expected).mean()),
        "not_finite": int((~np.isfinite(found)).sum()),
    }


def measure_parity(record: Record, scale: Scale) -> None:
    """Score packs of four architectures in float32 without TF32, against float64 on the CPU.

    Transformers' norms and rotations stay float32 also in a float64 model: the reference is good to about 1e-5 nats.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for name in ARCHITECTURES:
        limit_graphs(MANY)
        record.attempt(name, lambda name=name: parity_of(name, scale))  # type: ignore[misc]


def parity_of(name: str, scale: Scale) -> dict[str, Any]:
    """Return how far the engine's and transformers' float32 log-likelihoods are from float64's, in nats."""
    model = shapes.build(shapes.architecture(name, scale), scale.device, torch.float32)
    exact = copy.deepcopy(model).to("cpu", torch.float64)
    exact.set_attn_implementation(shapes.own_attention(name))
    sizes = ((3, 60, 3, 8), (6, 200, 4, 12), (2, 700, 6, 40)) if not scale.small else ((2, 60, 3, 12),)
    result: dict[str, Any] = {}
    with watch_graphs() as graphs:
        found, plain, expected, seconds = [], [], [], []
        for seed, size in enumerate(sizes):
            work = shapes.random_shard(seed, *size)
            expected.append(shapes.plain_loglikelihoods(exact, work, 8, torch.float64))
            model.set_attn_implementation(shapes.own_attention(name))
            plain.append(shapes.plain_loglikelihoods(model, work, 8, torch.float32))
            model.set_attn_implementation(NAME)
            rows = PACK_ROWS if not scale.small else 64
            with Clock() as clock:
                found.append(likelihood.score(model, work, rows, block=min(rows, BLOCK_ROWS)).loglikelihood)
            seconds.append(clock.wall)
    ours, theirs, truth = (np.concatenate(values) for values in (found, plain, expected))
    result |= {"ours": differences(ours, truth), "plain": differences(theirs, truth), "seconds": seconds}
    return {**result, **graphs.as_dict(), "requests": len(truth)}


def measure_graphs(record: Record, scale: Scale) -> None:
    """Score shards of four architectures one after another in one process, as a service does, in bf16 on a GPU.

    Counts the compiled graphs of each, the parity probe's first; the compiler is not reset in between, so its limit
    counts for all of them. The log-likelihoods are held against transformers' own by padded batches, and both against
    the same weights in float64.
    """
    record.note(limit=torch._dynamo.config.recompile_limit)
    total = 0
    for name in ARCHITECTURES:
        result = record.attempt(name, lambda name=name: _graphs_of(name, scale))  # type: ignore[misc]
        total += result["graphs"] if result else 0
    record.note(graphs=total)


def _graphs_of(name: str, scale: Scale) -> dict[str, Any]:
    dtype = torch.bfloat16
    model = shapes.build(shapes.architecture(name, scale), scale.device, dtype)
    low, high = scale.shard_rows
    works = [
        shapes.shard_of_rows(seed, low + (high - low) * seed // max(1, scale.shards - 1))
        for seed in range(scale.shards)
    ]
    seconds, counts, scores = [], [], []
    free_memory()
    with watch_graphs() as graphs:
        with watch_graphs() as here, Clock() as clock:
            probed = parity.examine(model, shapes.own_attention(name))
        probe = {"trie": probed.trie, "reason": probed.reason, "seconds": clock.wall, **here.as_dict()}
        for message in here.messages:
            graphs.take(message)
        model.set_attn_implementation(NAME)
        for work in works:
            with watch_graphs() as here, Clock() as clock:
                scores.append(likelihood.score(model, work, likelihood.pack_rows(model)).loglikelihood)
            seconds.append(clock.wall)
            counts.append(here.compiled)
            for message in here.messages:
                graphs.take(message)
    peak = peak_gb()
    # The smallest shard, held against float64 and against padded batches.
    exact = copy.deepcopy(model).to("cpu", torch.float64)
    exact.set_attn_implementation(shapes.own_attention(name))
    model.set_attn_implementation(shapes.own_attention(name))
    check = shapes.random_shard(9, 4, 160, 5, 10) if not scale.small else works[0]
    truth = shapes.plain_loglikelihoods(exact, check, 8, torch.float64)
    plain = shapes.plain_loglikelihoods(model, check, 16, torch.float32)
    largest = shapes.plain_loglikelihoods(model, works[0], 16, torch.float32)
    model.set_attn_implementation(NAME)
    ours = likelihood.score(model, check, likelihood.pack_rows(model)).loglikelihood
    return {
        **graphs.as_dict(),
        "probe": probe,
        "rows": [work.trie.rows for work in works],
        "seconds": seconds,
        "graphs_by_shard": counts,
        "peak_gb": peak,
        "ours_from_float64": differences(ours, truth),
        "plain_from_float64": differences(plain, truth),
        "ours_from_plain": differences(ours, plain),
        "first_shard_from_plain": differences(scores[0], largest),
    }


def measure_determinism(record: Record, scale: Scale) -> None:
    """Score a shard of the 1B shape twice, then again with memory filled up to a few values of what is left."""
    limit_graphs(MANY)
    model = shapes.build(shapes.llama_1b(scale), scale.device, scale.dtype)
    work = shapes.shard_of_rows(2, 15_000 if not scale.small else 400)
    model.set_attn_implementation(NAME)

    def score() -> tuple[Floats, int, float]:
        free_memory()
        rows = likelihood.pack_rows(model)
        with Clock() as clock:
            values = likelihood.score(model, work, rows).loglikelihood
        return values, rows, clock.wall

    first, rows, seconds = score()
    again, _, _ = score()
    record.note(rows=work.trie.rows, pack_rows=rows, seconds=seconds, again=_against(again, first))
    if not torch.cuda.is_available():
        values = likelihood.score(model, work, max(256, rows // 8)).loglikelihood
        record.note(smaller_packs=_against(values, first), note="no GPU memory to fill: smaller packs instead")
        return
    for free_gb in scale.free_gb:
        record.attempt(f"free_{free_gb}_gb", lambda free_gb=free_gb: _filled(free_gb, score, first))  # type: ignore[misc]
    values, rows, _ = score()
    record.note(freed_again={"pack_rows": rows, **_against(values, first)})


def _filled(free_gb: float, score: Any, first: Floats) -> dict[str, Any]:
    free_memory()
    there = torch.cuda.mem_get_info()[0]
    filling = [torch.empty(max(0, int(there - free_gb * 1e9)), dtype=torch.uint8, device="cuda")]
    try:
        synchronize()
        values, rows, seconds = score()
    finally:
        filling.clear()
        free_memory()
    return {"pack_rows": rows, "seconds": seconds, **_against(values, first)}


def _against(values: Floats, first: Floats) -> dict[str, Any]:
    return {"bit_equal": bool((values == first).all()), **differences(values, first)}


def measure_quantised(record: Record, scale: Scale) -> None:
    """Score a shard by a saved model as int8 and nf4, quantised by evalsvc and by bitsandbytes."""
    limit_graphs(MANY)
    config = shapes.architecture("llama", scale)
    if not scale.small:
        config.hidden_size, config.intermediate_size, config.num_attention_heads, config.num_key_value_heads = (
            *(1024, 3072, 16),
            4,
        )
        config.head_dim = 64
    work = shapes.shard_of_rows(3, 6000 if not scale.small else 200)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes.build(config, scale.device, torch.bfloat16).save_pretrained(folder)
        shapes.tokenizer().save_pretrained(folder)
        scores: dict[str, Floats] = {}
        record.attempt("unquantised", lambda: _quantised(folder, scale, work, None, scores))
        for kind in QUANTISATIONS:
            if kind.startswith("bnb"):
                try:
                    bitsandbytes(kind, torch.device(scale.device), torch.bfloat16)
                except UsageError as error:
                    record.note(**{kind: {"skipped": str(error)}})
                    continue
            record.attempt(kind, lambda kind=kind: _quantised(folder, scale, work, kind, scores))  # type: ignore[misc]


def _quantised(
    folder: Path, scale: Scale, work: Likelihoods, kind: Quantisation | None, scores: dict[str, Floats]
) -> dict[str, Any]:
    free_memory()
    device = torch.device(scale.device)
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    with Clock() as loading:
        model = load_full(str(folder), device, torch.bfloat16, kind)
    held = (torch.cuda.memory_allocated() - before) / 1e9 if device.type == "cuda" else None
    probed = parity.examine(model, "sdpa")
    model.set_attn_implementation(NAME)
    likelihood.score(model, work, likelihood.pack_rows(model))
    with Clock() as clock:
        values = likelihood.score(model, work, likelihood.pack_rows(model)).loglikelihood
    scores[kind or ""] = values
    result: dict[str, Any] = {
        "loading": loading.wall,
        "held_gb": held,
        "trie": probed.trie,
        "reason": probed.reason,
        "seconds": clock.wall,
    }
    if kind and "" in scores:
        result["from_unquantised"] = differences(values, scores[""])
    own = (kind or "").removeprefix("bnb-")
    if kind and own != kind and own in scores:
        result[f"from_{own}"] = differences(values, scores[own])
    return result
