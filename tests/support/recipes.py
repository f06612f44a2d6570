"""Recipes whose true mean is exactly at its margin, judged as the gate judges them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import ndtri, stdtrit

from evalsvc.gating.evidence import Evidence
from evalsvc.gating.policy import Policy
from evalsvc.gating.recipe import average_evidence
from evalsvc.gating.rules import TaskPair
from evalsvc.stats.unit_means import UnitSums, score_z
from evalsvc.store.arms import StoredArm
from tests.support.evidence import Array, make_task_scores
from tests.support.fakes import NUMERICS, make_checkpoint

MARGIN = 0.05
POLICY = Policy.model_validate({"version": 1, "retention": [{"suite": "core", "margin": MARGIN}]})
BASE = StoredArm(number=1, digest="base", checkpoint=make_checkpoint(1), numerics=NUMERICS.key())


def make_run(seed: int) -> StoredArm:
    """Return the arm of a training run with this seed."""
    checkpoint = replace(make_checkpoint(seed + 2, parent=BASE.checkpoint), name=f"lora-{seed}", seed=seed)
    return replace(BASE, number=seed + 2, digest=f"run {seed}", checkpoint=checkpoint)


def average_runs(base: Array, runs: Array) -> Evidence:
    """Return the evidence on a recipe.

    Args:
        base: [n], scores of the base.
        runs: [R, n], scores of its runs.
    """
    before = make_task_scores("core", "t", base)
    evidence = [
        Evidence(
            base=BASE,
            adapted=make_run(seed),
            plans=(),
            pairs=(TaskPair(before, make_task_scores("core", "t", run), len(base)),),
        )
        for seed, run in enumerate(runs)
    ]
    return average_evidence("lora-*", BASE, evidence)


def draw_recipe(
    rng: np.random.Generator, runs: int, items: int, between: float, correlation: float
) -> tuple[Array, Array]:
    """Return the scores [items] of a base, and [runs, items] of runs whose true gains have mean -MARGIN.

    The base has 70 % of the items right; a run loses 10 % of the items and gains 5 %, give or take its own effect.

    Args:
        between: Standard deviation of the runs' true gains.
        correlation: Of what decides, in two runs, whether an item changes.
    """
    effects = rng.normal(0, between, (runs, 1))
    lost, gained = (0.10 - effects / 2).clip(0, 0.7), (0.05 + effects / 2).clip(0, 0.3)
    right = rng.random(items) < 0.7
    own = rng.standard_normal((runs, items))
    change = np.sqrt(correlation) * rng.standard_normal(items) + np.sqrt(1 - correlation) * own
    changes = change < ndtri(np.where(right, lost / 0.7, gained / 0.3))
    return right.astype(float), (right != changes).astype(float)


def measure_false_passes(
    gates: int, runs: int, items: int, between: float, correlation: float = 0.5, seed: int = 0
) -> float:
    """Return the share of gates that pass a recipe whose true mean is at its margin."""
    rng = np.random.default_rng(seed)
    return float(np.mean([passes(*draw_recipe(rng, runs, items, between, correlation)) for _ in range(gates)]))


def passes(base: Array, runs: Array) -> bool:
    """Whether the gate passes these runs, from the definition: twenty times as quick as the gate.

    A test holds it to the gate. Of the squared distance from the margin, Student's t of the runs takes its part; one
    score test says whether the interval over items is narrower than what is left.
    """
    gains = runs - base
    of_runs, of_items = gains.mean(axis=1), gains.mean(axis=0)
    count, items = gains.shape
    distance = of_items.mean() + MARGIN
    spread = -stdtrit(count - 1, POLICY.alpha) * of_runs.std(ddof=1) / np.sqrt(count)
    if distance <= spread:
        return False
    left = np.sqrt(distance**2 - spread**2)
    z = score_z(UnitSums(of_items[None], np.ones(items)), float(of_items.mean() - left))
    return bool(z[0] >= -stdtrit(items - 1, POLICY.alpha))
