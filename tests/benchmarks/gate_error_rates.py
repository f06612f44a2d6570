"""Error rates, power and savings of every mode of the gate, by simulation: the long form of tests/stats.

Run by hand: python -m tests.benchmarks.gate_error_rates. Takes half an hour; prints passes and fails in per cent and
the mean share of items asked, and ends with exit code 1 if a false-pass rate at the margin exceeds alpha by more than
three standard errors. `--cell 2000 0.10 0.02 -1` simulates one cell, and may be repeated.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from tests import simulate

# n, discordance, margin, and the truth in margins: those of the table's source, and what lies between.
CELLS = [
    (n, discordance, margin, truth)
    for n, discordance, margin, truths in (
        (2000, 0.10, 0.02, (-1, -2, -4, 0, 0.5)),
        (100, 0.05, 0.05, (0, -1)),
        (100, 0.10, 0.05, (0.5, 0, -1, -2, -4)),
        (100, 0.10, 0.02, (-1,)),
        (500, 0.10, 0.05, (0.5, 0, -1, -2, -4)),
        (500, 0.10, 0.02, (0,)),
        (500, 0.15, 0.05, (0,)),
        (2000, 0.05, 0.02, (0.5, 0, -1, -2, -4)),
        (2000, 0.15, 0.02, (0,)),
    )
    for truth in truths
]
CHUNK = 500


def rates(n: int, discordance: float, change: float, margin: float, runs: int) -> dict[str, simulate.Rates]:
    """Simulate one cell in all modes."""
    parts: dict[str, list[simulate.Rates]] = {}
    for start in range(0, runs, CHUNK):
        many = simulate.population(n, discordance, change, CHUNK, seed=start)
        pool = simulate.pools(n, discordance, change, CHUNK, seed=start)
        for mode, found in (
            ("fixed", simulate.fixed(many, margin)),
            ("group_sequential", simulate.group_sequential(many, margin)),
            ("betting", simulate.betting(many, margin, finite=False)),
            ("finite_pool", simulate.betting(pool, margin, finite=True)),
        ):
            parts.setdefault(mode, []).append(found)
    return {mode: simulate.Rates(*np.mean(found, axis=0)) for mode, found in parts.items()}


def main() -> int:
    """Print the table; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=10_000, help="simulated gates per cell")
    parser.add_argument("--cell", type=float, nargs=4, action="append", metavar=("N", "D", "MARGIN", "TRUTH"))
    said = parser.parse_args()
    worst = simulate.ALPHA + 3 * (simulate.ALPHA * (1 - simulate.ALPHA) / said.gates) ** 0.5
    broken = False
    print(
        f"{'n':>5} {'D':>5} {'margin':>6} {'truth':>6}  "
        + "".join(f"{m:>24}" for m in ("fixed", "group_sequential", "betting", "finite_pool"))
    )
    for n, discordance, margin, truth in said.cell or CELLS:
        found = rates(int(n), discordance, truth * margin, margin, said.gates)
        print(
            f"{n:>5g} {discordance:>5} {margin:>6} {truth:>6g}  "
            + "".join(
                f"{100 * r.passed:>9.1f}/{100 * r.failed:>5.1f}/{100 * r.asked:>5.1f}   " for r in found.values()
            ),
            flush=True,
        )
        broken = broken or (truth == -1 and any(r.passed > worst for r in found.values()))
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
