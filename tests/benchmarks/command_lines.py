"""A base and adapters of it on lm-eval's own tasks: `lm_eval` in a loop, and `evalsvc submit`, in turns.

    HF_HOME=CACHE python -m tests.benchmarks.command_lines MODEL --tasks copa,arc_easy,piqa --limit 50 --shots 0

Both are started as users start them, in float32 on the CPU, and are timed whole, with imports and planning.
Every number of every arm is compared. LoRA adapters are made for it, unless some are given. By hand, with a real model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from evalsvc.store.database import Database
from evalsvc.store.store import Store
from tests.benchmarks.measure import Seconds

BIN = Path(sys.executable).parent
Values = dict[tuple[str, str, str], float]
"""Results by arm, task, and "metric,filter"."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON object: times of every round, their ratios, and the largest differences of results."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        adapters = options.adapter or make_adapters(options.model, folder / "adapters", options.adapters)
        suite = write_suite(folder, options)
        rounds = []
        values: dict[str, Values] = {}
        samples: dict[str, list[int]] = {}
        for number in range(options.rounds):
            db = folder / f"{number}.duckdb"
            seconds = {"evalsvc": submit(options, adapters, suite, db)}
            samples = samples or read_samples(db)
            seconds["lm_eval"], values["lm_eval"] = loop(options, adapters, samples, folder / f"lm_eval-{number}")
            values["evalsvc"] = read_results(db, values["lm_eval"])
            rounds.append(seconds)
        answer = {
            "tasks": {task: len(documents) for task, documents in samples.items()},
            "arms": 1 + len(adapters),
            "rounds": [{name: (t.wall, t.cpu) for name, t in seconds.items()} for seconds in rounds],
            "wall ratio": [r["lm_eval"].wall / r["evalsvc"].wall for r in rounds],
            "cpu ratio": [r["lm_eval"].cpu / r["evalsvc"].cpu for r in rounds],
            "compared": len(values["lm_eval"]),
            "differences": list_differences(values["lm_eval"], values["evalsvc"], options.tolerance),
        }
    print(json.dumps(answer, indent=1))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--adapter", type=Path, action="append", help="a LoRA adapter; repeatable")
    parser.add_argument("--adapters", type=int, default=3, help="how many to make, if none is given")
    parser.add_argument("--tasks", default="copa,arc_easy,piqa,lambada_openai,openbookqa")
    parser.add_argument("--limit", type=int, help="items per task, drawn at random; all without it")
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--template", action="store_true", help="the model's chat template")
    parser.add_argument("--batch-size", default="8", help="of lm_eval")
    parser.add_argument("--workers", type=int, default=0, help="of evalsvc submit")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative; larger differences are listed")
    options = parser.parse_args(arguments)
    if options.shots and options.limit:
        # Few-shot examples come from one random stream over the documents that are built: lm_eval builds only those of
        # --samples, evalsvc takes the examples that each document has in the whole task.
        parser.error("--shots and --limit give the two other few-shot examples; leave one out")
    return options


def make_adapters(model: Path, folder: Path, count: int) -> list[Path]:
    """Make LoRA adapters (rank 8, attention) whose weights are drawn, large enough to change answers."""
    adapters = []
    for seed in range(count):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        adapted = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        adapters.append(folder / f"lora{seed}")
        adapted.save_pretrained(adapters[-1])
    return adapters


def write_suite(folder: Path, options: argparse.Namespace) -> Path:
    """Write the tasks as a suite file."""
    defaults = {"shots": options.shots} | ({"limit": options.limit} if options.limit else {})
    suite: dict[str, Any] = {
        "name": "stock",
        "role": "general",
        "tasks": options.tasks.split(","),
        "defaults": defaults,
    }
    if options.template:
        suite["chat_template"] = "on"
    path = folder / "stock.yaml"
    path.write_text(yaml.safe_dump(suite))
    return path


def submit(options: argparse.Namespace, adapters: Sequence[Path], suite: Path, db: Path) -> Seconds:
    """Submit every adapter, as a user does; the base is scored with the first."""
    total = Seconds(cpu=0, wall=0)
    for adapter in adapters:
        command = [BIN / "evalsvc", "submit", adapter, "--base", options.model, "--suite", suite, "--db", db]
        total += run([*command, "--workers", options.workers, "--dtype", "float32", "--device", "cpu", "--base-anyway"])
    return total


def loop(
    options: argparse.Namespace, adapters: Sequence[Path], samples: dict[str, list[int]], folder: Path
) -> tuple[Seconds, Values]:
    """Run `lm_eval` for every arm on the same documents; return its time and its results."""
    total = Seconds(cpu=0, wall=0)
    values: Values = {}
    for name, adapter in [("base", None), *((path.name, path) for path in adapters)]:
        model = f"pretrained={options.model},dtype=float32" + (f",peft={adapter}" if adapter else "")
        command = [BIN / "lm_eval", "run", "--model", "hf", "--model_args", model, "--tasks", options.tasks]
        command += ["--num_fewshot", options.shots, "--device", "cpu", "--batch_size", options.batch_size]
        command += ["--samples", json.dumps(samples), "--output_path", folder / name]
        if options.template:
            command.append("--apply_chat_template")
        total += run(command)
        (file,) = (folder / name).rglob("results_*.json")
        for task, metrics in json.loads(file.read_text())["results"].items():
            numbers = {key: value for key, value in metrics.items() if "," in key and "_stderr" not in key}
            values |= {(name, task, key): value for key, value in numbers.items()}
    return total, values


def run(command: Sequence[Any]) -> Seconds:
    """Run a command, and fail if it fails."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Seconds(cpu=cpu, wall=time.perf_counter() - clock)


def read_samples(db: Path) -> dict[str, list[int]]:
    """Return the documents of every task, as evalsvc drew them."""
    with Database(db).read() as connection:
        rows = connection.execute(
            "SELECT m.task, list(s.doc_id ORDER BY s.doc_id) FROM plan_samples m "
            "JOIN samples s USING (sample) GROUP BY m.task"
        ).fetchall()
    return dict(rows)


def read_results(db: Path, expected: Values) -> Values:
    """Return evalsvc's results under the names that `lm_eval` gives its own."""
    arms = {arm for arm, _, _ in expected}
    return {
        (result.arm.checkpoint.label if result.arm.checkpoint.label in arms else "base", result.task, key): result.value
        for result in Store(db).results()
        for key in (f"{result.metric},{result.filter}",)
    }


def list_differences(expected: Values, values: Values, tolerance: float) -> list[Any]:
    """Return what is missing or differs by more than a relative tolerance."""
    differences = []
    for key, value in expected.items():
        ours = values.get(key)
        if ours is None or abs(ours - value) > tolerance * max(abs(value), 1e-12):
            differences.append([*key, value, ours])
    return differences


if __name__ == "__main__":
    main()
