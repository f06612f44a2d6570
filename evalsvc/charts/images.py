"""Figures as files for papers: SVG and PNG, drawn by a browser on this machine through kaleido, without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go

from evalsvc.errors import EvalsvcError, UsageError

FORMATS = ("svg", "png")
WIDTH = 900
"""Pixels; a PNG has twice as many, so that it is sharp in print."""

# kaleido's page asks a content delivery network for MathJax unless told not to; a proxy that nobody listens on stops
# whatever else a browser asks for by itself. plotly's JavaScript comes from the installed package.
_OPTIONS = {"mathjax": False, "proxy_server": "http://127.0.0.1:9"}


def write_images(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
    """Write every figure as `<name>.svg` and `<name>.png`, and return the paths.

    Raises:
        UsageError: kaleido or a browser is missing.
        EvalsvcError: The folder cannot be written, or the browser failed.
    """
    try:
        import kaleido
        from kaleido.errors import ChromeNotFoundError
    except ImportError as error:
        raise UsageError("figures: need kaleido, which is not installed; pip install 'evalsvc[figures]'") from error
    wanted = [
        {"fig": figure, "path": folder / f"{name}.{kind}", "opts": {"format": kind, "width": WIDTH, "scale": scale}}
        for name, figure in figures.items()
        for kind, scale in zip(FORMATS, (1, 2), strict=True)
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kaleido.write_fig_from_object_sync(wanted, kopts=_OPTIONS, cancel_on_error=True)
    except ChromeNotFoundError as error:
        raise UsageError(
            "figures: need Chrome or Chromium, and none was found; install one, or name it in BROWSER_PATH"
        ) from error
    except OSError as error:
        raise EvalsvcError(f"figures {folder}: cannot be written: {error.strerror or error}") from error
    except Exception as error:  # whatever a browser may die of
        raise EvalsvcError(f"figures {folder}: the browser failed ({str(error).splitlines()[0]})") from error
    return [Path(str(one["path"])) for one in wanted]
