"""Published levels: what a command says of them is what the published tables, and scipy, say."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

import evalsvc as ev
from evalsvc.store.store import Store
from tests.support.commands import Run
from tests.support.published import CPT_GENERAL, CPT_HUMAN_EVAL, GENERAL, HUMAN_EVAL, Table
from tests.support.scores import known

BASE = {"code": 0.138, "general": 0.671}  # read off figures 2 and 3 of the paper


def import_level(db: Path, arm: str, suite: str, value: float, stderr: float | None = None, **options: Any) -> None:
    folder = db.parent / "files"
    folder.mkdir(exist_ok=True)
    row = {"alias": suite, "acc,none": value, **({} if stderr is None else {"acc_stderr,none": stderr})}
    path = folder / f"{arm}-{suite}.json"
    path.write_text(json.dumps({"results": {suite: row}, "n-samples": {suite: {"effective": 164}}}))
    role = "domain" if suite == "code" else "general"
    ev.import_lm_eval(path, suite=suite, role=role, name=arm, db=db, **options)  # type: ignore[arg-type]


def import_table(db: Path, learned: Table, kept: Table, names: list[str]) -> None:
    for suite, value in BASE.items():
        import_level(db, "base", suite, value)
    for method in learned:
        for name, x, y in zip(names, learned[method], kept[method], strict=True):
            options: dict[str, Any] = {"base": "base", "method": "full" if method == "full" else "lora"}
            import_level(db, f"{method}-{name}", "code", x, **options)
            import_level(db, f"{method}-{name}", "general", y)


def compute_volume(points: list[tuple[float, float]], x_reference: float) -> float:
    """Return the area below the staircase of points, from (x_reference, 0): one strip between neighbours in x."""
    edges = sorted({x_reference, *(x for x, _ in points if x > x_reference)})
    return sum((right - left) * max(y for x, y in points if x >= right) for left, right in pairwise(edges))


@pytest.mark.parametrize(
    ("learned", "kept", "names", "on_frontier"),
    [
        (HUMAN_EVAL, GENERAL, ["1", "2", "4", "8", "16"], {"r256-2", "r64-4", "r256-4"}),
        (
            CPT_HUMAN_EVAL,
            CPT_GENERAL,
            ["0.25", "0.5", "1", "2", "4", "8", "16", "20"],
            {
                *("r64-2", "r16-4", "r16-8", "r16-16", "r64-8"),
                *("r256-8", "r256-16", "r256-20", "full-8", "full-20"),
            },
        ),
    ],
    ids=["code IFT", "code CPT"],
)
def test_published_tables_have_their_frontier(
    evalsvc: Run, db: Path, learned: Table, kept: Table, names: list[str], on_frontier: set[str]
) -> None:
    import_table(db, learned, kept, names)
    done = evalsvc("frontier", "--db", db, "--json")
    assert done.code == 0, done.err
    points = {point["arm"]: point for point in done.json["points"]}
    assert len(points) == 4 * len(names) + 1
    assert {arm for arm, point in points.items() if point["on_frontier"]} == {"base", *on_frontier}
    assert all(point["p_on_frontier"] is None and point["dominated_by"] is None for point in points.values())
    assert all(point["learning_low"] is None for arm, point in points.items() if arm != "base")
    pairs = [pair for method in learned for pair in zip(learned[method], kept[method], strict=True)]
    assert done.json["hypervolume"]["value"] == pytest.approx(compute_volume(pairs, BASE["code"]))
    assert done.json["hypervolume"]["reference"] == pytest.approx([0, BASE["general"]])
    shown = evalsvc("frontier", "--db", db).out
    assert "no P(frontier): levels of an arm are published without standard errors" in shown
    last = names[-1]
    compared = evalsvc("compare", f"full-{last}", f"--base=r256-{last}", "--db", db, "--json").json
    change = {task["suite"]: task["difference"] for task in compared["tasks"]}
    assert change["code"] == pytest.approx(learned["full"][-1] - learned["r256"][-1])
    assert change["general"] == pytest.approx(kept["full"][-1] - kept["r256"][-1])
    assert all(task["low"] is None and task["test"] == "levels only" for task in compared["tasks"])
    claims = evalsvc("claims", "--db", db, "--json")
    assert claims.code == 0, claims.err
    assert len(claims.json["claims"]) > 3


def test_levels_with_standard_errors_have_the_intervals_of_a_z_test(evalsvc: Run, db: Path) -> None:
    import_level(db, "base", "code", 0.2, 0.02)
    import_level(db, "base", "general", 0.7, 0.01)
    for arm, x, y in (("one", 0.5, 0.6), ("two", 0.3, 0.69)):
        import_level(db, arm, "code", x, 0.03, base="base", method="full")
        import_level(db, arm, "general", y, 0.02)
    compared = {task["suite"]: task for task in evalsvc("compare", "one", "--db", db, "--json").json["tasks"]}
    task, error = compared["general"], math.hypot(0.01, 0.02)
    assert (task["low"], task["high"]) == pytest.approx(stats.norm.interval(0.9, -0.1, error))
    assert task["p_value"] == pytest.approx(2 * stats.norm.sf(0.1 / error))
    assert (task["test"], task["n"], task["lost"]) == ("unpaired z", 164, None)
    points = {point.arm: point for point in ev.frontier(db=db).points}
    low, high = stats.norm.interval(0.9, 0.3, math.hypot(0.02, 0.03))
    assert points["one"].learning_low == pytest.approx(low, abs=0.005)
    assert points["one"].learning_high == pytest.approx(high, abs=0.005)
    # The base's error is the same for both: one learned more than two with P = Phi(0.2 / sqrt(0.03^2 + 0.03^2)).
    better = stats.norm.cdf(0.2 / math.hypot(0.03, 0.03))
    assert known(points["one"].p_on_frontier) == pytest.approx(better, abs=0.02)


def test_a_corpus_metric_is_compared_by_its_levels(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    """F1 of all items together, as lm-eval aggregates it, with pairs per item; the median of items with numbers."""
    for arm, f1, median in (("base", 0.6, 2.0), ("lora", 0.5, 4.0)):
        row = {"f1,none": f1, "f1_stderr,none": 0.02, "alias": "t"}
        configs: dict[str, Any] = {
            "t": {"metric_list": [{"metric": "f1", "aggregation": "f1", "higher_is_better": True}]},
            "m": {"metric_list": [{"metric": "seconds", "aggregation": "median", "higher_is_better": False}]},
        }
        results = tmp_path / f"{arm}.json"
        results.write_text(json.dumps({"results": {"t": row, "m": {"seconds,none": median}}, "configs": configs}))
        words: list[str | Path] = []
        for task, values in (("t", [[1, 1], [0, 1], [1, 0]]), ("m", [1.0, median, 90.0])):
            metric = "f1" if task == "t" else "seconds"
            (tmp_path / arm).mkdir(exist_ok=True)
            path = tmp_path / arm / f"samples_{task}_2025-01-01T00-00-00.jsonl"
            records = [{"doc_id": i, "doc": i, "arguments": [[str(i)]], metric: v} for i, v in enumerate(values)]
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
            words += ["--samples", path]
        base = ["--base", "base", "--method", "lora"] if arm == "lora" else []
        done = evalsvc(
            *(
                "import",
                "lm-eval",
                results,
                *words,
                "--name",
                arm,
                *base,
                "--db",
                db,
                "--suite",
                "s",
                "--role",
                "general",
            )
        )
        assert done.code == 0, done.err
    compared = {task["task"]: task for task in evalsvc("compare", "lora", "--db", db, "--json").json["tasks"]}
    f1, seconds = compared["t"], compared["m"]
    assert (f1["base"], f1["adapted"], f1["n"]) == (0.6, 0.5, 3)
    assert (f1["low"], f1["high"]) == pytest.approx(stats.norm.interval(0.9, -0.1, math.hypot(0.02, 0.02)))
    assert (seconds["base"], seconds["adapted"], seconds["low"]) == (2.0, 4.0, None)
    assert {(r.arm.label, r.task): r.value for r in Store(db).results()}["lora", "m"] == 4.0
