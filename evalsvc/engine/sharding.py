"""A plan's requests as token tries, cut into shards: built once per tokenizer, and cached on disk.

Shards depend only on requests and tokenizer: not on the order of the requests, the number of workers, the model, or
which requests have been scored already. Equal work is therefore rounded equally, for the base and every checkpoint, and
with or without a resume.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from evalsvc.engine import trie as tries
from evalsvc.engine.encoding import (
    Encoder,
    Prompt,
    RequestError,
    Scored,
    load_encoder,
    load_tokenizer,
)
from evalsvc.records.arms import Checkpoint
from evalsvc.records.digests import digest
from evalsvc.records.generation import Decoding, read_decoding
from evalsvc.records.plans import Plan, Request
from evalsvc.records.shards import Likelihoods, Prompts, Tokens, Trie

SHARD_ROWS = 8192
"""Minimum rows of a shard, except the last."""

SHARE = 24
"""Minimum rows of a shard as a multiple of the rows that its start shares with the shard before, which it repeats."""

_FORMAT = "1"


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """One shard's part of a plan, the same for every arm.

    Attributes:
        members: int32 [requests], numbers of the requests in the plan's order by digest.
    """

    members: Tokens
    work: Likelihoods | Prompts


@dataclass(frozen=True, eq=False)
class Cut:
    """All of a plan's requests as slices.

    Attributes:
        requests: Digests, sorted.
        refused: Requests that cannot be scored with this tokenizer and window: digest to reason.
    """

    requests: tuple[str, ...]
    slices: tuple[Slice, ...]
    refused: dict[str, str]

    def digests(self, part: Slice) -> tuple[str, ...]:
        """Return the digests of a slice's requests."""
        return tuple(self.requests[number] for number in part.members)

    @cached_property
    def prompt_tokens(self) -> float | None:
        """Mean number of prompt tokens over all requests except rolling texts; None if all are rolling texts.

        As the model reads them: after rendering, with few-shot examples and retrieved passages, and after truncation.
        """
        lengths = [_prompt_lengths(part.work) for part in self.slices]
        counted = np.concatenate(lengths) if lengths else np.zeros(0)
        return float(counted.mean()) if len(counted) else None

    @property
    def rows(self) -> int:
        """Tokens that a forward pass over all slices computes."""
        return sum(part.work.trie.rows for part in self.slices)


