"""Figures and the page: what they show, and that nothing from a checkpoint is markup."""

from __future__ import annotations

import builtins
import json
import re
import shutil
import struct
from dataclasses import fields
from datetime import UTC, date, datetime
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from evalsvc.analysis import trajectory
from evalsvc.analysis.compare import compare_task
from evalsvc.charts.forest import forest_figure, rules_figure, transitions_figure
from evalsvc.charts.frontier import View, frontier_figure
from evalsvc.charts.images import write_images
from evalsvc.charts.parts import change_figure
from evalsvc.charts.style import BETTER, COLOURS, GREY, WORSE, pick_marker, read_plotly_javascript
from evalsvc.charts.trajectories import PlottedCurve, curves_figure
from evalsvc.errors import UsageError
from evalsvc.gating.policy import Policy
from evalsvc.gating.rules import DiversityRatio, build_rules
from evalsvc.gating.verdict import decide
from evalsvc.records.arms import COSTS, Cost
from evalsvc.records.comparisons import Missing
from evalsvc.records.frontier import Ellipse, Frontier, Point
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.reports.html import ReportSections, build_figures, render_page
from evalsvc.stats.ratios import PairedValues
from tests.support.evidence import Array, make_binary, make_pair, make_text_pair

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
    return Frontier(
        base="base",
        points=(base, *points),
        learning_unit="score",
        forgetting_unit="bits_per_byte",
        hypervolume=0.1,
        reference=(0.0, 1.0),
        left_out=("x/y",),
        suites=("d", "g"),
        unshared=(),
        missing=(Missing("late", ("g",)),),
    )


def test_of_many_arms_each_method_is_one_line_with_gaps_between_its_runs() -> None:
    many = [
        point(f"{run}@{step}", method, step / 100, step / 50, step=step, trajectory=run, on_frontier=step == 7)
        for method, runs in {"lora": ("l1", "l2"), "full": ("f1", "f2", "f3")}.items()
        for run in runs
        for step in range(20)
    ]
    figure = json.loads(frontier_figure(frontier(*many), View(ellipses=False)).to_json())
    lora, full = figure["data"][:2]
    assert [line["name"] for line in (lora, full)] == ["lora", "full"]
    assert lora["x"] == [*(s / 100 for s in range(20)), None] * 2
    assert sum(digest is not None for digest in full["customdata"]) == 60
    assert len(full["x"]) == len(full["marker"]["size"]) == len(full["hovertext"]) == 63
    # Only arms on the frontier show their intervals.
    intervals = [trace for trace in figure["data"] if "error_x" in trace]
    assert [trace["x"] for trace in intervals] == [[0.07] * 2, [0.07] * 3]
    assert intervals[0]["error_x"]["array"] == pytest.approx([0.1] * 2)


def test_points_lie_where_they_should_with_their_bars() -> None:
    steps = [point(f"l@{s}", "lora", s / 100, s / 50, step=s, trajectory="l") for s in (20, 10)]
    figure = json.loads(frontier_figure(frontier(*steps, point("f", "full", 0.5, 0.4))).to_json())
    line = figure["data"][0]
    assert line["x"] == [0.1, 0.2]  # in the order of steps
    assert line["y"] == [-0.2, -0.4]
    bars = next(trace for trace in figure["data"] if "error_x" in trace)
    assert (sorted(bars["x"]), bars["legendgroup"]) == (line["x"], line["legendgroup"])
    assert bars["error_x"]["array"] == pytest.approx([0.1, 0.1])
    assert bars["error_y"]["array"] == pytest.approx([0.2, 0.2])
    assert bars["error_y"]["arrayminus"] == pytest.approx([0.05, 0.05])
    base = next(trace for trace in figure["data"] if trace.get("name") == "base")
    assert (base["x"], base["y"]) == ([0], [0])
    assert "bits per byte" in figure["layout"]["yaxis"]["title"]["text"]
    assert len({figure["data"][i]["marker"]["symbol"] for i in (0, 1)}) == 2


def test_names_from_checkpoints_are_never_markup() -> None:
    found = frontier(point(EVIL, EVIL, 0.5, 0.4, trajectory=EVIL))
    for trace in json.loads(frontier_figure(found).to_json())["data"]:
        assert "<img" not in json.dumps(trace)
    page = render_page(found, [], ReportSections(), build_figures(found, []), datetime.now(UTC))
    body = re.sub(r"<script>.*?</script>", "", page.replace("\n", " "), count=1)  # plotly's own source
    assert "<img" not in body
    assert "alert(2)</script>" not in body


