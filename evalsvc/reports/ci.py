"""Decisions for CI servers: Markdown and JUnit XML, also if there is no decision."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from evalsvc.reports.decisions import (
    MARKS,
    describe_shortage,
    format_rule,
    list_runs,
    list_shortages,
    quote,
    to_one_line,
    truncate,
    write_candidate,
    write_headline,
)
from evalsvc.reports.formatting import format_interval, format_signed

if TYPE_CHECKING:
    from evalsvc.gating.decisions import Decision, LostItem
    from evalsvc.gating.verdict import RuleOutcome

_NOT_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")

# ---------------------------------------------------------------------------------------------------------- Markdown


def write_markdown(decision: Decision) -> str:
    """Return a decision as Markdown, for the summary of a CI job."""
    lines = [f"### {MARKS[decision.outcome.verdict]} {_escape_markdown(write_headline(decision))}", ""]
    if runs := list_runs(decision.record):
        lines += [*(f"- {_escape_markdown(line)}" for line in runs), ""]
    lines += ["| verdict | rule | estimate | interval | margin | n | lost | gained | test | note |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|---|---|"]
    lines += [
        f"| {' | '.join(_escape_markdown(cell) for cell in format_rule(rule))} |" for rule in decision.outcome.rules
    ]
    lines += [""]
    if decision.outcome.looks:
        last = decision.outcome.looks[-1]
        lines += [f"Decided at look {last.number} with {last.items:,} of {last.of:,} items.", ""]
    lines += [f"- {_escape_markdown(line)}" for line in (write_candidate(decision), *list_shortages(decision))]
    if decision.lost:
        lines += ["", "<details><summary>Worst lost items</summary>", ""]
        lines += [f"- {_escape_markdown(f'{item.suite}/{item.task}')}: {_quote_item(item)}" for item in decision.lost]
        lines += ["", "</details>"]
    lines += [f"- **warning** {_escape_markdown(warning)}" for warning in decision.warnings]
    lines += ["", f"Decision `{decision.record['digest'][:16]}`", ""]
    return "\n".join(lines)


def write_refusal_markdown(checkpoint: str, error: str) -> str:
    """Return the error that prevented a decision, as Markdown."""
    return f"### ✗ NO VERDICT: {_escape_markdown(checkpoint)}\n\n{_escape_markdown(error)}\n"


def _quote_item(item: LostItem) -> str:
    target = f" (target {_escape_markdown(truncate(item.target, 40))})" if item.target else ""
    return f"{_escape_markdown(truncate(quote(item.doc)))}{target}"


def _escape_markdown(text: str) -> str:
    """Return text escaped for Markdown and HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~@])", r"\\\1", html.escape(to_one_line(text), quote=False))


# ------------------------------------------------------------------------------------------------------------- JUnit


def write_junit(decision: Decision) -> str:
    """Return a decision as JUnit XML: one test case per rule."""
    outcome = decision.outcome
    suite = ElementTree.Element("testsuite", {"name": _to_xml(f"evalsvc gate {decision.record['checkpoint']['arm']}")})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (
        ("verdict", outcome.verdict),
        ("checkpoint", decision.record["checkpoint"]["digest"]),
        ("base", decision.record["base"]["digest"]),
        ("policy", decision.record["policy"]["digest"]),
        ("candidate", write_candidate(decision)),
        ("decision", decision.record["digest"]),
    ):
        ElementTree.SubElement(properties, "property", {"name": name, "value": _to_xml(value)})
    for rule in outcome.rules:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "evalsvc.gate", "name": _to_xml(rule.rule)})
        description = _describe_rule(rule)
        if rule.waived:
            ElementTree.SubElement(case, "skipped", {"message": _to_xml(f"waived: {rule.waived}; {description}")})
        elif rule.verdict != "pass":
            failure = ElementTree.SubElement(case, "failure", {"type": rule.verdict, "message": _to_xml(description)})
            failure.text = _to_xml("\n".join(_lost_lines(rule, decision.lost)))
        else:
            ElementTree.SubElement(case, "system-out").text = _to_xml(description)
    return _build_document(suite)


def write_refusal_junit(checkpoint: str, error: str) -> str:
    """Return the error that prevented a decision, as JUnit XML."""
    suite = ElementTree.Element("testsuite", {"name": _to_xml(f"evalsvc gate {checkpoint}")})
    case = ElementTree.SubElement(suite, "testcase", {"classname": "evalsvc.gate", "name": "evidence"})
    ElementTree.SubElement(case, "error", {"type": "evidence", "message": _to_xml(error)})
    return _build_document(suite)


def _describe_rule(rule: RuleOutcome) -> str:
    parts = [
        f"{rule.verdict}: estimate {format_signed(rule.estimate)}, interval {format_interval(rule.low, rule.high)}, "
        f"margin {rule.margin:g}, n {rule.n}, {rule.test}",
        f"no evidence: {', '.join(rule.blind_spots)}" if rule.blind_spots else "",
        describe_shortage(rule),
    ]
    return "; ".join(part for part in parts if part)


def _lost_lines(rule: RuleOutcome, lost: Sequence[LostItem]) -> list[str]:
    items = [item for item in lost if item.suite == rule.suite and rule.task in (None, item.task)]
    return [f"lost: {item.suite}/{item.task}: {truncate(quote(item.doc))}" for item in items]


def _build_document(suite: ElementTree.Element) -> str:
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _to_xml(text: str) -> str:
    """Return text without the characters that XML 1.0 does not allow."""
    return _NOT_XML.sub("\ufffd", text)
