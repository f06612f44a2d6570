"""The callback's card is what checkpoints.costs reads."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from evalsvc.checkpoints.costs import read_card
from evalsvc.hooks.cost_card import CostCard
from evalsvc.records.arms import Cost


def test_a_card_has_what_was_declared_and_what_was_counted(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], seed=7)
    state = TrainerState(global_step=20, num_input_tokens_seen=4096, is_world_process_zero=True)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))  # 8 parameters, then 6
    model[0].requires_grad_(False)
    (tmp_path / "checkpoint-20").mkdir()
    card = CostCard(method="lora", annotation_cost=12.5)
    before = time.process_time()
    card.on_train_begin(arguments, state, TrainerControl())
    started = time.process_time()
    while time.process_time() < started + 0.2:  # training
        pass
    ended = time.process_time()
    card.on_save(arguments, state, TrainerControl(), model=model)
    after = time.process_time()
    written = read_card(tmp_path / "checkpoint-20")
    cost = written.cost
    assert (written.method, written.seed) == ("lora", 7)
    assert cost.cpu_hours is not None
    assert ended - started <= cost.cpu_hours * 3600 <= after - before
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert cost.peak_memory_gb == pytest.approx(int(status["VmHWM"].split()[0]) * 1024 / 1e9, rel=0.05)
    declared_and_counted = replace(cost, cpu_hours=None, peak_memory_gb=None)
    assert declared_and_counted == Cost(annotation_cost=12.5, trainable_share=6 / 14, train_tokens=4096)


def test_of_several_processes_only_the_first_writes(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    (tmp_path / "checkpoint-20").mkdir()
    state = TrainerState(global_step=20, is_world_process_zero=False)
    CostCard().on_save(arguments, state, TrainerControl())
    assert list((tmp_path / "checkpoint-20").iterdir()) == []
