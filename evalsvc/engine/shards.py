"""Cut a plan's requests into shards. Needs neither torch nor a model, so that a driver can do it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from evalsvc.records import Request, digest

MAX_REQUESTS = 256
MAX_CHARACTERS = 48_000


def cut(requests: Sequence[Request]) -> list[tuple[str, tuple[Request, ...]]]:
    """Return (key, requests) of every shard.

    A function of the requests alone: not of their order, of the number of workers, or of what has been scored already.
    Requests with the same beginning stay together, because they share work.
    """
    ordered = sorted(requests, key=lambda r: (r.kind, r.arguments, r.repeat))
    return [(digest("shard", *(r.digest for r in shard)), shard) for shard in _slices(ordered)]


def _slices(ordered: Iterable[Request]) -> Iterator[tuple[Request, ...]]:
    shard: list[Request] = []
    size = 0
    for request in ordered:
        context = request.arguments[0]
        shares = bool(shard) and context != "" and shard[-1].arguments[0] == context
        cost = len(request.arguments[-1]) if shares else sum(map(len, request.arguments))
        full = len(shard) >= MAX_REQUESTS or size + cost > MAX_CHARACTERS
        # The choices of one document are not torn apart, unless there are as many as a whole shard takes.
        if shard and (shard[-1].kind != request.kind or (full and (not shares or len(shard) >= 2 * MAX_REQUESTS))):
            yield tuple(shard)
            shard, size = [], 0
        shard.append(request)
        size += cost
    if shard:
        yield tuple(shard)
