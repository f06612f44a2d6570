"""How often some of several candidates at the margin passes, by simulation: the long form of tests/gating.

Run by hand: python -m tests.benchmarks.candidates_error_rates. Every gate is decided as `evalsvc gate` decides it, on
500 items that all candidates share. Takes ten minutes; ends with exit code 1 if a rate exceeds alpha by more than two
standard errors.
"""

from __future__ import annotations

import argparse
import sys

from tests.support.candidates import POLICY, judge_in_turn

ITEMS = 500
CELLS = ((1, None), (1, 1), (10, None), (10, 10))
"""Candidates in turn, and the size of the batch that was declared."""


def main() -> int:
    """Print one line per cell; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000, help="simulated batches per cell")
    runs = parser.parse_args().runs
    alpha = POLICY.alpha
    worst = alpha + 2 * (alpha * (1 - alpha) / runs) ** 0.5
    is_broken = False
    for candidates, batch_size in CELLS:
        passed = judge_in_turn(runs, candidates, ITEMS, seed=7, batch_size=batch_size)
        rate = float(passed.any(axis=1).mean())
        error = (rate * (1 - rate) / runs) ** 0.5
        declared = "no batch declared" if batch_size is None else f"a batch of {batch_size} declared"
        print(
            f"{candidates} candidates, {declared}: some pass in {100 * rate:.2f} % ({100 * error:.2f}), "
            f"the first in {100 * passed[:, 0].mean():.2f} %",
            flush=True,
        )
        is_broken |= rate > worst
    return int(is_broken)


if __name__ == "__main__":
    sys.exit(main())
