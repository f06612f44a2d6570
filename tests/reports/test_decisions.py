"""What is written for people and machines: valid, escaped, cut."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evalsvc.gating.decisions import Decision, LostItem, Question, decide
from evalsvc.gating.policy import Policy
from evalsvc.reports import ci
from evalsvc.reports import decisions as report
from evalsvc.store.store import Store
from tests.support.evidence import CHILD, fill_store, make_binary

etree: Any = pytest.importorskip("lxml.etree", reason="needs lxml, to validate XML")

# What CI servers read as JUnit XML: elements and attributes that all of Ant, Jenkins, GitLab and pytest share.
JUNIT = """
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:complexType name="outcome" mixed="true">
    <xs:attribute name="type" type="xs:string"/><xs:attribute name="message" type="xs:string"/>
  </xs:complexType>
  <xs:element name="testsuites"><xs:complexType><xs:sequence>
    <xs:element name="testsuite" maxOccurs="unbounded"><xs:complexType>
      <xs:sequence>
        <xs:element name="properties" minOccurs="0"><xs:complexType><xs:sequence>
          <xs:element name="property" maxOccurs="unbounded"><xs:complexType>
            <xs:attribute name="name" use="required"/><xs:attribute name="value" use="required"/>
          </xs:complexType></xs:element>
        </xs:sequence></xs:complexType></xs:element>
        <xs:element name="testcase" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
          <xs:choice minOccurs="0">
            <xs:element name="skipped" type="outcome"/><xs:element name="error" type="outcome"/>
            <xs:element name="failure" type="outcome"/><xs:element name="system-out" type="xs:string"/>
          </xs:choice>
          <xs:attribute name="name" use="required"/><xs:attribute name="classname" use="required"/>
        </xs:complexType></xs:element>
      </xs:sequence>
      <xs:attribute name="name" use="required"/>
      <xs:attribute name="tests" type="xs:nonNegativeInteger" use="required"/>
      <xs:attribute name="failures" type="xs:nonNegativeInteger" use="required"/>
      <xs:attribute name="errors" type="xs:nonNegativeInteger" use="required"/>
      <xs:attribute name="skipped" type="xs:nonNegativeInteger" use="required"/>
    </xs:complexType></xs:element>
  </xs:sequence></xs:complexType></xs:element>
