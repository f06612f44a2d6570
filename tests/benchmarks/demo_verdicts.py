"""The verdicts of the demo's two gates on models of many seeds, trained as several kinds of processor would train them.

Run by hand: python -m tests.benchmarks.demo_verdicts. Takes an hour on two cores; prints the verdict of both gates
and every rule's slack for every variant, and ends with exit code 1 if a verdict is not the one that README shows.

Another processor rounds otherwise, and thousands of steps make another model of that. Its stand-ins here are the
instructions that torch may use, and the number of threads, among which sums are divided. Numbers of threads after which
the first steps leave the same weights to the last bit train the same models: these are trained once. Every variant is
trained, scored and judged in a process of its own, which this module is also the program of, as torch reads which
instructions to use when it loads.
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
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from evalsvc.demo import run as demo
from evalsvc.engine import training
from evalsvc.gating.decisions import Question, decide
from evalsvc.gating.policy import load_policy
from evalsvc.gating.verdict import RuleOutcome
from evalsvc.store.store import Store
from tests.benchmarks.show import machine

CORES = 2
POLICY = Path("suites/policies/demo.yaml")
EXPECTED = {"cpt-replay@600": "pass", "full@1200": "fail"}
"""What README shows."""
ADAPTED = tuple(training for training in demo.ADAPTED if any(arm.startswith(f"{training.name}@") for arm in EXPECTED))
PROCESSORS = {
    # The oldest x86: no vector instructions beyond SSE in torch's own kernels, nor in the libraries under it.
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
}
FIRST_STEPS = 60
"""Of a base, which have every operation that the others have."""
NEEDED = {"avx2": "avx2", "avx512": "avx512f"}
"""Flag of /proc/cpuinfo without which such a variant would die of an illegal instruction."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How a set of models is trained; `threads` are the numbers of threads that make no difference."""

    processor: str
    threads: tuple[int, ...]
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
    parser.add_argument("--json", type=Path, help="keep the results here; those that are there are not measured again")
    parser.add_argument("--train", nargs=3, help=argparse.SUPPRESS)  # this module as a variant's program
    parser.add_argument("--begin", type=int, help=argparse.SUPPRESS)  # ditto: only the first steps
    options = parser.parse_args()
    if options.begin:
        print(json.dumps(begin(options.begin)))
        return 0
    if options.train:
        folder, seed, threads = options.train
        print(json.dumps(judge(Path(folder), int(seed), int(threads))))
        return 0
    judged = {result.variant: result for result in _kept(options.json)}
    alike = [(processor, same) for processor in available() for same in group(processor, options.threads)]
    variants = [Variant(processor, same, seed) for processor, same in alike for seed in options.seeds]
    missing = [variant for variant in variants if variant not in judged]
    for at_once in (True, False):
        some = [variant for variant in missing if (variant.threads[0] == 1) == at_once]
        for result in judge_all(some, CORES if at_once else 1):
            judged[result.variant] = result
            print(f"{result.variant}: {result.verdicts}, {result.seconds:.0f} s", file=sys.stderr)
            if options.json:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
    show([judged[variant] for variant in variants])
    return int(any(judged[variant].verdicts != EXPECTED for variant in variants))


def _kept(path: Path | None) -> Iterator[Judged]:
    """Read the results of earlier runs."""
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.is_file() else []
    for record in map(json.loads, lines):
        variant = record["variant"]
        yield Judged(
            **(record | {"variant": Variant(variant["processor"], tuple(variant["threads"]), variant["seed"])})
        )


def available() -> list[str]:
    """Return the processors that this one can stand in for, and say which it cannot."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.is_file() else []
    lacking = [processor for processor, flag in NEEDED.items() if flag not in flags]
    for processor in lacking:
        print(f"{processor}: not measured, this processor has no such instructions")
    return [processor for processor in PROCESSORS if processor not in lacking]


def group(processor: str, threads: Sequence[int]) -> list[tuple[int, ...]]:
    """Put numbers of threads together after which the first steps leave the same weights."""
    alike: dict[str, list[int]] = {}
    for number in threads:
        alike.setdefault(_run(processor, "--begin", str(number))["weights"], []).append(number)
    return [tuple(numbers) for numbers in alike.values()]


def begin(threads: int) -> dict[str, str]:
    """Train the first steps of a base, and return the digest of its weights."""
    recipe = training.Recipe(learning_rate=demo.BASE.learning_rate, save_at=(FIRST_STEPS,), threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        training.train_base(demo.BASE.texts(0)[:4000], Path(folder), recipe, lambda done, total: None)
        return {"weights": sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()}


def judge_all(variants: Sequence[Variant], at_once: int) -> Iterator[Judged]:
    """Judge variants in processes of their own, in order."""
    with ThreadPoolExecutor(max(1, at_once)) as pool:
        yield from pool.map(_judge_apart, variants)


def _judge_apart(variant: Variant) -> Judged:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        answer = _run(variant.processor, "--train", folder, str(variant.seed), str(variant.threads[0]))
    return Judged(variant, answer["weights"], time.monotonic() - started, answer["verdicts"], answer["slack"])


def _run(processor: str, *arguments: str) -> dict[str, Any]:
    """Run this module as a program of its own, as `processor` would."""
    command = [sys.executable, "-m", "tests.benchmarks.demo_verdicts", *arguments]
    # Threads that wait for others of their kind must not keep them from a core.
    environment = os.environ | PROCESSORS[processor] | {"OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def judge(folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """Train, score and judge in this process."""
    trained = demo.run(
        folder,
        workers=0,
        note=lambda text: None,
        progress=lambda done, total: None,
        seed=seed,
        adapted=ADAPTED,
        threads=threads,
    )
    policy, store = load_policy(POLICY), Store(trained.store)
    outcomes = {arm: decide(store, Question(checkpoint=arm, policy=policy)).outcome for arm in EXPECTED}
    return {
        "weights": trained.base,
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
    console = Console(width=260, highlight=False, markup=False)
    facts = machine()
    console.print(f"\n{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}")
    console.print(f"{len({result.weights for result in judged})} different bases in {len(judged)} variants")
    for arm, expected in EXPECTED.items():
        rules = list(judged[0].slack[arm])
        decided = sum(result.verdicts[arm] == expected for result in judged)
        table = Table("processor", "threads", "seed", "base", "verdict", *rules, box=box.MARKDOWN)
        for result in judged:
            slack_of, variant = result.slack[arm], result.variant
            start = (
                variant.processor,
                ", ".join(map(str, variant.threads)),
                str(variant.seed),
                result.weights.split(":")[-1][:8],
            )
            table.add_row(*start, result.verdicts[arm], *(f"{slack_of[rule]:+.1f}" for rule in rules))
        least = (f"{min(result.slack[arm][rule] for result in judged):+.1f}" for rule in rules)
        table.add_row("least", "", "", "", f"{decided} of {len(judged)}", *least)
        console.print(f"\n{arm}, to {expected}: slack of each rule, in half widths of its interval", table)


if __name__ == "__main__":
    sys.exit(main())
