"""How often the paired bootstrap's 90 % interval holds the truth, by simulation: the long form of tests/stats.

Run by hand: python -m tests.benchmarks.bootstrap_coverage [comparisons per cell, 2000 by default]. Takes some minutes;
prints per cent, and ends with exit code 1 if a cell covers less than 85 %.
"""

from __future__ import annotations

import sys

from tests.support.corpus_metrics import CASES, measure_coverage

LEAST = 0.85
"""At n = 50 and 200; the interval promises 90 %."""


def main() -> int:
    """Print one line per cell; 1 if a promise is broken."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    is_broken = False
    for name, case in CASES.items():
        for n in (50, 200):
            decided, covered = measure_coverage(case, n, runs)
            print(f"{name}, n = {n}: {100 * covered:.1f} % of {100 * decided:.0f} % with an interval", flush=True)
            is_broken |= covered < LEAST
    return int(is_broken)


if __name__ == "__main__":
    sys.exit(main())
