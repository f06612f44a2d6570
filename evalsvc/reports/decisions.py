"""Decisions of a gate: verdict, rules, lost items; and the verification of a decision.

Texts of items come from data sets; they are truncated and escaped.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.gating.candidates import describe_candidate
from evalsvc.reports.formatting import (
    format_count,
    format_interval,
    format_number,
    format_percent,
    format_signed,
    new_line,
    new_table,
)
from evalsvc.reports.report import Report

if TYPE_CHECKING:
    from evalsvc.gating.decisions import Decision
    from evalsvc.gating.verdict import RuleOutcome, Verdict
    from evalsvc.store.decisions import Record

LONGEST_QUOTE = 200
SHOWN_BLIND_SPOTS = 3
MOST_NEEDED = 1_000_000
"""More further units of evidence are not advised."""
MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


@dataclass(frozen=True, slots=True, repr=False)
class GateReport(Report):
    """A decision, as `gate` shows it."""

    ROWS: ClassVar[str] = "rules"
    decision: Decision

    @property
    def verdict(self) -> Verdict:
        """The verdict: "pass", "fail" or "inconclusive"."""
        return self.decision.outcome.verdict

    @property
    def exit_code(self) -> int:
        """0 pass, 3 fail, 4 inconclusive."""
        return self.decision.outcome.exit_code

    @property
    def rules(self) -> tuple[RuleOutcome, ...]:
        """Every rule of the policy, with its estimate and its test."""
        return self.decision.outcome.rules

    def content(self) -> dict[str, Any]:
        """Return the verdict, every rule, looks, waivers, lost items, and the path of the decision record."""
        record, outcome = self.decision.record, self.decision.outcome
        looks = outcome.looks
        return {
            "verdict": outcome.verdict,
            "exit_code": outcome.exit_code,
            "degraded": outcome.is_degraded,
            "base": record["base"]["arm"],
            "base_digest": record["base"]["digest"],
            "checkpoint": record["checkpoint"]["arm"],
            "digest": record["checkpoint"]["digest"],
            "incumbent": record["incumbent"]["arm"] if record["incumbent"] else None,
            "runs": record.get("runs", []),
            "policy": record["policy"]["digest"],
            "mode": record["policy"]["content"]["mode"],
            "alpha": record["policy"]["content"]["alpha"],
            "rules": [{**asdict(rule), "short": describe_shortage(rule) or None} for rule in outcome.rules],
            "looks": looks,
            "items_saved": looks[-1].of - looks[-1].items if looks else 0,
            "waivers": record["waivers"],
            "candidate": record["candidate"],
            "half": record["half"],
            "lost_items": [{**asdict(item), "doc": truncate(quote(item.doc))} for item in self.decision.lost],
            "warnings": self.decision.warnings,
            "decision": {"digest": record["digest"], "previous": record["previous"], "path": self.decision.path},
        }

    def tables(self) -> list[Table | Text]:
        """Return the verdict, every rule, items that inconclusive rules need, lost items and warnings."""
        decision, outcome = self.decision, self.decision.outcome
        parts: list[Table | Text] = [new_line(write_headline(decision), "bold")]
        parts += [new_line(line) for line in list_runs(decision.record)]
        parts.append(self._rules_table())
        if outcome.looks:
            last = outcome.looks[-1]
            saved = f"{format_percent(1 - last.items / last.of)} saved"
            parts.append(
                new_line(f"decided at interim look {last.number} with {last.items:,} of {last.of:,} items ({saved})")
            )
        parts.append(new_line(write_candidate(decision)))
        parts += [new_line(line) for line in list_shortages(decision)]
        if decision.lost:
            lost = new_table("Worst lost items", "task", "base", "adapted", "target", "item")
            for item in decision.lost:
                lost.add_row(
                    f"{item.suite}/{item.task}",
                    format_number(item.base),
                    format_number(item.adapted),
                    truncate(item.target, 40),
                    truncate(quote(item.doc)),
                )
            parts.append(lost)
        for warning in decision.warnings:
            parts.append(Text.assemble(("warning ", "bold"), to_one_line(warning), no_wrap=True, overflow="ignore"))
        parts.append(new_line(f"record {decision.path}"))
        return parts

    def _rules_table(self) -> Table:
        alpha = self.decision.record["candidate"]["alpha"]
        table = new_table(
            "Rules",
            *("", "rule", "#estimate", "#interval", "#margin", "#n", "#lost", "#gained", "test", "note"),
            caption="estimate = adapted - base, positive is better; the interval's ends are one-sided bounds "
            f"at alpha {alpha:.3g}",
        )
        for rule in self.rules:
            table.add_row(*format_rule(rule))
        return table


def write_headline(decision: Decision) -> str:
    """Return the verdict in one line."""
    outcome = decision.outcome
    label = ""
    if outcome.is_degraded and outcome.verdict == "pass":
        label = " (degraded: a loss is significant, but within its margin)"
    if outcome.is_degraded and outcome.verdict == "inconclusive":
        label = " (degraded: a loss is significant; whether it is within its margin is undecided)"
    return f"{outcome.verdict.upper()}{label}: {name_arms(decision.record)}"


def name_arms(record: Record) -> str:
    """Return which arm a decision is about, and against which ones, in one line."""
    incumbent = f" and {record['incumbent']['arm']}, which is served now" if record.get("incumbent") else ""
    runs = len({run["number"] for run in record.get("runs", [])})
    kind = f" (recipe, mean of {runs} independent runs)" if runs else ""
    return to_one_line(f"{record['checkpoint']['arm']}{kind} against {record['base']['arm']}{incumbent}")


def list_runs(record: Record) -> list[str]:
    """Return the runs of a recipe, one line each; empty for one checkpoint."""
    return [to_one_line(f"run {run['number']}: {run['arm']}, seed {run['seed']}") for run in record.get("runs", [])]


def write_candidate(decision: Decision) -> str:
    """Return which candidate on its evidence was tested at which level, in one line."""
    record = decision.record
    return describe_candidate(record["candidate"], record["policy"]["content"]["alpha"])


def describe_shortage(rule: RuleOutcome) -> str:
    """Return how many more units of evidence an inconclusive rule needs, in words; empty if the rule is decided."""
    if rule.verdict != "inconclusive":
        return ""
    if rule.is_blind:
        lack = "gain" if rule.kind == "learning" else "lose"
        return (
            f"the base has nothing to {lack} on more than half of the items ({_list_blind_spots(rule)}): use other "
            "tasks, or name these in require.allow_blind_spots of the policy"
        )
    needs = _describe_needs(rule)
    if rule.kind == "exchange":  # its margin is a rate, and what is resolved a score
        return needs
    runs = f"{len(rule.run_gains)} runs and " if rule.run_gains else ""
    resolve = f"{runs}{rule.units:,} {rule.unit_of_evidence} resolve a margin of {rule.resolvable_margin:.3f}"
    return f"{needs}; {resolve}"


def _describe_needs(rule: RuleOutcome) -> str:
    """Return what an inconclusive rule needs."""
    needs = []
    if rule.needed_runs is not None:
        needs.append(f"{rule.needed_runs - len(rule.run_gains):,} more runs")
    if rule.needed_n is not None and not is_endless(rule):
        needs.append(f"{rule.needed_n - rule.units:,} more {rule.unit_of_evidence}")
    if needs:
        return f"needs {' or '.join(needs)}"
    kind = "evidence" if rule.run_gains else rule.unit_of_evidence
    if is_endless(rule):
        return f"more {kind} would hardly help: the estimate is almost at the threshold"
    if rule.run_gains and rule.estimate > rule.threshold:
        return "needs more runs and more items"
    return f"more {kind} would not change this"


def is_endless(rule: RuleOutcome) -> bool:
    """Whether a rule needs more units than any evaluation has."""
    return rule.needed_n is not None and rule.needed_n - rule.units > MOST_NEEDED


def _list_blind_spots(rule: RuleOutcome) -> str:
    shown = rule.blind_spots[:SHOWN_BLIND_SPOTS]
    more = len(rule.blind_spots) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more else "")


def list_shortages(decision: Decision) -> list[str]:
    """Return what inconclusive rules need, one line per rule; empty unless the verdict is inconclusive."""
    if decision.outcome.verdict != "inconclusive":
        return []
    return [
        f"{rule.rule}: {describe_shortage(rule)}"
        for rule in decision.outcome.rules
        if describe_shortage(rule) and not rule.waived
    ]


def format_rule(rule: RuleOutcome) -> list[str]:
    """Return the cells of a rule's table row."""
    return [
        f"{MARKS[rule.verdict]} {rule.verdict}",
        rule.rule,
        format_signed(rule.estimate),
        format_interval(rule.low, rule.high),
        f"{rule.margin:g}",
        format_count(rule.n),
        format_count(rule.lost),
        format_count(rule.gained),
        rule.test,
        "; ".join(list_notes(rule)),
    ]


