"""Identity by content: canonical JSON and SHA-256.

Digests are SHA-256 in lower-case hex: "sha256:" and 64 digits for a checkpoint, the first 32 digits for requests,
samples, suites and plans.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no ASCII escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: str) -> str:
    """Return 32 hex digits of SHA-256 over `parts`, each with its length before it, so that no two lists are alike."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:32]


def join_digests(first: Sequence[str], second: Sequence[str]) -> str:
    """Return the digest of a checkpoint that has no weights of its own: the digests of two lists of its parts."""
    return f"sha256:{digest(*first)}{digest(*second)}"
