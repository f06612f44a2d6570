"""Error rates, power and savings of every mode of the gate, by simulation: the long form of tests/stats.

Run by hand: python -m tests.benchmarks.gate_error_rates. Takes half an hour; prints passes and fails in per cent and
the mean share of items asked, and ends with exit code 1 if a false-pass rate at the margin exceeds alpha by more than
three standard errors. `--cell 2000 0.10 0.02 -1` simulates one cell, and may be repeated.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import ArrayLike

from evalsvc.stats.betting import compute_max_log_wealth
from evalsvc.stats.margins import z_of
from evalsvc.stats.sequential import spending_bounds
from tests.support import simulate

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
FAMILIES = {
    "unchanged": [0.0] * 10,
    "one at the margin": [-0.05] + [0.0] * 9,
    "one at twice the margin": [-0.10] + [0.0] * 9,
    "all at two fifths of it": [-0.02] * 10,
}
CHUNK = 500


def rates(n: int, discordance: float, change: float, margin: float, runs: int) -> dict[str, simulate.Rates]:
    """Simulate one cell in all modes."""
    parts: dict[str, list[simulate.Rates]] = {}
    for start in range(0, runs, CHUNK):
        many = simulate.draw_population(n, discordance, change, CHUNK, seed=start)
        pool = simulate.shuffle_pools(n, discordance, change, CHUNK, seed=start)
        for mode, found in (
            ("fixed", simulate.simulate_fixed(many, margin)),
            ("group_sequential", simulate.simulate_group_sequential(many, margin)),
            ("betting", simulate.simulate_betting(many, margin, finite=False)),
            ("finite_pool", simulate.simulate_betting(pool, margin, finite=True)),
        ):
            parts.setdefault(mode, []).append(found)
    return {mode: simulate.Rates(*np.mean(found, axis=0)) for mode, found in parts.items()}


def families(changes: list[float], n: int, margin: float, runs: int) -> dict[str, simulate.Rates]:
    """Simulate gates over as many suites of n items as there are changes; a tenth of the items change either way."""
    parts: dict[str, list[simulate.Rates]] = {}
    for start in range(0, runs, CHUNK):
        seeds = [100 * start + suite for suite in range(len(changes))]
        many, pools = (
            [draw(n, 0.10, change, CHUNK, seed=seed) for change, seed in zip(changes, seeds, strict=True)]
            for draw in (simulate.draw_population, simulate.shuffle_pools)
        )
        for mode, found in (
            ("fixed", _one_look(many, margin)),
            ("group_sequential", _five_looks(many, margin)),
            ("finite_pool", _bets(pools, margin)),
        ):
            parts.setdefault(mode, []).append(found)
    return {mode: simulate.Rates(*np.mean(found, axis=0)) for mode, found in parts.items()}


def _one_look(suites: list[simulate.Array], margin: float) -> simulate.Rates:
    z = np.array([simulate.compute_z(d, d.shape[1], margin) for d in suites])
    # The smallest of Holm's adjusted p-values is Bonferroni's.
    return simulate.Rates(
        float((z >= z_of(simulate.ALPHA)).all(axis=0).mean()),
        float((z.min(axis=0) <= -z_of(simulate.ALPHA / len(suites))).mean()),
        1.0,
    )


def _five_looks(suites: list[simulate.Array], margin: float) -> simulate.Rates:
    n = suites[0].shape[1]
    z = np.array([[simulate.compute_z(d, int(np.floor(f * n + 1e-9)), margin) for d in suites] for f in simulate.LOOKS])
    above, below = (
        np.array(spending_bounds(simulate.LOOKS, alpha))[:, None, None]
        for alpha in (simulate.ALPHA, simulate.ALPHA / len(suites))
    )
    held = np.all(np.logical_or.accumulate(z >= above, axis=0), axis=1)
    return _first(held, np.any(z <= -below, axis=1), np.array(simulate.LOOKS))


def _bets(suites: list[simulate.Array], margin: float) -> simulate.Rates:
    n = suites[0].shape[1]
    looks = np.arange(1, 21) / 20
    seen = np.floor(looks * n + 1e-9).astype(int) - 1
    streams = [compute_max_log_wealth((d + 1) / 2, (1 - margin) / 2, n) for d in suites]
    for_pass, for_fail = -np.log(simulate.ALPHA), -np.log(simulate.ALPHA / len(suites))
    held = np.all([for_pass <= above[:, seen].T for above, _ in streams], axis=0)
    broken = np.any([for_fail <= below[:, seen].T for _, below in streams], axis=0)
    return _first(held, broken, looks)


def _first(held: ArrayLike, broken: ArrayLike, looks: simulate.Array) -> simulate.Rates:
    """Return the rates of gates [looks, gates] that end when all rules hold or one is broken, which counts more."""
    held, broken = np.asarray(held), np.asarray(broken)
    ended = held | broken
    last = np.where(ended.any(axis=0), ended.argmax(axis=0), len(looks) - 1)
    gates = np.arange(ended.shape[1])
    failed = broken[last, gates]
    return simulate.Rates(float((held[last, gates] & ~failed).mean()), float(failed.mean()), float(looks[last].mean()))


def main() -> int:
    """Print the tables; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=10_000, help="simulated gates per cell")
    parser.add_argument("--families", action="store_true", help="only gates over ten suites")
    parser.add_argument("--cell", type=float, nargs=4, action="append", metavar=("N", "D", "MARGIN", "TRUTH"))
    said = parser.parse_args()
    worst = simulate.ALPHA + 3 * (simulate.ALPHA * (1 - simulate.ALPHA) / said.gates) ** 0.5
    broken = False
    for n, discordance, margin, truth in [] if said.families else said.cell or CELLS:
        found = rates(int(n), discordance, truth * margin, margin, said.gates)
        _show(f"{n:g} items, D {discordance}, margin {margin}, truth {truth:g}", found)
        broken |= truth == -1 and any(r.passed > worst for r in found.values())
    for name, changes in {} if said.cell else FAMILIES.items():
        found = families(changes, 500, 0.05, said.gates)
        _show(f"10 x 500 items, {name}", found)
        broken |= name == "unchanged" and any(r.failed > worst for r in found.values())
        broken |= name == "one at the margin" and any(r.passed > worst for r in found.values())
    return int(broken)


def _show(cell: str, found: dict[str, simulate.Rates]) -> None:
    told = (f"{m} {100 * r.passed:.2f} / {100 * r.failed:.2f} / {100 * r.asked:.0f}" for m, r in found.items())
    print(f"{cell:<48}", *told, sep="  ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
