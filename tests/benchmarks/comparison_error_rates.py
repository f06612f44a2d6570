"""Error rates of comparisons, by simulation: the long form of what tests/test_compare.py and tests/stats hold shortly.

Run by hand: python -m tests.benchmarks.comparison_error_rates [runs per cell, 10000 by default]. Takes some minutes;
prints per cent, and ends with exit code 1 if a rate that is promised exceeds its level by more than three standard
errors: clustered passes at the margin (5 %), Holm's false alarms (5 %).
"""

from __future__ import annotations

import math
import sys

import numpy as np
from scipy.special import bdtr

from evalsvc.stats.estimates import clustered_error, standard_error
from evalsvc.stats.multiplicity import benjamini_hochberg, holm
from evalsvc.stats.paired import t_interval

SUITES = 10
CLUSTERS, SIZE = 200, 5


def clustered_passes(together: float, runs: int) -> tuple[float, float]:
    """Return how often a true loss of 5 points passes a margin of 5 points: items as the unit, clusters as the unit."""
    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(CLUSTERS), SIZE)
    n = CLUSTERS * SIZE
    passed = np.zeros(2)
    for _ in range(runs):
        # Every item takes its cluster's draw with some probability, which correlates the flips of a cluster.
        u = np.where(rng.random(n) < math.sqrt(together), rng.random(CLUSTERS)[clusters], rng.random(n))
        d = np.where(u < 0.075, -1.0, np.where(u < 0.10, 1.0, 0.0))
        center, psi = float(d.mean()), d - d.mean()
        passed[0] += t_interval(center, standard_error(psi), n - 1).low > -0.05
        passed[1] += t_interval(center, clustered_error(psi, clusters).stderr, CLUSTERS - 1).low > -0.05
    return float(passed[0] / runs), float(passed[1] / runs)


def alarms(n: int, change: float, runs: int) -> tuple[float, float, float]:
    """Return how often any of ten suites is said to have dropped: uncorrected, Holm, BH at 10 %.

    One suite has lost `change`, the others nothing; one in ten items changes, and McNemar's exact test is one-sided.
    """
    rng = np.random.default_rng(8)
    changes = np.array([change] + [0.0] * (SUITES - 1))
    lost_rate, gained_rate = (0.10 + changes) / 2, (0.10 - changes) / 2
    rates = np.stack([lost_rate, gained_rate, 1 - lost_rate - gained_rate], axis=1)
    counts = rng.multinomial(n, rates, size=(runs, SUITES))
    lost, gained = counts[..., 0], counts[..., 1]
    p = np.where(lost + gained > 0, bdtr(gained, lost + gained, 0.5), 1.0)
    found = np.zeros(3)
    for row in p:
        found += row.min() <= 0.05, holm(row).min() <= 0.05, benjamini_hochberg(row).min() <= 0.10
    return float(found[0] / runs), float(found[1] / runs), float(found[2] / runs)


def main() -> int:
    """Print both tables; 1 if a promise is broken."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    broken = False
    print(f"{runs} runs per cell, per cent\n\nclusters of 5: passes at the margin\n  together  items  clusters")
    for together in (0.0, 0.2, 0.5):
        items, clusters = clustered_passes(together, runs)
        broken |= clusters > limit + 0.007  # the t over 200 clusters of a trinomial is near its level, not at it
        print(f"  {together:8}  {100 * items:5.1f}  {100 * clusters:8.1f}")
    print("\nten suites: any said to have dropped\n     n  one lost   raw  Holm    BH")
    for n in (100, 500, 2000):
        for change in (0.0, 0.05, 0.10):
            raw, by_holm, by_bh = alarms(n, change, runs)
            broken |= change == 0 and by_holm > limit
            print(f"  {n:4}  {change:8}  {100 * raw:4.1f}  {100 * by_holm:4.1f}  {100 * by_bh:4.1f}")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
