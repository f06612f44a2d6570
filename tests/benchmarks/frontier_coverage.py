"""Coverage of the frontier's exchange rate, and how well P(frontier) predicts, by simulation on small suites.

Run by hand: python -m tests.benchmarks.frontier_coverage. Takes some minutes. Prints for n items per suite how often
the 90 % interval of the exchange rate contains the truth, on which side it misses, and how often there is one (learning
must be proven). For P(frontier) of three arms it prints the mean squared error (Brier score) against whether the arm is
on the true frontier, beside that of the point estimate, and the share on the true frontier by what was predicted.
"""

from __future__ import annotations

import argparse

import numpy as np

from evalsvc.analysis.frontier import ROLES, build_axis, build_positions, find_frontier
from evalsvc.analysis.suite_gains import Candidate, measure_gains
from evalsvc.records.frontier import Frontier
from evalsvc.records.scores import TaskScores
from evalsvc.records.vocabulary import Floats
from tests.support.fakes import make_checkpoint
from tests.support.scores import make_scores

ITEMS = (50, 100, 200)
BINS = ((0.0, 0.1), (0.1, 0.3), (0.3, 0.7), (0.7, 0.9), (0.9, 1.01))


def draw_frontier(random: np.random.Generator, n: int, learned: list[float], lost: list[float]) -> Frontier:
    """Return the frontier of a base and arms with these true gains on n items of either role."""
    base_checkpoint = make_checkpoint(1)
    domain, general = (random.random(n) < 0.3).astype(float), (random.random(n) < 0.8).astype(float)
    arms = []
    for number, (gain, loss) in enumerate(zip(learned, lost, strict=True)):
        up, down = random.random(n) < gain / 0.7, random.random(n) < loss / 0.8
        adapted = (np.where(up, 1.0, domain), np.where(down, 0.0, general))
        arms.append((number + 2, *adapted))
    candidates = [
        Candidate(f"c{number}", make_checkpoint(number, parent=base_checkpoint), _build_scores(*values))
        for number, *values in arms
    ]
    gains = measure_gains(Candidate("base", base_checkpoint, _build_scores(domain, general)), candidates)
    return find_frontier(build_positions(gains, *(build_axis(gains, role) for role in ROLES)))


def _build_scores(domain: Floats, general: Floats) -> list[TaskScores]:
    return [
        make_scores(values.tolist(), suite=role, role=role, task=role)
        for role, values in zip(ROLES, (domain, general), strict=True)
    ]


def measure_exchange(n: int, runs: int) -> str:
    """Return how often the interval of the exchange rate contains 0.05 / 0.3."""
    random, truth = np.random.default_rng(n), 0.05 / 0.3
    below = above = count = 0
    for _ in range(runs):
        point = draw_frontier(random, n, [0.3], [0.05]).points[1]
        if point.exchange_low is None or point.exchange_high is None:
            continue
        count += 1
        below += point.exchange_high < truth
        above += point.exchange_low > truth
    return (
        f"n {n:>4}  exchange: covers {100 * (1 - (below + above) / count):5.1f} %, below {100 * below / count:4.1f} %, "
        f"above {100 * above / count:4.1f} %, has an interval {100 * count / runs:5.1f} %"
    )


def measure_probabilities(n: int, runs: int) -> str:
    """Return how P(frontier) of three arms with random true gains compares with the truth."""
    random = np.random.default_rng(n)
    predicted, estimated, true = [], [], []
    for _ in range(runs):
        learned, lost = random.uniform(0.05, 0.4, 3), random.uniform(0.0, 0.2, 3)
        points = draw_frontier(random, n, learned.tolist(), lost.tolist()).points[1:]
        for i, point in enumerate(points):
            better = (learned >= learned[i]) & (lost <= lost[i])
            predicted.append(point.p_on_frontier)
            estimated.append(point.on_frontier)
            true.append(better.sum() == 1)
    p, e, t = (np.array(values, dtype=np.float64) for values in (predicted, estimated, true))
    shares = ", ".join(
        f"{low:.1f}-{min(high, 1):.1f}: {100 * t[inside].mean():.0f} %"
        for low, high in BINS
        if (inside := (p >= low) & (p < high)).any()
    )
    return (
        f"n {n:>4}  P(frontier): Brier {((p - t) ** 2).mean():.3f} (of the estimate {((e - t) ** 2).mean():.3f}); "
        f"on the true frontier, by P: {shares}"
    )


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    runs = parser.parse_args().runs
    for n in ITEMS:
        print(measure_exchange(n, runs), flush=True)
        print(measure_probabilities(n, runs // 2), flush=True)


if __name__ == "__main__":
    main()
