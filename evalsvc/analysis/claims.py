"""Tests of claims about adaptation: supported, refuted or undecided. Pure: no I/O.

A claim about a checkpoint is tested on its items. A claim about a *method* is tested on independent training runs:
items do not show the variation between seeds, so with fewer than three runs of either method it is undecided. Copies of
a run, runs with the same seed and steps of one run count once (see `independent_runs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from evalsvc.analysis.independent_runs import RunIdentity, RunScores, merge_dependent_runs
from evalsvc.analysis.trajectory import MARGIN, ChangeEstimate
from evalsvc.records.vocabulary import Role
from evalsvc.stats.groups import welch
from evalsvc.stats.regression import Line, line

SEEDS = 3

Verdict = Literal["supported", "refuted", "undecided"]
Measure = Literal["learning", "forgetting", "text", "diversity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One training run at its last step.

    Attributes:
        method: The method's name as given.
        name: Name that all steps of the run share.
        kinds: Kinds of run (`methods.list_kinds`); empty for a method without a group.
        learning, forgetting: Compared with the base; positive forgetting is worse.
        text: Increase in bits per byte over the base on general text; positive is worse.
        diversity: unique@K as a ratio to the base's.
        drift: Forward KL from the base, in nats per token.
        no_drift: Why there is no drift although the run was scored on texts.
        roles: Gains by role with their intervals over items; positive is better.
        step: Training step.
        seed: Recorded seed of the training; None if none is recorded.
        folder: The folder of the run's steps; None if there is none.
        scores: Scores of its items, which tell copies of a run from independent runs.
    """

    name: str
    arm: str
    kinds: frozenset[str]
    method: str = ""
    learning: float | None = None
    forgetting: float | None = None
    text: float | None = None
    diversity: float | None = None
    drift: float | None = None
    no_drift: str | None = None
    roles: tuple[tuple[Role, ChangeEstimate], ...] = ()
    step: int | None = None
    seed: int | None = None
    folder: str | None = None
    scores: RunScores = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> RunIdentity:
        """What tells it from other runs."""
        return RunIdentity(label=self.arm, method=self.method, seed=self.seed, folder=self.folder, scores=self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodClaim:
    """A claim that one kind of run has a larger `measure` than another."""

    name: str
    text: str
    measure: Measure
    more: str
    less: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedClaim:
    """A claim with its verdict.

    Attributes:
        about: The arms or matrices that it was tested on.
        estimate, low, high: The tested quantity with its 90 % interval.
        reason: Reason for the verdict, in one sentence.
        evidence: The numbers behind it, one line per run or role.
    """

    claim: str
    text: str
    about: str
    verdict: Verdict
    test: str
    estimate: float | None
    low: float | None
    high: float | None
    p_value: float | None
    reason: str
    evidence: tuple[str, ...]


METHOD_CLAIMS = (
    MethodClaim(
        name="full-forgets-more",
        text="full fine-tuning forgets more than LoRA",
        measure="forgetting",
        more="full",
        less="lora",
    ),
    MethodClaim(
        name="full-learns-more",
        text="full fine-tuning learns more than LoRA",
        measure="learning",
        more="full",
        less="lora",
    ),
    MethodClaim(
        name="peft-keeps-diversity",
        text="PEFT keeps more diversity than full fine-tuning",
        measure="diversity",
        more="peft",
        less="full",
    ),
    MethodClaim(
        name="replay-keeps-text",
        text="CPT with replay keeps general text",
        measure="text",
        more="no replay",
        less="replay",
    ),
)
FELL = "general-and-instruction-fell"
PREDICTS = "drift-predicts-forgetting"


def take_last_steps(runs: Sequence[TrainingRun]) -> tuple[TrainingRun, ...]:
    """Return the last step of every training run, in the order of the runs; of equal steps the later one."""
    last: dict[tuple[str, int | None], TrainingRun] = {}
    for run in runs:
        earlier = last.setdefault((run.name, run.seed), run)
        if (run.step or 0) >= (earlier.step or 0):
            last[run.name, run.seed] = run
    return tuple(last.values())


def decide_method_claim(claim: MethodClaim, runs: Sequence[TrainingRun], about: str) -> DecidedClaim | None:
    """Test a claim about two methods; None if no run is of either kind.

    Uses Welch's t over independent runs: supported if the two-sided 90 % interval of the difference is above 0, refuted
    if below. Runs that count as one have the mean of their values.
    """
    groups = [
        [(run, value) for run in runs if kind in run.kinds and (value := getattr(run, claim.measure)) is not None]
        for kind in (claim.more, claim.less)
    ]
    if not any(groups):
        return None
    evidence = tuple(
        f"{kind}: {_format_values(group)}" for kind, group in zip((claim.more, claim.less), groups, strict=True)
    )
    evidence += tuple(
        f"{run.arm} is left out: its method {run.method!r} is not in a known group of methods"
        for run in runs
        if not run.kinds and getattr(run, claim.measure) is not None
    )
    merged = [merge_dependent_runs([run.identity for run, _ in group]) for group in groups]
    evidence += tuple(reason for independent in merged for run in independent for reason in run.reasons)
    counts = [len(independent) for independent in merged]
    values = [
        np.array([np.mean([group[member][1] for member in run.members]) for run in independent])
        for group, independent in zip(groups, merged, strict=True)
    ]
    estimate = float(values[0].mean() - values[1].mean()) if all(counts) else None
    card = DecidedClaim(
        claim=claim.name,
        text=claim.text,
        about=about,
        verdict="undecided",
        test="none",
        estimate=estimate,
        low=None,
        high=None,
        p_value=None,
        reason="",
        evidence=evidence,
    )
    if min(counts) < SEEDS:
        numbers = ", ".join(
            _count_runs(kind, count, len(group))
            for kind, count, group in zip((claim.more, claim.less), counts, groups, strict=True)
        )
        return replace(
            card, reason=f"{numbers}: too few; a claim about methods needs at least {SEEDS} seeds per method"
        )
    try:
        difference = welch(values[0], values[1])
    except ValueError as error:
        return replace(card, reason=f"{claim.measure} of {claim.more} and {claim.less}: {error}; score more items")
    return replace(
        card,
        verdict=_judge_interval(difference.low, difference.high),
        test=f"Welch t over runs, {difference.df:.1f} df",
        low=difference.low,
        high=difference.high,
        p_value=difference.p_value,
        reason=f"{claim.measure} of {claim.more} minus {claim.less}, over {counts[0]} and {counts[1]} runs: "
        f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}], for these items",
    )


