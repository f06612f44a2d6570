"""A store that version 0.1.0 wrote opens, migrates, and shows the numbers that version 0.1.0 showed.

`data/` holds the tables of such a store as JSON, with the statements that made them, and what the commands of 0.1.0
printed on it: a base, two steps of a LoRA run, a full fine-tune, a second run of the base and few-shot examples, on
suites of every role, with drift, a matrix and two decisions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pytest

from tests.support.commands import Run

ROOT = Path(__file__).resolve().parents[2]

DATA = Path(__file__).parent / "data"
ANSWERS = json.loads((DATA / "answers_0.1.0.json").read_text())
RENAMED: dict[str, str] = {}
"""JSON keys of 0.1.0 that have another name now; CHANGELOG lists them."""
SENTENCES = {"reason", "text"}
"""JSON keys whose sentences are worded anew; every number and name stays as it was."""
INTERVALS = {"low", "high", "learning_low", "learning_high", "forgetting_low", "forgetting_high"}
"""JSON keys that count documents since 0.2.0, and have a width where nothing changed."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store, built by the statements of 0.1.0."""
    db = tmp_path_factory.mktemp("built") / "store.duckdb"
    with duckdb.connect(str(db)) as connection:
        for name, table in json.loads((DATA / "store_0.1.0.json").read_text()).items():
            connection.execute(table["schema"])
            if table["rows"]:
                marks = ", ".join("?" * len(table["columns"]))
                connection.executemany(
                    f"INSERT INTO {name} ({', '.join(table['columns'])}) VALUES ({marks})", table["rows"]
                )
    return db


@pytest.fixture
def old(built: Path, db: Path) -> Path:
    """A copy of the store, which the first command migrates."""
    return Path(shutil.copy(built, db))


def list_differences(before: Any, now: Any, where: str = "") -> Iterator[str]:
    """Yield what was answered before and is not now: keys may have been added, numbers agree to nine digits."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key, value in before.items():
            key = RENAMED.get(key, key)
            if key in SENTENCES and key in now:
                continue
            if key not in now:
                yield f"{where}.{key} is gone"
            else:
                yield from list_differences(value, now[key], f"{where}.{key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before := drop_placeholders(before)) == len(now):
        for number, (value, other) in enumerate(zip(before, now, strict=True)):
            yield from list_differences(value, other, f"{where}[{number}]")
    elif isinstance(before, float) and isinstance(now, int | float):
        if now != pytest.approx(before, rel=1e-9, abs=1e-12):
            yield f"{where} was {before}, is {now}"
    elif before != now:
        yield f"{where} was {before!r}, is {now!r}"


def take_known_measures(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with the measures of diversity that 0.1.0 had."""
    known = {"unique", "distinct", "repetition", "top_response", "unfinished"}
    tasks = [{**t, "ratios": [r for r in t["ratios"] if r["measure"] in known]} for t in answer["tasks"]]
    return {**answer, "tasks": tasks}


def drop_placeholders(entries: list[Any]) -> list[Any]:
    """Return entries without comparisons of sampled answers, whose score is a placeholder: 0.2.0 has none."""
    return [
        e
        for e in entries
        if not (isinstance(e, dict) and e.get("role") == "diversity" and {"difference", "gains"} & set(e))
    ]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: " ".join(answer["command"]))
def test_every_command_answers_as_the_first_release_did(evalsvc: Run, old: Path, answer: dict[str, Any]) -> None:
    done = evalsvc(*answer["command"], "--db", old, "--json")
    assert done.code == 0, done.err
    is_diversity = answer["command"][0] == "diversity"
    differences = list(
        list_differences(answer["answer"], take_known_measures(done.json) if is_diversity else done.json)
    )
    assert [line for line in differences if not is_known(line)] == []


def is_known(difference: str) -> bool:
    """Whether 0.2.0 answers otherwise on purpose: on 4 to 8 items of which none changed 0.1.0 was sure."""
    key = difference.split(" was ")[0].rsplit(".", 1)[1].split("[")[0]
    return key in INTERVALS or difference.endswith(
        (
            ".trend was 'mixed', is 'unchanged'",
            ".best_step was 10, is None",
            ".ratios[2].ratio was None, is 1.0",
            ".ratios[4].ratio was 0.9166666666666666, is None",
            ".blind_spots was [], is ['at zero']",
            ".verdict was 'refuted', is 'undecided'",
            "+0.000 [+0.000, +0.000]', is 'general: +0.000 [-0.200, +0.200]'",
            "+0.000 [+0.000, +0.000]', is 'instruction: +0.000 [-0.311, +0.311]'",
        )
    )


def test_decisions_of_the_first_release_are_verified(evalsvc: Run, old: Path, tmp_path: Path) -> None:
    with duckdb.connect(str(old)) as connection:
        records = [record for (record,) in connection.execute("SELECT record FROM decisions").fetchall()]
    assert len(records) == 2
    schema = json.loads((ROOT / "docs/pages/reference/schemas/decision.json").read_text(encoding="utf-8"))
    for number, record in enumerate(records):
        path = tmp_path / f"{number}.json"
        path.write_text(record)
        jsonschema.validate(json.loads(record), schema)
        done = evalsvc("verify", path, "--db", old, "--json")
        assert (done.code, done.json["equal"], done.json["differences"]) == (0, True, []), done.err
        assert done.json["only_evidence"] is True
    with duckdb.connect(str(old)) as connection:
        connection.execute("UPDATE scores SET value = 1 - value")
    changed = evalsvc("verify", path, "--db", old, "--json")
    assert (changed.code, changed.json["equal"]) == (5, False)


def test_a_difference_would_be_found() -> None:
    before = {"a": [1.0, {"b": "x"}], "n": 3}
    assert list(list_differences(before, {**before, "new": 1})) == []
    assert list(list_differences(before, {"a": [1.0 + 1e-6, {"b": "y"}]})) == [
        ".a[0] was 1.0, is 1.000001",
        ".a[1].b was 'x', is 'y'",
        ".n is gone",
    ]
