"""Records as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from evalsvc.records.serialise import replace_non_finite
from evalsvc.store.store import Store
from tests.support.commands import Run
from tests.support.fakes import grade_plan, make_arm, make_plan


def test_numbers_that_json_does_not_have_are_null_and_named() -> None:
    value = {"a": [1.0, math.inf, {"b": -math.inf}], "c": math.nan, "d": None, "e": "inf", "f": True}
    plain, replaced = replace_non_finite(value)
    assert plain == {"a": [1.0, None, {"b": None}], "c": None, "d": None, "e": "inf", "f": True}
    assert replaced == {"a[1]": "inf", "a[2].b": "-inf", "c": "nan"}
    json.dumps(plain, allow_nan=False)
    assert replace_non_finite({"a": [1, 2.5]}) == ({"a": [1, 2.5]}, {})


def test_a_command_prints_what_a_strict_parser_reads(db: Path, evalsvc: Run) -> None:
    """The texts of an arm are impossible under its model: an infinite perplexity is a result of lm-eval."""
    store, arm, plan = Store(db), make_arm(1), make_plan()
    graded = grade_plan(plan, [1.0] * 6)
    store.register([arm], [plan], "h:1")
    store.finish(arm, plan, replace(graded, results=(replace(graded.results[0], value=math.inf, stderr=math.nan),)))
    answer = evalsvc("results", "--db", db, "--json").json  # refuses NaN and Infinity, as in every test
    assert (answer["scores"][0]["value"], answer["scores"][0]["stderr"]) == (None, None)
    assert answer["not_finite"] == {"scores[0].value": "inf", "scores[0].stderr": "nan"}
