"""Content digests: SHA-256 of canonical JSON.

Digests are SHA-256 in lower-case hex: "sha256:" and 64 digits for a checkpoint, the first 32 digits for requests,
samples, suites and plans.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any


def canonical(value: Any) -> str:
    """Return `value` as canonical JSON: sorted keys, no spaces, no ASCII escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: str) -> str:
    """Return 32 hex digits of SHA-256 over `parts`, each prefixed by its length, so that different lists differ."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:32]


def join_digests(first: Sequence[str], second: Sequence[str]) -> str:
    """Return the digest of a checkpoint without weights of its own, from two lists of its parts."""
    return f"sha256:{digest(*first)}{digest(*second)}"


def number_cluster(suite: str, cluster: str) -> int:
    """Return the number of a cluster that a suite declares, 62 bits; the same in all of the suite's tasks."""
    return int(digest("cluster", suite, cluster), 16) >> 66


def number_document(task: str, document: str) -> int:
    """Return the number of a document, 63 bits of its content; the store's migrations have it in SQL.

    Args:
        document: As JSON. An imported item that has only a name is another document in every task, except if it names
            the task in which it stood before.
    """
    content = document
    if document.startswith('{"item":'):
        named = json.loads(document)
        if named.keys() == {"item", "task"}:
            task, document = named["task"], canonical({"item": named["item"]})
        content = f"{task}\n{document}"
    lower = hashlib.md5(content.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()[8:]
    return int.from_bytes(lower, "little") >> 1