def test_the_page_holds_everything_it_needs() -> None:
    found = frontier(point("f", "full", 0.5, 0.4))
    page = render_page(found, [], ReportSections(), build_figures(found, []), datetime(2026, 1, 2, tzinfo=UTC))
    assert "Plotly.react(name" in page
    around = page.replace(read_plotly_javascript(), "")
    assert not re.search(r"https?://", around)
    assert "Arms not placed: late lacks g" in page
    assert "2026-01-02" in page


def test_axes_can_be_costs_and_sizes_too() -> None:
    cheap = point("cheap", "lora", 0.2, 0.1, cost=Cost(gpu_hours=1.0))
    dear = point("dear", "full", 0.5, 0.4, cost=Cost(gpu_hours=4.0))
    unknown = point("unknown", "cpt", 0.6, 0.4)
    found = frontier(cheap, dear, unknown)
    figure = json.loads(frontier_figure(found, View(x="gpu_hours", y="learning", size="gpu_hours")).to_json())
    assert [trace["x"] for trace in figure["data"][:2]] == [[1.0], [4.0]]
    assert "unknown" not in {trace.get("name") for trace in figure["data"]}
    small, large = (figure["data"][i]["marker"]["size"][0] for i in (0, 1))
    assert large == pytest.approx(2 * small)  # four times the area
    front = next(trace for trace in figure["data"] if trace.get("name") == "frontier")
    assert front["line"]["shape"] == "hv"  # between two costs the cheaper arm is what there is
    assert "GPU-hours" in figure["layout"]["xaxis"]["title"]["text"]


def test_every_cost_has_a_name_for_people() -> None:
    assert list(COSTS) == [field.name for field in fields(Cost)]


def test_an_ellipse_has_its_axes_where_it_says() -> None:
    made = point("f", "full", 0.5, 0.4, ellipse=Ellipse(0.2, 0.1, 90.0))  # long along forgetting
    figure = json.loads(frontier_figure(frontier(made), View(ellipses=True)).to_json())
    ring = figure["data"][1]
    x, y = ([value for value in ring[axis] if value is not None] for axis in "xy")
    assert (min(x), max(x)) == pytest.approx((0.4, 0.6))
    assert (min(y), max(y)) == pytest.approx((-0.6, -0.2))


def test_only_chosen_methods_are_drawn_each_with_its_frontier() -> None:
    found = frontier(point("a", "lora", 0.2, 0.1, on_method_frontier=True), point("b", "full", 0.5, 0.4))
    figure = json.loads(frontier_figure(found, View(methods=True, only=("lora",))).to_json())
    assert "frontier of lora" in [trace.get("name") for trace in figure["data"]]
    assert "full" not in json.dumps(figure["data"])


def test_the_forest_has_the_worst_on_top_and_counts_better_positive() -> None:
    facts, bits_of = (
        make_pair("facts", "easy", make_binary(30, 2, 200)),
        make_text_pair("text", "stories", np.full(30, 2.0), 0.1),
    )
    compared = [compare_task(p.base, p.adapted) for p in (make_pair("facts", "hard", make_binary(2, 9, 200)), facts)]
    figure = json.loads(forest_figure([("arm", compared)], 0.05).to_json())
    assert figure["layout"]["yaxis"]["ticktext"] == ["facts/easy", "facts/hard"]
    assert figure["data"][0]["x"] == pytest.approx([7 / 200, -28 / 200])
    rising = json.loads(forest_figure([("arm", [compare_task(bits_of.base, bits_of.adapted)])]).to_json())["data"][0]
    assert rising["x"][0] == pytest.approx(-0.1, abs=0.02)
    assert rising["error_x"]["array"][0] > 0
    lost = json.loads(transitions_figure(compared).to_json())["data"][0]
    assert lost["x"] == [-0.15, -0.01]


def test_a_curve_begins_at_the_base_and_rings_the_step_that_breaks_the_margin() -> None:
    changes = tuple(trajectory.ChangeEstimate(value, value - 0.01, value + 0.01) for value in (0.01, 0.04))
    figure = json.loads(curves_figure([PlottedCurve("run", (10, 20), changes, 20)], "forgetting", 0.02).to_json())
    line, ring = figure["data"]
    assert (line["x"], line["y"]) == ([0, 10, 20], [0.0, 0.01, 0.04])
    assert (ring["x"], ring["y"]) == ([20], [0.04])


