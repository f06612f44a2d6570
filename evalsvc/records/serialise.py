"""Records as JSON-ready dicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np


def as_dict(record: Any) -> dict[str, Any]:
    """Return a record as a JSON-ready dict, arrays as lists."""

    def plain(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in items}

    return asdict(record, dict_factory=plain)
