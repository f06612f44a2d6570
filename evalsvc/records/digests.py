"""Identity by content: canonical JSON and SHA-256.

Digests are lower-case SHA-256 in hex: of a checkpoint "sha256:" and 64 digits, of requests, samples, suites and plans
the first 32 digits.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no ASCII escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: str) -> str:
    """Return 32 hex digits of SHA-256 over `parts`, each closed off from the next by its length."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:32]
