"""Error rates, power and savings of every mode of the gate, by simulation: the long form of tests/stats.

Run by hand: python -m tests.benchmarks.gate_error_rates [gates per cell, 10000 by default]. Takes half an hour; prints
passes and fails in per cent and the mean share of items asked, and ends with exit code 1 if a false-pass rate at the
margin exceeds alpha by more than three standard errors, for the modes that promise it.
"""

from __future__ import annotations

import sys

import numpy as np

from tests import simulate

# n, discordance, margin, and the truth in margins.
CELLS = [
    (n, discordance, margin, truth)
    for n, discordance, margin in ((100, 0.10, 0.05), (500, 0.10, 0.05), (2000, 0.05, 0.02), (2000, 0.10, 0.02))
    for truth in (0.5, 0, -1, -2, -4)
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
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    worst = simulate.ALPHA + 3 * (simulate.ALPHA * (1 - simulate.ALPHA) / runs) ** 0.5
    broken = False
    print(
        f"{'n':>5} {'D':>5} {'margin':>6} {'truth':>6}  "
        + "".join(f"{m:>24}" for m in ("fixed", "group_sequential", "betting", "finite_pool"))
    )
    for n, discordance, margin, truth in CELLS:
        found = rates(n, discordance, truth * margin, margin, runs)
        print(
            f"{n:>5} {discordance:>5} {margin:>6} {truth:>6}  "
            + "".join(
                f"{100 * r.passed:>9.1f}/{100 * r.failed:>5.1f}/{100 * r.asked:>5.1f}   " for r in found.values()
            ),
            flush=True,
        )
        broken = broken or (truth == -1 and any(r.passed > worst for r in found.values()))
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
