"""The verdicts of the demo's two gates on models of many seeds, trained as several kinds of processor would train them.

Run by hand: python -m tests.benchmarks.demo_verdicts. Takes about two hours on two cores; prints the verdict of both
gates and every rule's slack for every variant, and ends with exit code 1 if a verdict is not the one that README shows.

Another processor rounds otherwise, and thousands of steps make another model of that. Its stand-ins here are the
instructions that torch may use, and the number of threads, among which sums are divided. Every variant is trained,
scored and judged in a process of its own, which this module is also the program of, as both are read when torch loads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from evalsvc.demo import run as demo
from evalsvc.gating.decisions import Question, decide
from evalsvc.gating.policy import load_policy
from evalsvc.gating.verdict import RuleOutcome
from evalsvc.store.store import Store
from tests.benchmarks.show import machine

CORES = 2
POLICY = Path("suites/policies/demo.yaml")
EXPECTED = {"cpt-replay@600": "pass", "full@1200": "fail"}
"""What README shows."""
ADAPTED = tuple(training for training in demo.ADAPTED if training.name in {arm.split("@")[0] for arm in EXPECTED})
PROCESSORS = {
    # The oldest x86: no vector instructions beyond SSE in torch's own kernels, nor in the libraries under it.
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
}
NEEDED = {"avx2": "avx2", "avx512": "avx512f"}
"""Flag of /proc/cpuinfo without which such a variant would die of an illegal instruction."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How a set of models is trained."""

    processor: str
    threads: int
    seed: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a variant.

    Attributes:
        weights: Digest of the base, which tells variants that round alike.
        verdicts: Of each arm's gate.
        slack: Of each arm's rules: how far the bound is on the verdict's side of the threshold, in half widths.
    """

    variant: Variant
    weights: str
    seconds: float
    verdicts: dict[str, str]
    slack: dict[str, dict[str, float]]


def main() -> int:
    """Judge all variants and print them; 1 if a verdict is not README's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), metavar="SEED")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4], metavar="THREADS")
    parser.add_argument("--json", type=Path, help="keep what came out in this file, line by line")
    parser.add_argument("--train", nargs=3, help=argparse.SUPPRESS)  # this module as a variant's program
    said = parser.parse_args()
    if said.train:
        folder, seed, threads = said.train
        print(json.dumps(judge(Path(folder), int(seed), int(threads))))
        return 0
    judged = []
    for threads in said.threads:
        for processor in available():
            for result in judge_all([Variant(processor, threads, seed) for seed in said.seeds]):
                judged.append(result)
                print(f"{result.variant}: {result.verdicts}, {result.seconds:.0f} s", file=sys.stderr)
                if said.json:
                    with said.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(result)) + "\n")
    show(judged)
    return int(any(result.verdicts != EXPECTED for result in judged))


def available() -> list[str]:
    """Return the processors that this one can stand in for, and say which it cannot."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.is_file() else []
    lacking = [processor for processor, flag in NEEDED.items() if flag not in flags]
    for processor in lacking:
        print(f"{processor}: not measured, this processor has no such instructions")
    return [processor for processor in PROCESSORS if processor not in lacking]


def judge_all(variants: Sequence[Variant]) -> Iterator[Judged]:
    """Judge variants of equally many threads in processes of their own, as many side by side as there are cores."""
    with ThreadPoolExecutor(max(1, CORES // variants[0].threads)) as pool:
        yield from pool.map(_in_process, variants)


def _in_process(variant: Variant) -> Judged:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.demo_verdicts"]
        command += ["--train", folder, str(variant.seed), str(variant.threads)]
        # Threads that wait for others of their kind must not keep them from a core.
        environment = os.environ | PROCESSORS[variant.processor] | {"OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Judged(variant, made["weights"], time.monotonic() - started, made["verdicts"], made["slack"])


def judge(folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """Train, score and judge in this process."""
    made = demo.run(
        folder,
        workers=0,
        note=lambda text: None,
        progress=lambda done, total: None,
        seed=seed,
        adapted=ADAPTED,
        threads=threads,
    )
    policy, store = load_policy(POLICY), Store(made.store)
    outcomes = {arm: decide(store, Question(checkpoint=arm, policy=policy)).outcome for arm in EXPECTED}
    return {
        "weights": made.base,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "verdicts": {arm: outcome.verdict for arm, outcome in outcomes.items()},
        "slack": {
            arm: {rule.rule: slack(rule, EXPECTED[arm]) for rule in outcome.rules} for arm, outcome in outcomes.items()
        },
    }


def slack(rule: RuleOutcome, verdict: str) -> float:
    """Return how far the bound that decides is on the verdict's side of the threshold, in half widths."""
    threshold = rule.margin if rule.rule.startswith("learning/") else -rule.margin
    distance = rule.low - threshold if verdict == "pass" else threshold - rule.high
    return 2 * distance / (rule.high - rule.low)


def show(judged: Sequence[Judged]) -> None:
    """Print a table for each gate, as Markdown: every variant, and the least slack of each rule."""
    console = Console(width=200, highlight=False, markup=False)
    facts = machine()
    console.print(f"\n{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}")
    console.print(f"{len({result.weights for result in judged})} different bases in {len(judged)} variants")
    for arm, expected in EXPECTED.items():
        rules = list(judged[0].slack[arm])
        decided = sum(result.verdicts[arm] == expected for result in judged)
        table = Table("processor", "threads", "seed", "base", "verdict", *rules, box=box.MARKDOWN)
        for result in judged:
            said, variant = result.slack[arm], result.variant
            start = (variant.processor, str(variant.threads), str(variant.seed), result.weights.split(":")[-1][:8])
            table.add_row(*start, result.verdicts[arm], *(f"{said[rule]:+.1f}" for rule in rules))
        least = (f"{min(result.slack[arm][rule] for result in judged):+.1f}" for rule in rules)
        table.add_row("least", "", "", "", f"{decided} of {len(judged)}", *least)
        console.print(f"\n{arm}, to {expected}: slack of each rule, in half widths of its interval", table)


if __name__ == "__main__":
    sys.exit(main())
