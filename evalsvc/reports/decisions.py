"""Decisions and forecasts in, text out: tables, JSON, Markdown and JUnit XML. Decides nothing.

Texts of items come from data sets: they are cut, and escaped for where they go.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from rich.markup import escape
from rich.table import Table

from evalsvc.reports.formatting import format_interval, format_number, format_signed

if TYPE_CHECKING:
    from evalsvc.gating.decisions import Decision, LostItem
    from evalsvc.gating.power import RuleForecast
    from evalsvc.gating.verdict import RuleOutcome


SCHEMA = 1
LONGEST_QUOTE = 200
_MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}
_NOT_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def headline(decision: Decision) -> str:
    """Return the verdict in one line."""
    record, outcome = decision.record, decision.outcome
    label = " (degraded: a loss is real, if within margins)" if outcome.degraded and outcome.verdict == "pass" else ""
    if outcome.degraded and outcome.verdict == "inconclusive":
        label = " (degraded: a loss is real, its size undecided)"
    arms = printable(f"{record['checkpoint']['arm']} against {record['base']['arm']}")
    return f"{outcome.verdict.upper()}{label}: {arms}"


def shortage(rule: RuleOutcome) -> str:
    """Return what an undecided rule would need, in words; empty if it is decided."""
    if rule.verdict != "inconclusive":
        return ""
    resolves = f"{rule.n:,} items resolve {rule.resolvable_margin:.3f}"
    if rule.needed_n is None:
        return f"at this estimate no number of items would show it; {resolves}"
    return f"needs {rule.needed_n - rule.n:,} items more; {resolves}"


def shortages(decision: Decision) -> list[str]:
    """Return which rules are short, and of what, where that is why nothing is decided."""
    if decision.outcome.verdict != "inconclusive":
        return []
    return [f"{rule.rule}: {shortage(rule)}" for rule in decision.outcome.rules if shortage(rule) and not rule.waived]


# ------------------------------------------------------------------------------------------------------------- JSON


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return a decision as `gate --json` prints it."""
    record, outcome = decision.record, decision.outcome
    looks = [asdict(look) for look in outcome.looks]
    return {
        "schema": SCHEMA,
        "verdict": outcome.verdict,
        "exit_code": outcome.exit_code,
        "degraded": outcome.degraded,
        "base": record["base"]["arm"],
        "base_digest": record["base"]["digest"],
        "checkpoint": record["checkpoint"]["arm"],
        "digest": record["checkpoint"]["digest"],
        "policy": record["policy"]["digest"],
        "mode": record["policy"]["content"]["mode"],
        "alpha": record["policy"]["content"]["alpha"],
        "rules": [{**asdict(rule), "short": shortage(rule) or None} for rule in outcome.rules],
        "looks": looks,
        "items_saved": looks[-1]["of"] - looks[-1]["items"] if looks else 0,
        "waivers": record["waivers"],
        "batch": record["batch"],
        "half": record["half"],
        "lost_items": [{**asdict(item), "doc": shorten(quote(item.doc))} for item in decision.lost],
        "warnings": list(decision.warnings),
        "decision": {"digest": record["digest"], "previous": record["previous"], "path": str(decision.path)},
    }


def forecast_json(rules: Sequence[RuleForecast], requests: int, seconds: float | None) -> dict[str, Any]:
    """Return a forecast as `gate --plan --json` prints it."""
    return {
        "schema": SCHEMA,
        "rules": [asdict(rule) for rule in rules],
        "power": joint_power(rules),
        "requests": requests,
        "seconds": seconds,
    }


# ------------------------------------------------------------------------------------------------------------ tables


def decision_tables(decision: Decision) -> list[Table | str]:
    """Show a decision: verdict, every rule, what is short, what was lost."""
    parts: list[Table | str] = [f"[bold]{escape(headline(decision))}[/bold]", _rules_table(decision)]
    outcome = decision.outcome
    if outcome.looks:
        last = outcome.looks[-1]
        saved = f"{1 - last.items / last.of:.0%} saved"
        parts.append(f"decided at look {last.number} with {last.items:,} of {last.of:,} items ({saved})")
    parts += [escape(line) for line in shortages(decision)]
    if decision.lost:
        lost = Table(title="Worst lost items", title_justify="left", header_style="bold")
        for column in ("task", "base", "adapted", "target", "item"):
            lost.add_column(column)
        for item in decision.lost:
            level, other = format_number(item.base), format_number(item.adapted)
            lost.add_row(
                f"{item.suite}/{item.task}",
                level,
                other,
                escape(shorten(item.target, 40)),
                escape(shorten(quote(item.doc))),
            )
        parts.append(lost)
    parts += [f"[bold]warning[/bold] {escape(printable(warning))}" for warning in decision.warnings]
    parts.append(f"record {escape(str(decision.path))}")
    return parts


