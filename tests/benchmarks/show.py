"""Measurements as tables and as a figure."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import plotly.graph_objects as go
from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks.measure import Measured


def machine() -> dict[str, str]:
    """Return what the numbers depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = f"{facts.get('model name', platform.processor())}, family {facts.get('cpu family', '?')}, "
    extensions = [flag for flag in ("avx2", "avx512f", "avx512_bf16") if flag in facts.get("flags", "").split()]
    packages = ("torch", "transformers", "lm_eval", "peft", "tokenizers", "numpy")
    return {
        "processor": f"{name}model {facts.get('model', '?')} ({', '.join(extensions)})",
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def as_dict(measured: Measured) -> dict[str, Any]:
    """Return a measurement with what follows from it."""
    return {
        **asdict(measured),
        "ratio": median(measured.ratios),
        "ratio_low": min(measured.ratios),
        "ratio_high": max(measured.ratios),
        "ratio_with_plan": median(measured.whole),
        "ratio_wall": median(measured.walls),
        "floor_ratio": measured.fed / measured.floor if measured.floor else None,
        "share_of_peak": measured.share,
        "agrees": measured.agrees,
    }


def tables(measured: list[Measured], beside: dict[str, Any], source: str) -> None:
    """Print everything to stdout, as Markdown."""
    console = Console(width=240, highlight=False, markup=False)
    facts = machine()
    console.print(f"{facts.pop('processor')}, {facts.pop('cores')} cores; " + ", ".join(map(" ".join, facts.items())))
    console.print(f"{source}; one thread, CPU seconds, ratios: median [min..max]\n")
    if measured:
        console.print("Speed", _speed(measured))
        console.print("Parity and tokens, in the same run", _parity(measured))
    for name, rows in beside.items():
        table = Table(*(["what", *next(iter(rows.values()))]), box=box.MARKDOWN)
        for what, values in rows.items():
            table.add_row(
                what, *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values.values())
            )
        console.print(name.capitalize(), table)


def _speed(measured: list[Measured]) -> Table:
    table = Table(
        "workload", "HFLM batch", "HFLM s", "ours s", "ratio", "target", "", "FLOP floor", "share of peak", "with plan",
        "wall ratio", "plan s", box=box.MARKDOWN,
    )  # fmt: skip
    for m in measured:
        ratio = median(m.ratios)
        table.add_row(
            m.name,
            str(m.batch),
            f"{median(s.cpu for s in m.stock):.2f}",
            f"{median(s.cpu for s in m.ours):.2f}",
            f"{ratio:.2f} [{min(m.ratios):.2f}..{max(m.ratios):.2f}]",
            f"{m.target:g}",
            "reached" if ratio >= m.target and m.agrees else "MISSED",
            f"{m.fed / m.floor:.2f}" if m.floor else "",
            f"{m.share:.0%}" if m.share else "",
            f"{median(m.whole):.2f}",
            f"{median(m.walls):.2f}",
            f"{median(s.cpu for s in m.plan):.3f}",
        )
    return table


def _parity(measured: list[Measured]) -> Table:
    table = Table(
        "workload", "requests", "tokens HFLM", "unique", "engine", "max difference", "within tolerance", "choices",
        "greedy", "texts", "peak GFLOP/s", "path", box=box.MARKDOWN,
    )  # fmt: skip
    for m in measured:
        table.add_row(
            m.name,
            str(m.requests),
            f"{m.tokens:,}",
            f"{m.unique:,}",
            f"{m.rows:,}",
            "" if m.difference is None else f"{m.difference:.1e}",
            "" if m.difference is None else "yes" if m.within else "NO",
            *("" if value is None else f"{value:.4g}" for value in (m.choices, m.greedy, m.texts)),
            f"{m.peak / 1e9:.0f}",
            m.path.partition(":")[0],
        )
    return table


def figure(measured: list[Measured]) -> go.Figure:
    """Draw the ratios, what the FLOPs allow, and the targets."""
    names = [m.name for m in measured]
    ratios = [median(m.ratios) for m in measured]
    figure = go.Figure()
    figure.add_bar(
        x=names,
        y=ratios,
        name="measured",
        marker_color="#0072B2",
        error_y={
            "array": [max(m.ratios) - ratio for m, ratio in zip(measured, ratios, strict=True)],
            "arrayminus": [ratio - min(m.ratios) for m, ratio in zip(measured, ratios, strict=True)],
        },
    )
    floors = [m.fed / m.floor if m.floor else None for m in measured]
    figure.add_bar(x=names, y=floors, name="FLOPs of HFLM over those of the unique tokens", marker_color="#56B4E9")
    figure.add_scatter(
        x=names,
        y=[m.target for m in measured],
        mode="markers",
        name="target",
        marker={"symbol": "line-ew-open", "size": 28, "color": "#D55E00", "line": {"width": 3}},
    )
    figure.update_layout(
        title="Times faster than lm-eval's Hugging Face model, CPU, float32",
        yaxis={"title": "ratio of CPU time", "type": "log"},
        template="plotly_white",
        legend={"orientation": "h", "y": 1.05, "yanchor": "bottom"},
    )
    return figure