def list_notes(rule: RuleOutcome) -> list[str]:
    """Return what a reader must know of a rule beside its numbers: waiver, blind spots, gains of a recipe's runs."""
    notes = [
        f"waived: {rule.waived}" if rule.waived else "",
        "degraded" if rule.degraded else "",
        f"no evidence: {_list_blind_spots(rule)}" if rule.blind_spots else "",
        f"runs {', '.join(map(format_signed, rule.run_gains))}" if rule.run_gains else "",
    ]
    return [note for note in notes if note]


@dataclass(frozen=True, slots=True, repr=False)
class VerifyReport(Report):
    """The verification of a decision, as `verify` shows it.

    Attributes:
        differences: Differences between the record and the recomputed decision; empty if the decision holds.
        only_evidence: Whether only the evidence was compared, because the record has older statistics.
    """

    ROWS: ClassVar[str] = "differences"
    record: Record
    differences: tuple[str, ...]
    only_evidence: bool

    @property
    def is_equal(self) -> bool:
        """Whether the decision holds."""
        return not self.differences

    def content(self) -> dict[str, Any]:
        """Return whether the decision holds, and the differences."""
        return {
            "decision": self.record.get("digest"),
            "equal": self.is_equal,
            "only_evidence": self.only_evidence,
            "differences": self.differences,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per difference."""
        return [{"difference": difference} for difference in self.differences]

    def tables(self) -> list[Table | Text]:
        """Return one line per difference."""
        if self.differences:
            return [new_line(difference) for difference in self.differences]
        record = self.record
        lines: list[Table | Text] = [
            new_line(f"equal: {record['verdict']} for {record['checkpoint']['arm']}, {record['decided']}")
        ]
        if self.only_evidence:
            by = record["packages"]["evalsvc"]
            lines.append(
                new_line(
                    f"compared: policy, suites, items and scores; bounds and p-values are those of evalsvc {by}, which "
                    "this version computes otherwise (CHANGELOG); gate again for a verdict by today's"
                )
            )
        return lines


# ---------------------------------------------------------------------------------------------------- texts of items


def quote(doc: str) -> str:
    """Return the longest text field of a document, else the whole document."""
    try:
        content = json.loads(doc)
    except ValueError:
        return doc
    texts = [value for value in content.values() if isinstance(value, str)] if isinstance(content, dict) else []
    return max(texts, key=len) if texts else doc


def truncate(text: str, longest: int = LONGEST_QUOTE) -> str:
    """Return one line of printable text, truncated to `longest` characters."""
    line = to_one_line(text)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def to_one_line(text: str) -> str:
    """Return text as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