def _rules_table(decision: Decision) -> Table:
    alpha = decision.record["policy"]["content"]["alpha"]
    table = Table(
        caption="estimate = adapted - base, better counted positive; the interval's ends are one-sided bounds "
        f"at alpha {alpha:g}",
        caption_justify="left",
        header_style="bold",
    )
    for column in ("", "rule", "#estimate", "#interval", "#margin", "#n", "#lost", "#gained", "test", "note"):
        table.add_column(column.lstrip("#"), justify="right" if column.startswith("#") else "left")
    for rule in decision.outcome.rules:
        table.add_row(*(escape(cell) for cell in _cells(rule)))
    return table


def _cells(rule: RuleOutcome) -> list[str]:
    notes = [f"waived: {rule.waived}" if rule.waived else "", "degraded" if rule.degraded else ""]
    return [
        f"{_MARKS[rule.verdict]} {rule.verdict}",
        rule.rule,
        format_signed(rule.estimate),
        f"{format_signed(rule.low)} .. {format_signed(rule.high)}",
        f"{rule.margin:g}",
        f"{rule.n:,}",
        "-" if rule.lost is None else str(rule.lost),
        "-" if rule.gained is None else str(rule.gained),
        rule.test,
        "; ".join(note for note in notes if note),
    ]


def forecast_table(rules: Sequence[RuleForecast], requests: int, seconds: float | None) -> Table:
    """Show what a policy can resolve, and what that costs."""
    took = "time unknown: no run in the store has taken long enough" if seconds is None else f"about {_time(seconds)}"
    table = Table(
        title="What the policy can resolve",
        title_justify="left",
        caption=f"an unchanged checkpoint meets all retention rules in about {joint_power(rules):.0%} of runs;\n"
        f"to score: {requests:,} requests, {took}",
        caption_justify="left",
        header_style="bold",
    )
    for column in ("rule", "#margin", "#n", "#changed", "", "#resolves", "#power", "#needs n"):
        table.add_column(column.lstrip("#"), justify="right" if column.startswith("#") else "left")
    for rule in rules:
        table.add_row(
            escape(rule.rule),
            f"{rule.margin:g}",
            f"{rule.n:,}",
            f"{rule.discordance:.1%}",
            "seen" if rule.seen else "assumed",
            f"{rule.resolvable:.3f}",
            "-" if rule.power is None else f"{rule.power:.0%}",
            "-" if rule.needed_n is None else f"{rule.needed_n:,}",
        )
    return table


def joint_power(rules: Sequence[RuleForecast]) -> float:
    """Return the chance that an unchanged checkpoint meets all retention rules, were they independent."""
    chance = 1.0
    for rule in rules:
        chance *= 1.0 if rule.power is None else rule.power
    return chance


def _time(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )


# ---------------------------------------------------------------------------------------------------------- Markdown


def markdown(decision: Decision) -> str:
    """Return a decision as Markdown, for a job's summary."""
    lines = [f"### {_MARKS[decision.outcome.verdict]} {_code_free(headline(decision))}", ""]
    lines += ["| verdict | rule | estimate | interval | margin | n | lost | gained | test | note |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|---|---|"]
    lines += [f"| {' | '.join(_code_free(cell) for cell in _cells(rule))} |" for rule in decision.outcome.rules]
    lines += [""]
    if decision.outcome.looks:
        last = decision.outcome.looks[-1]
        lines += [f"Decided at look {last.number} with {last.items:,} of {last.of:,} items.", ""]
    lines += [f"- {_code_free(line)}" for line in shortages(decision)]
    if decision.lost:
        lines += ["", "<details><summary>Worst lost items</summary>", ""]
        lines += [f"- {_code_free(f'{item.suite}/{item.task}')}: {_quote_item(item)}" for item in decision.lost]
        lines += ["", "</details>"]
    lines += [f"- **warning** {_code_free(warning)}" for warning in decision.warnings]
    lines += ["", f"Decision `{decision.record['digest'][:16]}`", ""]
    return "\n".join(lines)