</xs:schema>
"""
EVIL = (
    "</system-out><script>alert(1)</script> & ```\n| a | **b** | [x](http://evil) ]]> \x00\x1b[31m \ufffe "
    + "long " * 99
)
MARGIN = {"suite": "core", "margin": 0.05, "per_task_margin": 0.08}


@pytest.fixture
def decision(db: Path) -> Decision:
    fill_store(db, "core", {"a": make_binary(60, 5, 300), "b": make_binary(20, 12, 200), "c": make_binary(50, 0, 200)})
    waiver = {
        "rule": "retention/core/c",
        "checkpoint": CHILD.checkpoint.digest,
        "reason": "<i>known</i> | issue",
        "owner": "ada",
        "expires": "2099-01-01",
    }
    policy = Policy.model_validate({"version": 1, "retention": [MARGIN], "waivers": [waiver]})
    return decide(Store(db), Question(checkpoint="c2", policy=policy))


def evil(decision: Decision) -> Decision:
    """Return a decision whose names and items would like to be markup."""
    item = LostItem(suite="core", task="a", doc=json.dumps({"question": EVIL}), target=EVIL, base=1.0, adapted=0.0)
    record: dict[str, Any] = {**decision.record, "checkpoint": {**decision.record["checkpoint"], "arm": EVIL}}
    return replace(decision, lost=(item,), record=record, warnings=(EVIL,))


def parsed(text: str) -> Any:
    """Parse JUnit XML with a real parser, and hold it to the schema."""
    root = etree.fromstring(text.encode("utf-8"))
    etree.XMLSchema(etree.fromstring(JUNIT)).assertValid(root)
    return root


def test_junit_has_one_testcase_per_rule(decision: Decision) -> None:
    root = parsed(ci.write_junit(decision))
    (suite,) = root
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    assert set(cases) == {rule.rule for rule in decision.outcome.rules}
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "4",
        "3",
        "0",
        "1",
    )
    failure = cases["retention/core/a"].find("failure")
    assert failure.get("type") == "fail"
    assert "estimate -0.183" in failure.get("message")
    assert "lost: core/a" in failure.text
    assert cases["retention/core/b"].find("failure").get("type") == "inconclusive"
    assert "more items" in cases["retention/core/b"].find("failure").get("message")
    assert "waived: <i>known</i> | issue (ada" in cases["retention/core/c"].find("skipped").get("message")


def test_needs_beyond_any_evaluation_are_words_and_stay_in_json(decision: Decision) -> None:
    rule = next(rule for rule in decision.outcome.rules if rule.rule == "retention/core/b")
    assert rule.needed_n is not None
    many, more = (replace(rule, needed_n=rule.units + 10**6 + extra) for extra in (0, 1))
    assert report.describe_shortage(many).startswith("needs 1,000,000 more items; 200 items resolve a margin of ")
    assert report.describe_shortage(more).startswith(
        "more items would hardly help: the estimate is almost at the threshold; 200 items resolve a margin of "
    )
    rules = report.GateReport(replace(decision, outcome=replace(decision.outcome, rules=(more,)))).to_dict()["rules"]
    assert rules[0]["needed_n"] == 1_000_201
    recipe = replace(more, run_gains=(0.0, 0.1, 0.2), needed_runs=5)
    assert report.describe_shortage(recipe).startswith("needs 2 more runs; 3 runs and 200 items resolve")
    assert report.describe_shortage(replace(recipe, needed_runs=None)).startswith("more evidence would hardly help")


def test_an_exchange_rule_resolves_no_margin(decision: Decision) -> None:
    rule = next(rule for rule in decision.outcome.rules if rule.rule == "retention/core/b")
    exchange = replace(rule, kind="exchange", needed_n=rule.units + 7)
    assert report.describe_shortage(exchange) == "needs 7 more items"
    assert report.describe_shortage(replace(exchange, needed_n=None)) == "more items would not change this"


def test_every_output_says_which_candidate_was_tested_at_which_level(decision: Decision) -> None:
    line = "candidate 1 on these items, 1 seen, no batch declared: tested at alpha 0.0304 = 0.05 * 6 / (pi * 1)^2"
    (suite,) = parsed(ci.write_junit(decision))
    assert line in {entry.get("value") for entry in suite.find("properties")}
    assert line in ci.write_markdown(decision).replace("\\", "")
    shown = report.GateReport(decision)
    console = Console(width=250, record=True, file=io.StringIO())
    for part in shown.tables():
        console.print(part)
    text = console.export_text()
    assert line in text
    assert "one-sided bounds at alpha 0.0304" in text
    assert shown.content()["candidate"]["alpha"] == pytest.approx(0.05 * 6 / math.pi**2)


def test_junit_survives_any_text(decision: Decision) -> None:
    (suite,) = parsed(ci.write_junit(evil(decision)))
    assert "script" not in {element.tag for element in suite.iter()}
    (suite,) = parsed(ci.write_refusal_junit(EVIL, EVIL))
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    assert suite.find("testcase/error") is not None


def test_markdown_shows_text_as_it_is(decision: Decision) -> None:
    text = ci.write_markdown(evil(decision))
    assert "<script>" not in text
    assert "](http" not in text
    assert "```" not in text
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert all(len(line) < 900 for line in text.splitlines())
    assert "NO VERDICT" in ci.write_refusal_markdown(EVIL, EVIL)
    assert "<script>" not in ci.write_refusal_markdown(EVIL, EVIL)


def test_tables_show_text_as_it_is(decision: Decision) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    for part in report.GateReport(evil(decision)).tables():
        console.print(part)
    text = console.export_text()
    assert "FAIL" in text
    assert "\x1b" not in text
    assert "[x](http://evil)" in text  # not taken for rich's markup


def test_json_is_cut_and_complete(decision: Decision) -> None:
    found = json.loads(json.dumps(report.GateReport(evil(decision)).to_dict()))
    assert all(len(item["doc"]) <= report.LONGEST_QUOTE for item in found["lost_items"])
    assert [rule["waived"] is not None for rule in found["rules"]] == [False, False, False, True]
    assert found["degraded"] is True
    assert found["decision"]["digest"] == decision.record["digest"]


def test_lost_items_are_really_lost(decision: Decision) -> None:
    assert len(decision.lost) == 5
    for item in decision.lost:
        assert (item.base, item.adapted, item.suite) == (1.0, 0.0, "core")
    assert {item.task for item in decision.lost} == {"a", "b"}  # c is waived


@pytest.mark.parametrize(
    ("doc", "quoted"),
    [('{"q": "short", "text": "the longer one"}', "the longer one"), ('{"n": 1}', '{"n": 1}'), ("no json", "no json")],
)
def test_items_are_quoted_by_their_longest_text(doc: str, quoted: str) -> None:
    assert report.quote(doc) == quoted
