"""The report: one self-contained HTML file, which opens from disk without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from evalsvc import __version__, charts
from evalsvc.analysis.claims import DecidedClaim
from evalsvc.analysis.stored import ArmComparison, compare_many, load_frontier
from evalsvc.analysis.stored_claims import decide_stored_claims
from evalsvc.analysis.training_runs import follow_runs
from evalsvc.analysis.trajectory import Trajectory
from evalsvc.errors import EvalsvcError, EvidenceError
from evalsvc.gating.verify import read_rules
from evalsvc.records.frontier import Frontier
from evalsvc.reports.comparison import sort_by_loss
from evalsvc.reports.decisions import list_notes, list_runs, name_arms
from evalsvc.reports.formatting import LEVEL_NOTE, format_number, format_signed
from evalsvc.reports.frontier import sort_by_learning
from evalsvc.reports.report import describe_missing
from evalsvc.store.arms import find_family
from evalsvc.store.decisions import Decisions, Record
from evalsvc.store.store import Store


@dataclass(frozen=True, slots=True)
class ReportSections:
    """Further sections of a report, as far as the store has them: trajectories, claims, decisions."""

    trajectories: tuple[Trajectory, ...] = ()
    cards: tuple[DecidedClaim, ...] = ()
    decisions: tuple[Record, ...] = ()


def load_sections(store: Store, base_digest: str, base: str) -> ReportSections:
    """Return the trajectories, claims and decisions of a base's arms."""
    try:
        runs = follow_runs(store, base=base_digest)
    except EvidenceError:  # no step is finished; the frontier's caption lists them
        runs = []
    try:
        cards = decide_stored_claims(store, base)
    except EvidenceError:
        cards = []
    return ReportSections(tuple(runs), tuple(cards), tuple(Decisions(store.path).chain(base_digest)))


def build_figures(
    frontier: Frontier, compared: Sequence[ArmComparison], rest: ReportSections = ReportSections()
) -> dict[str, Any]:
    """Return a report's plotly figures in order, by names that are also file names."""
    figures: dict[str, Any] = {"frontier": charts.frontier_figure(frontier, charts.View(methods=True))}
    for position, comparison in enumerate(compared):
        in_score = [task for task in comparison.tasks if task.unit == "score"]
        if in_score:
            figures[_forest(position, comparison)] = charts.forest_figure([(comparison.adapted.label, in_score)])
    known = [curve for curve in map(_forgetting, rest.trajectories) if curve.steps]
    if known:
        margin = rest.trajectories[0].margin
        figures["trajectories"] = charts.curves_figure(known, "forgetting (positive is worse)", margin)
    figures |= {
        _rules(position, record): charts.rules_figure(read_rules(record))
        for position, record in enumerate(rest.decisions)
    }
    return {name: charts.prepare_for_paper(figure) for name, figure in figures.items()}


def render_page(
    frontier: Frontier,
    compared: Sequence[ArmComparison],
    rest: ReportSections,
    figures: Mapping[str, Any],
    created: datetime,
) -> str:
    """Return the page: figures by `build_figures`, tables and verdicts. Names from checkpoints are escaped."""
    environment = Environment(loader=PackageLoader("evalsvc.reports", ""), autoescape=select_autoescape())
    environment.filters |= {"number": format_number, "signed": format_signed, "missing": describe_missing}
    environment.filters |= {"arms": name_arms, "runs": list_runs, "notes": list_notes}
    return environment.get_template("report.html").render(
        frontier=frontier,
        points=sort_by_learning(frontier),
        compared=[(c, sort_by_loss(c.tasks), _forest(i, c)) for i, c in enumerate(compared)],
        rest=rest,
        decisions=[(record, read_rules(record), _rules(i, record)) for i, record in enumerate(rest.decisions)],
        plotly=charts.read_plotly_javascript(),
        figures={name: _script_safe(figure.to_json()) for name, figure in figures.items()},
        config=_script_safe(json.dumps(charts.CONFIG)),
        note=LEVEL_NOTE,
        created=f"{created:%Y-%m-%d %H:%M %Z}",
        version=__version__,
    )


def write_report(store: Store, base: str | None, path: Path) -> dict[str, Any]:
    """Write the report of a base and its arms, and return its figures by name.

    Raises:
        UsageError: The store cannot be used, or `base` is needed to choose.
        EvidenceError: The store has no adapted arm, or too few scores.
        EvalsvcError: The file cannot be written.
    """
    family = find_family(store.arms(), base)
    frontier = load_frontier(store, family)
    on_frontier = {point.arm for point in frontier.points if point.on_method_frontier}
    shown = [arm for arm in family.arms if len(family.arms) <= charts.MAX_DETAILED or arm.label in on_frontier]
    comparisons = compare_many(store, family.base, shown)
    # Arms that lack scores are listed in the frontier's caption.
    compared = [comparison for comparison in comparisons if not isinstance(comparison, EvidenceError)]
    rest = load_sections(store, family.base.checkpoint.digest, family.base.checkpoint.digest)
    figures = build_figures(frontier, compared, rest)
    try:
        path.write_text(render_page(frontier, compared, rest, figures, datetime.now(UTC)), encoding="utf-8")
    except OSError as error:
        raise EvalsvcError(f"report {path}: cannot be written: {error.strerror}") from error
    return figures


def _forest(position: int, compared: ArmComparison) -> str:
    return f"forest-{position}-{_slug(compared.adapted.label)}"


def _rules(position: int, record: Record) -> str:
    return f"rules-{position}-{_slug(record['checkpoint']['arm'])}"


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9@]+", "-", label)[:40].strip("-")


def _script_safe(text: str) -> str:
    """Return JSON escaped for a script element, which "</script>" in a text would end."""
    return text.replace("<", "\\u003c")


def _forgetting(run: Trajectory) -> charts.PlottedCurve:
    rows = [(step.step, step.forgetting) for step in run.steps if step.forgetting is not None]
    return charts.PlottedCurve(
        run.name, tuple(step for step, _ in rows), tuple(change for _, change in rows), run.first_above
    )