class Cutter:
    """Cuts plans into slices, each once per tokenizer and window, and caches the result on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._limits: dict[str, str] = {}
        self._cuts: dict[str, Cut] = {}

    def cut_plan(self, plan: Plan, checkpoint: Checkpoint) -> Cut:
        """Return a plan's slices for a checkpoint.

        Raises:
            CheckpointError: The checkpoint's tokenizer or configuration cannot be loaded.
        """
        encoder: Encoder | None = None
        if checkpoint.digest not in self._limits:
            encoder = load_encoder(checkpoint)
            self._limits[checkpoint.digest] = encoder.limits
        limits = self._limits[checkpoint.digest]
        versions = [version(package) for package in ("transformers", "tokenizers")]
        name = digest("cut", _FORMAT, str(SHARD_ROWS), str(SHARE), plan.digest, checkpoint.tokenizer, limits, *versions)
        if name not in self._cuts:
            file = self._folder / f"{name}.npz"
            self._cuts[name] = _load(file, plan.requests) or self._make(file, plan, encoder or load_encoder(checkpoint))
        return self._cuts[name]

    def has_same_tokens(self, plan: Plan, first: Checkpoint, second: Checkpoint) -> bool:
        """Whether two checkpoints encode a plan's requests as the same tokens of the same vocabulary.

        Tokenizers may differ in settings that have no effect on this plan, such as the chat template.
        """
        if first.tokenizer == second.tokenizer:
            return True
        shares_embeddings = first.resident == second.resident  # an adapter, whose unused new tokens have no embedding
        if not shares_embeddings and load_tokenizer(first).get_vocab() != load_tokenizer(second).get_vocab():
            return False
        cuts = self.cut_plan(plan, first).slices, self.cut_plan(plan, second).slices
        return len(cuts[0]) == len(cuts[1]) and all(
            np.array_equal(a.members, b.members)
            and np.array_equal(a.work.trie.tokens, b.work.trie.tokens)
            and np.array_equal(a.work.trie.starts, b.work.trie.starts)
            for a, b in zip(*cuts, strict=True)
        )

    def _make(self, file: Path, plan: Plan, encoder: Encoder) -> Cut:
        cut = cut_requests(plan.requests, encoder)
        _save(cut, file)
        return cut


def _prompt_lengths(work: Likelihoods | Prompts) -> NDArray[np.int64]:
    positions = tries.positions(work.trie)
    if isinstance(work, Prompts):
        return positions[work.ends] + 1
    # The first token of an answer is predicted at the last token of its prompt.
    last = np.full(len(work.rolling), np.iinfo(np.int64).max)
    np.minimum.at(last, work.owners, positions[work.rows])
    return last[~work.rolling] + 1


def cut_requests(requests: Sequence[Request], encoder: Encoder) -> Cut:
    """Encode requests and cut them into slices."""
    ordered = sorted(requests, key=lambda request: request.digest)
    items: list[list[Scored] | Prompt | RequestError] = [RequestError()] * len(ordered)
    kinds = {kind: [n for n, r in enumerate(ordered) if r.kind == kind] for kind in {r.kind for r in ordered}}
    for kind, numbers in kinds.items():
        chosen = [ordered[number] for number in numbers]
        if kind == "loglikelihood":
            encoded: Any = [
                sequences if isinstance(sequences, RequestError) else [sequences]
                for sequences in encoder.loglikelihood(chosen)
            ]
        elif kind == "loglikelihood_rolling":
            encoded = encoder.rolling(chosen)
        else:
            encoded = encoder.prompts(chosen)
        for number, sequences in zip(numbers, encoded, strict=True):
            try:
                encoder.check_tokens(_list_tokens(sequences))
                items[number] = sequences
            except RequestError as error:
                items[number] = error
    refused = {
        ordered[n].digest: str(sequences) for n, sequences in enumerate(items) if isinstance(sequences, RequestError)
    }
    scored = {n: sequences for n, sequences in enumerate(items) if isinstance(sequences, list)}
    prompts = {n: sequences for n, sequences in enumerate(items) if isinstance(sequences, Prompt)}
    slices = [
        *(_likelihoods(ordered, {n: scored[n] for n in part}, encoder.two_sided) for part in _parts(scored)),
        *(_prompts(ordered, {n: prompts[n] for n in part}) for part in _prompt_parts(ordered, prompts)),
    ]
    return Cut(tuple(request.digest for request in ordered), tuple(slices), refused)


def _list_tokens(item: list[Scored] | Prompt | RequestError) -> list[Tokens]:
    if isinstance(item, Prompt):
        return [item.tokens]
    return [tokens for window in item for tokens in (window.tokens, window.targets)] if isinstance(item, list) else []


def _parts(scored: dict[int, list[Scored]]) -> Iterator[list[int]]:
    first = {number: windows[0].tokens for number, windows in scored.items()}
    more = {number: sum(len(window.tokens) for window in windows[1:]) for number, windows in scored.items()}
    return _cut_sorted(first, more)


def _prompt_parts(ordered: list[Request], prompts: dict[int, Prompt]) -> Iterator[list[int]]:
    tokens = {number: prompt.tokens for number, prompt in prompts.items()}
    limits: dict[str, int] = {}
    for number in prompts:
        settings = ordered[number].arguments[1]
        limits.setdefault(settings, _answer_rows(read_decoding(json.loads(settings))))
    return _cut_sorted(tokens, {number: limits[ordered[number].arguments[1]] for number in prompts})


def _answer_rows(decoding: Decoding) -> int:
    return decoding.max_gen_toks if decoding.max_length is None else decoding.max_length


def _cut_sorted(tokens: dict[int, Tokens], more: dict[int, int]) -> Iterator[list[int]]:
    """Yield the numbers of each slice's requests, in lexicographic order of their tokens.

    Args:
        tokens: First sequence of each request.
        more: Rows of each request beyond those of its first sequence.
    """
    numbers = list(tokens)
    part: list[int] = []
    rows = 0
    previous: Tokens = np.zeros(0, np.int32)
    for index in tries.in_order([tokens[number] for number in numbers]):
        number = numbers[index]
        shared = tries.common(previous, tokens[number])
        if part and rows >= max(SHARD_ROWS, SHARE * shared):
            yield part
            part, rows, shared = [], 0, 0
        part.append(number)
        rows += len(tokens[number]) - shared + more[number]
        previous = tokens[number]
    if part:
        yield part


def _likelihoods(ordered: list[Request], items: dict[int, list[Scored]], two_sided: bool) -> Slice:
    windows = [window for same in items.values() for window in same]
    trie, rows = tries.build([w.tokens for w in windows], [1 if two_sided else len(w.targets) for w in windows])
    if two_sided:
        rows = [np.repeat(row, len(window.targets)) for row, window in zip(rows, windows, strict=True)]
    targets = [sum(len(window.targets) for window in same) for same in items.values()]
    return Slice(
        np.array(list(items), np.int32),
        Likelihoods(
            trie=trie,
            rows=np.concatenate(rows),
            targets=np.concatenate([window.targets for window in windows]),
            owners=np.repeat(np.arange(len(items), dtype=np.int32), targets),
            rolling=np.array([ordered[number].kind == "loglikelihood_rolling" for number in items]),
            truncated=np.array([same[0].truncated for same in items.values()], np.int32),
        ),
    )


def _prompts(ordered: list[Request], items: dict[int, Prompt]) -> Slice:
    trie, rows = tries.build([prompt.tokens for prompt in items.values()], [1] * len(items))
    truncated = np.array([prompt.truncated for prompt in items.values()], np.int32)
    settings = tuple(ordered[number].arguments[1] for number in items)
    return Slice(np.array(list(items), np.int32), Prompts(trie, np.concatenate(rows), settings, truncated))


# --------------------------------------------------------------------------------------------------------------- disk


def _save(cut: Cut, file: Path) -> None:
    """Write a cut as one array per field, with all slices concatenated."""
    arrays: dict[str, Any] = {
        "refused": np.array([part for refusal in cut.refused.items() for part in refusal], np.str_)
    }
    for kind in (Likelihoods, Prompts):
        works = [(part.members, part.work) for part in cut.slices if isinstance(part.work, kind)]
        columns = {"members": [members for members, _ in works]}
        for field in fields(Trie):
            columns[field.name] = [getattr(work.trie, field.name) for _, work in works]
        for name in _columns(kind):
            columns[name if name != "rows" else "scored"] = [getattr(work, name) for _, work in works]
        for name, values in columns.items():
            arrays[f"{kind.__name__}.{name}"] = np.concatenate(values) if values else np.zeros(0, np.int32)
            arrays[f"{kind.__name__}.{name}.counts"] = np.array([len(value) for value in values], np.int64)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as stream:
        np.savez(stream, **arrays)
    unfinished.replace(file)


def _columns(kind: type[Likelihoods | Prompts]) -> list[str]:
    return [field.name for field in fields(kind) if field.name not in ("trie", "settings")]


def _load(file: Path, requests: Sequence[Request]) -> Cut | None:
    """Return a cut from disk; None if the file is absent or damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return _read_arrays(arrays, requests)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def _read_arrays(arrays: Any, requests: Sequence[Request]) -> Cut:
    ordered = sorted(requests, key=lambda request: request.digest)
    slices: list[Slice] = []
    for kind in (Likelihoods, Prompts):
        make: Any = kind

        def column(name: str, kind: str = kind.__name__) -> list[Any]:
            counts = arrays[f"{kind}.{name}.counts"]
            return np.split(arrays[f"{kind}.{name}"], np.cumsum(counts)[:-1]) if len(counts) else []

        tries_ = [Trie(*parts) for parts in zip(*(column(field.name) for field in fields(Trie)), strict=True)]
        rest = zip(*(column(name if name != "rows" else "scored") for name in _columns(kind)), strict=True)
        for members, trie, values in zip(column("members"), tries_, rest, strict=True):
            given = dict(zip(_columns(kind), values, strict=True))
            if kind is Prompts:
                given["settings"] = tuple(ordered[number].arguments[1] for number in members)
            slices.append(Slice(members, make(trie=trie, **given)))
    refused = arrays["refused"].tolist()
    return Cut(
        tuple(request.digest for request in ordered),
        tuple(slices),
        dict(zip(refused[::2], refused[1::2], strict=True)),
    )