def no_verdict_markdown(checkpoint: str, error: str) -> str:
    """Return why nothing was decided, as Markdown."""
    return f"### ✗ NO VERDICT: {_code_free(checkpoint)}\n\n{_code_free(error)}\n"


def _quote_item(item: LostItem) -> str:
    target = f" (target {_code_free(shorten(item.target, 40))})" if item.target else ""
    return f"{_code_free(shorten(quote(item.doc)))}{target}"


def _code_free(text: str) -> str:
    """Return text that Markdown and HTML show as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~@])", r"\\\1", html.escape(printable(text), quote=False))


def quote(doc: str) -> str:
    """Return what people should read of a document: its longest text, else all of it."""
    try:
        found = json.loads(doc)
    except ValueError:
        return doc
    texts = [value for value in found.values() if isinstance(value, str)] if isinstance(found, dict) else []
    return max(texts, key=len) if texts else doc


def shorten(text: str, longest: int = LONGEST_QUOTE) -> str:
    """Return one line of printable text, cut at `longest` characters."""
    line = printable(text)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def printable(text: str) -> str:
    """Return text as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


# ------------------------------------------------------------------------------------------------------------- JUnit


def junit(decision: Decision) -> str:
    """Return a decision as JUnit XML: one testcase per rule, and one for what the rules do not say."""
    outcome = decision.outcome
    suite = ElementTree.Element("testsuite", {"name": _xml(f"evalsvc gate {decision.record['checkpoint']['arm']}")})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (
        ("verdict", outcome.verdict),
        ("checkpoint", decision.record["checkpoint"]["digest"]),
        ("base", decision.record["base"]["digest"]),
        ("policy", decision.record["policy"]["digest"]),
        ("decision", decision.record["digest"]),
    ):
        ElementTree.SubElement(properties, "property", {"name": name, "value": _xml(value)})
    for rule in outcome.rules:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "evalsvc.gate", "name": _xml(rule.rule)})
        told = _describe_rule(rule)
        if rule.waived:
            ElementTree.SubElement(case, "skipped", {"message": _xml(f"waived: {rule.waived}; {told}")})
        elif rule.verdict != "pass":
            failure = ElementTree.SubElement(case, "failure", {"type": rule.verdict, "message": _xml(told)})
            failure.text = _xml("\n".join(_lost_lines(rule, decision.lost)))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(told)
    if outcome.is_blocked_by_batch and outcome.batch is not None:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "evalsvc.gate", "name": "batch"})
        message = f"corrected for all candidates, the p-value is {outcome.batch.adjusted:.4f}"
        ElementTree.SubElement(case, "failure", {"type": outcome.verdict, "message": message})
    return _document(suite)


def no_verdict_junit(checkpoint: str, error: str) -> str:
    """Return why nothing was decided, as JUnit XML with one error."""
    suite = ElementTree.Element("testsuite", {"name": _xml(f"evalsvc gate {checkpoint}")})
    case = ElementTree.SubElement(suite, "testcase", {"classname": "evalsvc.gate", "name": "evidence"})
    ElementTree.SubElement(case, "error", {"type": "evidence", "message": _xml(error)})
    return _document(suite)


def _describe_rule(rule: RuleOutcome) -> str:
    parts = [
        f"{rule.verdict}: estimate {format_signed(rule.estimate)}, interval {format_interval(rule.low, rule.high)}, "
        f"margin {rule.margin:g}, n {rule.n}, {rule.test}",
        shortage(rule),
    ]
    return "; ".join(part for part in parts if part)


def _lost_lines(rule: RuleOutcome, lost: Sequence[LostItem]) -> list[str]:
    of_rule = [item for item in lost if item.suite == rule.suite and rule.task in (None, item.task)]
    return [f"lost: {item.suite}/{item.task}: {shorten(quote(item.doc))}" for item in of_rule]


def _document(suite: ElementTree.Element) -> str:
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    """Return text without the characters that XML 1.0 cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
