"""Continual-learning metrics of a matrix of scores.

Names and signs are those of the literature: BWT is negative when something is forgotten, average forgetting positive.
Divisors differ between papers and code (GEM's code divides BWT by T, its paper by T - 1), so every figure has its
divisor.

Formulas and sources: docs/pages/statistics.md, section "Continual learning".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its divisor, in words: "T - 1 = 4"."""

    value: float
    divisor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Continual:
    """Metrics of a matrix of T tasks; None where the matrix lacks the scores that a metric needs.

    Attributes:
        acc: Mean of the last row.
        la: Learning accuracy, the mean of the diagonal: each task right after its own stage.
        bwt: Backward transfer, 1/(T-1) sum over i < T of R[T,i] - R[i,i] (Lopez-Paz and Ranzato 2017).
        bwt_over_t: The same sum divided by T, as in GEM's code, TRACE and CoIN.
        bwt_all_pairs: Mean over all i > j of R[i,j] - R[j,j] (Diaz-Rodriguez et al. 2018).
        remembering: 1 - |min(bwt_all_pairs, 0)| (Diaz-Rodriguez et al. 2018).
        forgetting: 1/(T-1) sum over j < T of (max over l < T of R[l,j]) - R[T,j] (Chaudhry et al. 2018); the maximum
            over noisy scores biases it upward.
        fwt: Forward transfer, 1/(T-1) sum over i >= 2 of R[i-1,i] - untrained[i]; needs the untrained scores.
        intransigence: Mean of joint[k] - R[k,k] (Chaudhry et al. 2018); needs a jointly trained reference.
    """

    tasks: int
    acc: Figure
    la: Figure
    bwt: Figure | None
    bwt_over_t: Figure | None
    bwt_all_pairs: Figure | None
    remembering: float | None
    forgetting: Figure | None
    fwt: Figure | None
    intransigence: Figure | None


def continual(scores: Floats, untrained: Floats | None = None, joint: Floats | None = None) -> Continual:
    """Compute the metrics of a matrix.

    Args:
        scores: [T, T]; row i has the scores after stage i, column j those of task j, which stage j trained. Entries
            above the diagonal may be nan, but then there is no forward transfer.
        untrained: [T] scores before the first stage.
        joint: [T] scores of a reference trained on all tasks jointly.

    Raises:
        ValueError: The matrix is not square, or lacks a score on or below its diagonal.
    """
    size = len(scores)
    if scores.ndim != 2 or scores.shape[1] != size or size == 0:
        raise ValueError(f"matrix of shape {scores.shape}, must be square: one stage per task")
    if not np.isfinite(scores[np.tril_indices(size)]).all():
        raise ValueError(
            "the matrix lacks scores on or below its diagonal; every task must have scores from its own stage onwards"
        )
    diagonal, last = np.diagonal(scores), scores[-1]
    whole, rest = f"T = {size}", f"T - 1 = {size - 1}"
    figures: dict[str, Figure | None] = dict.fromkeys(("bwt", "bwt_over_t", "bwt_all_pairs", "forgetting", "fwt"))
    if size > 1:
        lost = float((last - diagonal)[:-1].sum())
        figures["bwt"], figures["bwt_over_t"] = Figure(lost / (size - 1), rest), Figure(lost / size, whole)
        below = np.tril_indices(size, -1)
        pairs = size * (size - 1) // 2
        all_pairs = float((scores - diagonal)[below].mean())
        figures["bwt_all_pairs"] = Figure(all_pairs, f"T (T - 1) / 2 = {pairs}")
        seen = np.where(np.tri(size, dtype=bool), scores, -np.inf)[:-1, :-1].max(axis=0)
        figures["forgetting"] = Figure(float((seen - last[:-1]).mean()), rest)
        before = np.diagonal(scores, 1)
        if untrained is not None and np.isfinite(before).all():
            figures["fwt"] = Figure(float((before - untrained[1:]).mean()), rest)
    bwt_pairs = figures["bwt_all_pairs"]
    return Continual(
        tasks=size,
        acc=Figure(float(last.mean()), whole),
        la=Figure(float(diagonal.mean()), whole),
        remembering=None if bwt_pairs is None else 1 - abs(min(bwt_pairs.value, 0.0)),
        intransigence=None if joint is None else Figure(float((joint - diagonal).mean()), whole),
        **figures,
    )
