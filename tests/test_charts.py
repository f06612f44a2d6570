"""Figures and the page: what they show, and that nothing from a checkpoint is markup."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from evalsvc.charts import frontier_figure
from evalsvc.page import html
from evalsvc.points import Frontier, Point
from evalsvc.records import Cost

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def point(arm: str, method: str, learning: float, forgetting: float, **changes: object) -> Point:
    made = {
        "arm": arm,
        "digest": "sha256:1",
        "method": method,
        "step": None,
        "trajectory": None,
        "learning": learning,
        "learning_low": learning - 0.1,
        "learning_high": learning + 0.1,
        "forgetting": forgetting,
        "forgetting_low": forgetting - 0.2,
        "forgetting_high": forgetting + 0.05,
        "on_frontier": True,
        "p_on_frontier": 0.5,
        "cost": Cost(),
    }
    return Point(**{**made, **changes})  # type: ignore[arg-type]


def frontier(*points: Point) -> Frontier:
    base = point("base", "base", 0, 0, on_frontier=False)
    return Frontier("base", (base, *points), "score", "bits_per_byte", 0.1, (0.0, 1.0), ("x/y",), ("late",))


def test_points_lie_where_they_should_with_their_bars() -> None:
    steps = [point(f"l@{s}", "lora", s / 100, s / 50, step=s, trajectory="l") for s in (20, 10)]
    figure = json.loads(frontier_figure(frontier(*steps, point("f", "full", 0.5, 0.4))).to_json())
    line = figure["data"][0]
    assert line["x"] == [0.1, 0.2]  # in the order of steps
    assert line["y"] == [-0.2, -0.4]
    assert line["error_x"]["array"] == pytest.approx([0.1, 0.1])
    assert line["error_y"]["array"] == pytest.approx([0.2, 0.2])
    assert line["error_y"]["arrayminus"] == pytest.approx([0.05, 0.05])
    base = next(trace for trace in figure["data"] if trace["name"] == "base")
    assert (base["x"], base["y"]) == ([0], [0])
    assert "bits per byte" in figure["layout"]["yaxis"]["title"]["text"]
    assert len({figure["data"][i]["marker"]["symbol"] for i in (0, 1)}) == 2


def test_names_from_checkpoints_are_never_markup() -> None:
    found = frontier(point(EVIL, EVIL, 0.5, 0.4, trajectory=EVIL))
    for trace in json.loads(frontier_figure(found).to_json())["data"]:
        assert "<img" not in json.dumps(trace)
    page = html(found, [], datetime.now(UTC))
    body = re.sub(r"<script>.*?</script>", "", page.replace("\n", " "), count=1)  # plotly's own source
    assert "<img" not in body
    assert "alert(2)</script>" not in body


def test_the_page_holds_everything_it_needs() -> None:
    page = html(frontier(point("f", "full", 0.5, 0.4)), [], datetime(2026, 1, 2, tzinfo=UTC))
    assert "Plotly.newPlot" in page
    around = page.split("<script>")[0] + page.rsplit("</script>", 1)[1]  # but for plotly's own source
    assert not re.search(r"https?://", around)
    assert "Not placed, scores are missing: late" in page
    assert "2026-01-02" in page
