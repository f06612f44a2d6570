"""Which suites several arms are compared on: those that they share, so that one arm's extra suite changes no other's.

Pure: no I/O, no database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TypeVar

Name = TypeVar("Name", str, tuple[str, str])


def find_shared(scored: Sequence[Collection[Name]]) -> list[Name]:
    """Return the names that most arms have together, in the order in which they first appear.

    Names are added from the most frequent on, as long as more than half of the arms that have any have all of them, or
    no arm is lost. So neither an arm with one name more nor an arm with one name less changes the others' names.

    Args:
        scored: The names that each arm has scores on.
    """
    arms = [names for names in scored if names]
    counts = Counter(name for names in arms for name in names)
    shared: list[Name] = []
    having = arms  # those that have all that is shared
    for name in sorted(counts, key=lambda name: -counts[name]):
        kept = [names for names in having if name in names]
        if 2 * len(kept) > len(arms) or (kept and (not shared or len(kept) == len(having))):
            shared.append(name)
            having = kept
    return [name for name in counts if name in shared]