def _count_runs(kind: str, independent: int, runs: int) -> str:
    """Return the number of independent runs in words: "1 full run", "1 independent full run (of 3)"."""
    plural = "" if independent == 1 else "s"
    if independent == runs:
        return f"{independent} {kind} run{plural}"
    return f"{independent} independent {kind} run{plural} (of {runs})"


def _format_values(group: Sequence[tuple[TrainingRun, float]]) -> str:
    return ", ".join(f"{run.arm} {value:+.3f}" for run, value in group) or "no run"


def _judge_interval(low: float, high: float) -> Verdict:
    if low > 0:
        return "supported"
    return "refuted" if high < 0 else "undecided"


def decide_drop_claim(run: TrainingRun, margin: float = MARGIN) -> DecidedClaim:
    """Test whether both general ability and instruction following of a checkpoint dropped, on its items.

    Supported if both dropped significantly (intersection-union test, 5 % without correction). Refuted if a drop by the
    margin is excluded for one of them.
    """
    gains = dict(run.roles)
    evidence, verdicts = [], []
    for role in ("general", "instruction"):
        gain = gains.get(role)
        if gain is None or gain.low is None or gain.high is None:
            evidence.append(f"{role}: no suite with an interval was scored")
            verdicts.append("undecided")
            continue
        evidence.append(f"{role}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
        verdicts.append("supported" if gain.high < 0 else "refuted" if gain.low > -margin else "undecided")
    verdict: Verdict = "undecided"
    reason = "not both dropped significantly, and for neither is a drop by the margin excluded"
    if set(verdicts) == {"supported"}:
        verdict, reason = "supported", "both dropped significantly (one-sided 5 %)"
    elif "refuted" in verdicts:
        kept = ("general", "instruction")[verdicts.index("refuted")]
        verdict, reason = "refuted", f"{kept}: a drop by {margin:g} is excluded"
    return DecidedClaim(
        claim=FELL,
        text="general QA and instruction following dropped",
        about=run.arm,
        verdict=verdict,
        test="one-sided 5 % bounds of both roles",
        estimate=None,
        low=None,
        high=None,
        p_value=None,
        reason=reason,
        evidence=tuple(evidence),
    )


def decide_drift_claim(runs: Sequence[TrainingRun], about: str) -> tuple[DecidedClaim, Line | None]:
    """Test whether drift predicts forgetting, by least squares over independent runs at their last step.

    Returns:
        The claim, and the line through all checkpoints, for a figure: steps of one run are not independent, so that
        line has no verdict.
    """
    known = [run for run in runs if run.drift is not None and run.forgetting is not None]
    candidates = take_last_steps(known)
    merged = merge_dependent_runs([run.identity for run in candidates])
    evidence = tuple(f"{run.arm}: KL {run.drift:.4f}, forgetting {run.forgetting:+.3f}" for run in known)
    evidence += tuple(reason for run in merged for reason in run.reasons)
    evidence += tuple(f"{run.arm} is left out: {run.no_drift}" for run in runs if run.no_drift)
    picture = _fit_line([(run.drift or 0.0, run.forgetting or 0.0) for run in known])
    fitted = _fit_line(
        [
            (
                float(np.mean([candidates[member].drift for member in run.members])),
                float(np.mean([candidates[member].forgetting for member in run.members])),
            )
            for run in merged
        ]
    )
    card = DecidedClaim(
        claim=PREDICTS,
        text="KL drift from the base predicts forgetting",
        about=about,
        verdict="undecided",
        test="none",
        estimate=None,
        low=None,
        high=None,
        p_value=None,
        reason="",
        evidence=evidence,
    )
    shown = ""
    if isinstance(picture, Line) and len(known) > len(merged):
        shown = (
            f"; over all {picture.n} checkpoints, which are not independent, the slope is {picture.slope:+.3f} per nat "
            f"and R2 {picture.r2:.2f}"
        )
    line_shown = picture if isinstance(picture, Line) else None
    if isinstance(fitted, str):
        return replace(card, reason=f"independent runs with both: {fitted}{shown}"), line_shown
    reason = (
        f"slope {fitted.slope:+.3f} [{fitted.slope_low:+.3f}, {fitted.slope_high:+.3f}] per nat, "
        f"{fitted.n} independent runs, R2 {fitted.r2:.2f} [{fitted.r2_low:.2f}, {fitted.r2_high:.2f}]{shown}"
    )
    card = replace(
        card,
        verdict=_judge_interval(fitted.slope_low, fitted.slope_high),
        test="least squares, t of the slope",
        estimate=fitted.slope,
        low=fitted.slope_low,
        high=fitted.slope_high,
        p_value=fitted.p_value,
        reason=reason,
    )
    return card, line_shown


def _fit_line(points: Sequence[tuple[float, float]]) -> Line | str:
    """Return the line through (drift, forgetting), or why there is none."""
    try:
        return line(np.array([x for x, _ in points]), np.array([y for _, y in points]))
    except ValueError as error:
        return str(error)


def decide_claims(
    runs: Sequence[TrainingRun], checkpoints: Sequence[TrainingRun], about: str, margin: float = MARGIN
) -> list[DecidedClaim]:
    """Test every claim that applies to the runs.

    Args:
        runs: Training runs at their last step.
        checkpoints: All checkpoints, for the regression of forgetting on drift.
    """
    cards = [card for claim in METHOD_CLAIMS if (card := decide_method_claim(claim, runs, about)) is not None]
    cards += [
        decide_drop_claim(run, margin) for run in runs if {"general", "instruction"} & {role for role, _ in run.roles}
    ]
    if any(run.drift is not None or run.no_drift for run in checkpoints):
        cards.append(decide_drift_claim(checkpoints, about)[0])
    return cards
