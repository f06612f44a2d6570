"""How often the gate passes a recipe whose true mean is at its margin, by simulation: the long form of tests/gating.

Run by hand: python -m tests.benchmarks.recipe_error_rates. Every gate is decided as `evalsvc gate --recipe` decides it,
which tests/gating holds. Takes five minutes; ends with exit code 1 if a rate exceeds alpha by more than two standard
errors.
"""

from __future__ import annotations

import argparse
import itertools
import sys

from tests.support.recipes import POLICY, measure_false_passes

CELLS = tuple(itertools.product((0.0, 0.5, 0.9), (3, 5, 10), (200, 1000), (0.0, 0.01, 0.03)))
"""Correlation of two runs on an item, runs, items, and standard deviation between the runs' true gains."""


def main() -> int:
    """Print one line per cell; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=4000, help="simulated gates per cell")
    parser.add_argument("--correlation", type=float, help="only the cells with this correlation")
    options = parser.parse_args()
    alpha = POLICY.alpha
    worst = alpha + 2 * (alpha * (1 - alpha) / options.gates) ** 0.5
    is_broken = False
    for seed, (correlation, runs, items, between) in enumerate(CELLS):
        if options.correlation not in (None, correlation):
            continue
        rate = measure_false_passes(options.gates, runs, items, between, correlation, seed)
        error = (rate * (1 - rate) / options.gates) ** 0.5
        print(
            f"correlation {correlation}, {runs} runs, {items} items, sd {between}: "
            f"{100 * rate:.2f} % ({100 * error:.2f})",
            flush=True,
        )
        is_broken |= rate > worst
    return int(is_broken)


if __name__ == "__main__":
    sys.exit(main())
