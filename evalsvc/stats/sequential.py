"""Group-sequential bounds: several interim looks at growing data, with total error alpha.

Alpha is spent over the looks (Lan and DeMets 1983, Biometrika 70:659-663) by their spending function of the
O'Brien-Fleming type, a(t) = 2 - 2 Phi(z_(alpha/2) / sqrt(t)): the bounds are high at early looks, and the last one is
close to that of a single test. They are computed by the recursive integration of Armitage, McPherson and Rowe (1969,
Journal of the Royal Statistical Society A 132:235-244).

Formulas and sources: docs/pages/statistics.md, section "Group-sequential".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_REACH = 9.0
"""Integration range in standard deviations; the probability beyond it is below 1e-18."""


def spend_alpha(fraction: float, alpha: float) -> float:
    """Return the part of alpha that is spent when a share `fraction` of the information is available."""
    return float(2 * ndtr(ndtri(alpha / 2) / math.sqrt(fraction)))


@lru_cache(maxsize=64)
def spending_bounds(fractions: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Return the bound of z at each look.

    Args:
        fractions: Share of the full information at each look, increasing, at most 1.
        alpha: One-sided probability of crossing any of the bounds under H0.

    Raises:
        ValueError: `fractions` do not increase within (0, 1].
    """
    _check(fractions)
    path = _Path()
    bounds: list[float] = []
    used = 0.0
    for fraction in fractions:
        budget = spend_alpha(fraction, alpha) - used
        low, high = 0.0, 38.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if path.crossing(fraction, middle) > budget else (low, middle)
        used += path.crossing(fraction, high)
        path.advance(fraction, high)
        bounds.append(high)
    return tuple(bounds)


def crossing_probability(fractions: Sequence[float], bounds: Sequence[float], drift: float = 0.0) -> float:
    """Return the probability that z crosses a bound at any look, if z has mean drift * sqrt(fraction).

    Raises:
        ValueError: `fractions` do not increase within (0, 1].
    """
    _check(fractions)
    path = _Path(drift)
    total = 0.0
    for fraction, bound in zip(fractions, bounds, strict=True):
        total += path.crossing(fraction, bound)
        path.advance(fraction, bound)
    return total


def _check(fractions: Sequence[float]) -> None:
    if (
        not fractions
        or not all(a < b for a, b in zip((0.0, *fractions), (*fractions, math.inf), strict=False))
        or fractions[-1] > 1
    ):
        raise ValueError(f"fractions == {tuple(fractions)}, must increase within (0, 1]")


class _Path:
    """The distribution of B(t) = z(t) sqrt(t), a Brownian motion, on paths that have not crossed a bound so far."""

    def __init__(self, drift: float = 0.0) -> None:
        self._drift = drift
        self._time = 0.0
        self._at = np.zeros(1)
        self._mass = np.ones(1)

    def crossing(self, time: float, bound: float) -> float:
        """Return the probability that z is above `bound` at `time` and crossed no bound before."""
        return float(self._mass @ ndtr(-self._step(bound * math.sqrt(time), time)))

    def advance(self, time: float, bound: float) -> None:
        """Advance to `time`, and remove the paths above `bound`."""
        top = bound * math.sqrt(time)
        bottom = self._drift * time - _REACH * math.sqrt(time)
        top = min(top, self._drift * time + _REACH * math.sqrt(time))
        at = (top - bottom) / 2 * _NODES + (top + bottom) / 2
        z = self._step(at[:, None], time)
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi * (time - self._time)) @ self._mass
        self._at, self._mass, self._time = at, density * _WEIGHTS * (top - bottom) / 2, time

    def _step(self, target: Floats | float, time: float) -> Floats:
        length = time - self._time
        return np.asarray((target - self._at - self._drift * length) / math.sqrt(length))
