"""Bounds of means over documents and clusters, against Tango's, an optimiser's, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from evalsvc.stats.paired import tango_bounds, tango_z
from evalsvc.stats.unit_means import UnitSums, normal_quantile, score_bounds, score_curve, score_z, t_quantile

Z = float(stats.norm.ppf(0.95))


def units(values: list[float] | np.ndarray, sizes: np.ndarray | None = None) -> UnitSums:
    row = np.array(values, dtype=float)
    return UnitSums(row[None], np.ones(len(row)) if sizes is None else sizes / sizes.mean())


def trinomial(lost: int, gained: int, n: int) -> UnitSums:
    return units(np.concatenate([-np.ones(lost), np.ones(gained), np.zeros(n - lost - gained)]))


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(3, 2, 100), (0, 0, 60), (0, 4, 50), (7, 0, 80), (30, 20, 500), (1, 1, 9)]
)
def test_one_binary_item_per_unit_is_tangos(lost: int, gained: int, n: int) -> None:
    data = trinomial(lost, gained, n)
    for threshold in (-0.3, -0.05, 0.01, 0.2):
        assert score_z(data, threshold)[0] == pytest.approx(tango_z(threshold, lost, gained, n), abs=1e-9)
    z = np.array([0.5, Z, 3.0])
    low, high = score_bounds(data, normal_quantile(z, n - 1))  # so that the quantile of t is z
    assert np.stack([low[:, 0], high[:, 0]]) == pytest.approx(np.stack(tango_bounds(lost, gained, n, z)), abs=1e-9)


def likeliest_variance(values: np.ndarray, threshold: float) -> float:
    """Return the variance of the likeliest distribution of mean `threshold` on the values and -1, by an optimiser."""
    atoms = np.append(values, -1.0)
    n = len(values)
    found = optimize.minimize(
        lambda p: -np.log(np.maximum(p[:n], 1e-12)).sum(),
        np.full(n + 1, 1 / (n + 1)),
        bounds=[(1e-9, 1)] * n + [(0, 1)],
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "eq", "fun": lambda p: p @ atoms - threshold},
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-13},
    )
    return float(found.x @ (atoms - threshold) ** 2)


@pytest.mark.parametrize("values", [[0.0, 0.1, 0.3, -0.2, 0.05], [0.0, 0, 0, 0, 0.5], [-0.9, 0.2, 0.3, 0.4, 0.1, 0.0]])
@pytest.mark.parametrize("threshold", [-0.1, -0.3, -0.7])
def test_the_statistic_is_that_of_the_likeliest_distribution(values: list[float], threshold: float) -> None:
    data = np.array(values)
    expected = (data.mean() - threshold) / np.sqrt(likeliest_variance(data, threshold) / len(data))
    assert score_z(units(values), threshold)[0] == pytest.approx(expected, rel=2e-4)
    assert score_z(units(-data), -threshold)[0] == pytest.approx(-expected, rel=2e-4)


@pytest.mark.parametrize("sizes", [np.ones(30), np.arange(1.0, 31.0)])
def test_without_a_change_the_bound_is_that_of_the_effective_number_of_units(sizes: np.ndarray) -> None:
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    t = stats.t.ppf(0.95, effective - 1)
    low, high = score_bounds(units(np.zeros(30), sizes), np.array([Z]))
    assert (-low[0, 0], high[0, 0]) == pytest.approx((t**2 / (effective + t**2),) * 2, rel=0.02)


def test_a_bound_is_where_the_statistic_is_the_quantile() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 40).astype(float)
    data = units(rng.uniform(-0.4, 0.3, 40) * sizes / sizes.mean(), sizes)
    low, high = score_bounds(data, np.array([Z]))
    t = t_quantile(np.array([Z]), data.effective - 1)[0]
    assert t == pytest.approx(stats.t.ppf(0.95, data.effective - 1))
    assert score_z(data, float(low[0, 0]))[0] == pytest.approx(t, abs=1e-6)
    assert score_z(data, float(high[0, 0]))[0] == pytest.approx(-t, abs=1e-6)


@pytest.mark.parametrize("values", [np.zeros(60), np.append(np.zeros(99), 0.5), np.linspace(-0.3, 0.4, 200)])
def test_a_curve_is_made_of_bounds(values: np.ndarray) -> None:
    data, z = units(values), np.linspace(0, 8, 81)
    low, high = score_bounds(data, z)
    scale = values.mean() - low[-1, 0]
    assert score_curve(data, z, is_lower=True) == pytest.approx(low[:, 0], abs=3e-3 * scale)
    assert score_curve(data, z, is_lower=False) == pytest.approx(high[:, 0], abs=3e-3 * scale)


def test_one_odd_value_changes_little() -> None:
    plain = np.concatenate([-np.ones(2), np.ones(2), np.zeros(96)])
    odd = np.append(plain[:-1], 0.01)
    before, after = (score_bounds(units(values), np.array([Z])) for values in (plain, odd))
    assert np.abs(np.stack(before) - np.stack(after)).max() < 5e-4


def test_many_values_have_the_bounds_of_the_normal_approximation() -> None:
    values = np.random.default_rng(1).uniform(-0.2, 0.3, 200_000)
    low, high = score_bounds(units(values), np.array([Z]))
    half = Z * values.std(ddof=1) / np.sqrt(len(values))
    assert (low[0, 0], high[0, 0]) == pytest.approx((values.mean() - half, values.mean() + half), abs=2e-3 * half)
