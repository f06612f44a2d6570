"""Writes figures as SVG and PNG files, with kaleido and a local browser, without network access."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go

from evalsvc.errors import EvalsvcError, UsageError

FORMATS = ("svg", "png")
WIDTH = 900
"""Width in pixels; a PNG has twice as many, for print."""

# By default kaleido loads MathJax from a content delivery network; an unused proxy address blocks all other requests of
# the browser. plotly's JavaScript comes from the installed package.
_OPTIONS = {"mathjax": False, "proxy_server": "http://127.0.0.1:9"}


def check_installed() -> None:
    """Check that images can be written at all.

    Raises:
        UsageError: kaleido is missing.
    """
    try:
        import kaleido  # noqa: F401 (is imported to see that it can be)
    except ImportError as error:
        raise UsageError(
            "figures: kaleido is not installed; install it with: pip install 'evalsvc[figures]'"
        ) from error


def write_images(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
    """Write every figure as `<name>.svg` and `<name>.png`, and return the paths.

    Raises:
        UsageError: kaleido or a browser is missing.
        EvalsvcError: The folder cannot be written, or the browser fails.
    """
    check_installed()
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    files = [
        {"fig": figure, "path": folder / f"{name}.{kind}", "opts": {"format": kind, "width": WIDTH, "scale": scale}}
        for name, figure in figures.items()
        for kind, scale in zip(FORMATS, (1, 2), strict=True)
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kaleido.write_fig_from_object_sync(files, kopts=_OPTIONS, cancel_on_error=True)
    except ChromeNotFoundError as error:
        raise UsageError(
            "figures: Chrome or Chromium was not found; install it, or set BROWSER_PATH to its path"
        ) from error
    except OSError as error:
        raise EvalsvcError(f"figures {folder}: cannot be written: {error.strerror or error}") from error
    except Exception as error:  # kaleido raises many types of errors
        raise EvalsvcError(f"figures {folder}: the browser failed ({str(error).splitlines()[0]})") from error
    return [Path(str(file["path"])) for file in files]
