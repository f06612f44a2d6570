"""False passes and power of a diversity rule, on prompts of which a share has collapsed.

Run by hand: python -m tests.benchmarks.diversity_error_rates. Takes ten minutes. Prints, for each kind of measure, the
share of arms that pass while they keep exactly the policy's share of the base's diversity (at most alpha), and of those
of which no prompt has collapsed (power). Ends with exit code 1 if false passes exceed alpha by over two standard
errors.
"""

from __future__ import annotations

import argparse
import math
import sys

from evalsvc.stats.margins import z_of
from evalsvc.stats.ratios import ratio_z
from tests.support.collapse import SHAPES, draw_values, find_collapse

ALPHA = 0.05


def count_passes(name: str, least: float, collapse: float, n: int, runs: int) -> int:
    """Return how many of `runs` arms are shown to keep more than `least`."""
    return sum(ratio_z(draw_values(name, collapse, n, seed), least) >= z_of(ALPHA) for seed in range(runs))


def main() -> int:
    """Print the rates; 1 if one is too high."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    runs = parser.parse_args().runs
    most = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    is_high = False
    for name in SHAPES:
        for least in (0.8, 0.95):
            collapse = find_collapse(name, least)
            for n in (20, 40, 100) if collapse > 0 else ():
                false = count_passes(name, least, collapse, n, runs) / runs
                power = count_passes(name, least, 0.0, n, runs // 10) / (runs // 10)
                is_high |= false > most
                print(
                    f"{name:34} least {least:<4} {n:4} prompts: false pass {false:6.2%}, power {power:4.0%}", flush=True
                )
    return int(is_high)


if __name__ == "__main__":
    sys.exit(main())
