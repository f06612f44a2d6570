"""Per-prompt diversity of a base, and of an arm that keeps a known share of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from evalsvc.stats.ratios import Floats, PairedValues

K = 8
"""Answers per prompt."""

Draw = Callable[[np.random.Generator, int], Floats]


@dataclass(frozen=True, slots=True)
class Shape:
    """How values are distributed over prompts.

    Attributes:
        base: Draws values of the base.
        collapsed: The value of a prompt on which the arm has collapsed.
        unchanged: Draws values of prompts on which the arm has not collapsed; None if they are the base's own.
    """

    base: Draw
    collapsed: float
    unchanged: Draw | None = None


def draw_counts(least: int, share: float) -> Draw:
    """Return a draw of k / K: `least` answers, and each of the others with a chance of `share`."""
    return lambda rng, n: (least + rng.binomial(K - least, share, n)) / K


def draw_beta(a: float, b: float) -> Draw:
    """Return a draw from a beta distribution."""
    return lambda rng, n: rng.beta(a, b, n)


def draw_ones(_: np.random.Generator, n: int) -> Floats:
    """Return ones."""
    return np.ones(n)


SHAPES: Mapping[str, Shape] = {
    "all or nothing": Shape(draw_ones, 0.0),
    "unique, K = 8": Shape(draw_counts(1, 0.95), 1 / K, draw_counts(1, 0.95)),
    "unique, a repetitive base": Shape(draw_counts(1, 0.4), 1 / K, draw_counts(1, 0.4)),
    "distinct bigrams": Shape(draw_beta(16, 4), 0.0, draw_beta(16, 4)),
    "distinct, a skewed base": Shape(draw_beta(1, 3), 0.0, draw_beta(1, 3)),
    "distinct, skewed, the base's own": Shape(draw_beta(1, 3), 0.0),
    "distinct, near 0.5, the base's own": Shape(draw_beta(20, 20), 0.0),
    "not the top response": Shape(draw_counts(0, 0.97), 0.0, draw_counts(0, 0.97)),
    "length, at most the base's": Shape(draw_ones, 1 / 40, draw_beta(12, 1)),
}


@lru_cache
def find_collapse(name: str, kept: float) -> float:
    """Return the share of collapsed prompts at which an arm's expected value is `kept` times the base's."""
    shape, rng = SHAPES[name], np.random.default_rng(0)
    base, unchanged = (float(draw(rng, 400_000).mean()) for draw in (shape.base, shape.unchanged or shape.base))
    return (unchanged - kept * base) / (unchanged - shape.collapsed)


def draw_values(name: str, collapse: float, n: int, seed: int) -> PairedValues:
    """Draw values of n prompts, of which a share of `collapse` has collapsed."""
    shape, rng = SHAPES[name], np.random.default_rng(seed)
    is_collapsed = rng.random(n) < collapse
    base = shape.base(rng, n)
    unchanged = base if shape.unchanged is None else shape.unchanged(rng, n)
    return PairedValues(base, np.where(is_collapsed, shape.collapsed, unchanged))