def test_changes_stand_by_layer_and_part() -> None:
    tensors = [
        TensorChange(
            name=f"model.layers.{layer}.mlp.up_proj.weight", shape=(2, 2), changed=1, base_norm=2.0, norm=float(layer)
        )
        for layer in (10, 2)
    ]
    tensors.append(TensorChange(name="model.embed_tokens.weight", shape=(2, 2), changed=1, base_norm=4.0, norm=1.0))
    heat = json.loads(change_figure(WeightChange(12, 12, "any", tuple(tensors))).to_json())["data"][0]
    assert heat["x"] == ["outside", "2", "10"]
    assert heat["y"] == ["mlp.up_proj", "model.embed_tokens"]
    assert heat["z"] == [[None, 1.0, 5.0], [0.25, None, None]]


# ------------------------------------------------------------------------------------------------------- figure files


def test_figures_are_written_as_svg_and_png_without_a_request_to_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs Chromium on the PATH")
    log, browser = tmp_path / "requests.json", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nexec {chromium} --log-net-log={log} "$@"\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    shown = build_figures(frontier(point(EVIL, "lora", 0.2, 0.1), point("full@400", "full", 0.5, 0.4)), ())
    paths = write_images(shown, tmp_path / "made" / "figures")
    assert [path.name for path in paths] == ["frontier.svg", "frontier.png"]
    drawing = ElementTree.parse(paths[0]).getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text and text.startswith("lora: <img src=x") for text in texts)  # as text, not as markup
    assert not list(drawing.iter("{http://www.w3.org/2000/svg}img"))
    image = paths[1].read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", image[16:24]) == (1800, 2 * 560)
    asked = log.read_text(encoding="utf-8", errors="replace")
    assert asked.startswith('{"constants"')
    assert "cdn" not in asked.lower()
    assert "mathjax" not in asked.lower()


def test_figures_without_kaleido_or_a_browser_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = build_figures(frontier(point("a", "lora", 0.2, 0.1)), ())
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="install it, or set BROWSER_PATH"):
        write_images(shown, tmp_path)
    found = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("kaleido"):
            raise ModuleNotFoundError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'evalsvc\[figures\]'"):
        write_images(shown, tmp_path)


# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as it is without one kind of cone.
VISIONS = {
    "usual": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(of: str, vision: str) -> Array:
    """Return a colour as it is seen, in CIELAB, where a distance of 2.3 is just noticeable."""
    rgb = np.array([int(of[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = to_xyz @ np.clip(np.array(VISIONS[vision]) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_told_apart_by_every_colour_vision(vision: str) -> None:
    def apart(one: str, other: str) -> float:
        return float(np.linalg.norm(seen(one, vision) - seen(other, vision)))

    assert min(apart(one, other) for one, other in combinations(COLOURS, 2)) > 15
    assert apart(WORSE, BETTER) > 80
    light, dark = "#ffffff", "#0e1117"  # the two themes of Streamlit
    assert min(apart(of, ground) for of in (*COLOURS, GREY) for ground in (light, dark)) > 35
    assert len({pick_marker(number) for number in range(len(COLOURS))}) == len(COLOURS)  # and shape tells as well


def test_every_rule_is_drawn_against_what_its_estimate_must_exceed() -> None:
    policy = Policy.model_validate(
        {
            "version": 1,
            "learning": {"suites": ["d"], "min_gain": 0.1},
            "retention": [{"suite": "g", "margin": 0.05}],
            "drift": {"suite": "t", "max_bits_per_byte_increase": 0.2},
            "diversity": {"min_ratio": 0.8},
        }
    )
    pairs = [
        make_pair("d", "q", make_binary(5, 60, 200)),
        make_pair("g", "a", make_binary(3, 4, 300)),
        make_text_pair("t", "x", np.full(60, 1.0), 0.05),
    ]
    values = PairedValues(np.ones(50), np.tile([1.0, 0.8], 25))
    ratio = DiversityRatio(suite="o/o/unique", metric="unique", values=values)
    outcome = decide(policy, build_rules(policy, pairs, [ratio]), [], "sha256:1", date(2026, 1, 1))
    figure = rules_figure(outcome.rules)
    (limits,) = (trace for trace in figure.data if trace.name == "must exceed")
    drawn = dict(zip(limits.y, limits.x, strict=True))
    assert drawn == pytest.approx(
        {"learning/d": 0.1, "retention/g": -0.05, "drift/t": -0.2, "diversity/o/o/unique": -0.2}
    )
    # A rule passes exactly where its interval lies above the limit that is drawn.
    for rule in outcome.rules:
        assert (rule.low > drawn[rule.rule]) == (rule.verdict == "pass")
