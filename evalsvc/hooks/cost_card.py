"""A callback for transformers' Trainer that writes a cost card, `evalsvc.json`, to every checkpoint."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class CostCard(TrainerCallback):  # type: ignore[misc]
    """Measures what training costs, and writes it to every checkpoint, with the seed.

    Usage: `Trainer(..., callbacks=[CostCard(annotation_cost=1200)])`. With CUDA devices the card has GPU-hours and the
    peak of allocated memory; without one it has CPU-hours (CPU time of the training process, times the number of
    processes) and the peak resident set size of the process. When training is resumed, measuring starts from zero.

    Args:
        fields: Fields of the card that cannot be measured: method, annotation_cost, train_samples, ...
    """

    def __init__(self, **fields: Any) -> None:
        self._fields = fields
        self._started = time.monotonic()
        self._cpu_started = time.process_time()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clocks."""
        self._started = time.monotonic()
        self._cpu_started = time.process_time()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any) -> None:
        """Write the card, from the main process only."""
        if not state.is_world_process_zero:
            return
        card = {"seed": args.seed, **self._fields}
        if torch.cuda.is_available() and not args.use_cpu:
            devices = args.world_size * max(1, args.n_gpu)
            card["gpu_hours"] = (time.monotonic() - self._started) * devices / 3600
            card["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        else:
            card["cpu_hours"] = (time.process_time() - self._cpu_started) * args.world_size / 3600
            unit = 1 if sys.platform == "darwin" else 1024  # bytes per unit of ru_maxrss
            card["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
        model = objects.get("model")
        if model is not None and not hasattr(model, "peft_config"):  # for an adapter it is read from its files
            sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
            card["trainable_share"] = sum(n for n, trains in sizes if trains) / sum(n for n, _ in sizes)
        if state.num_input_tokens_seen:
            card["train_tokens"] = int(state.num_input_tokens_seen)
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            (folder / "evalsvc.json").write_text(json.dumps(card), encoding="utf-8")
