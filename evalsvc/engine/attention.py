"""Exact attention over a pack: each row sees its own history, and nothing is padded, copied or computed twice.

Attention of a row over its own trunk or block, and over every trunk above it, is computed separately and merged by
log-sum-exp: with outputs o, p and log-sum-exps l, m of two sets of keys, attention over both is
o + (p - o) sigmoid(m - l), and its log-sum-exp log(exp l + exp m). Models are not modified: they call this function
through transformers' attention interface, which also passes grouped heads, sliding windows, soft caps and sinks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

from evalsvc.engine.packs import Ancestor, Pack

NAME = "evalsvc_trie"

Pair = tuple[Tensor, Tensor]
"""Attention [batch, heads, rows, size], and its log-sum-exp [batch, heads, rows]."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, bool], Pair]
"""Queries, keys, values, an additive mask, and whether attention is causal."""

States = tuple[Tensor, Tensor, Tensor]

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

Kept = dict[int, dict[int, tuple[Tensor, Tensor]]]
"""Trunk -> layer -> keys and values [1, heads, rows, head size]."""


@dataclass(slots=True, kw_only=True)
class _BlockBatch:
    """Blocks of about the same size as one padded batch.

    Attributes:
        gather: int64 [blocks * size], rows of the pack, padded with row 0.
        places, rows: Index in the batch, and row of the pack, of each row that is not padding; int64 [real rows].
        visible: bool [blocks, 1, size, size].
        masks: The same as an additive mask, by sliding window.
    """

    blocks: int
    size: int
    gather: Tensor
    places: Tensor
    rows: Tensor
    visible: Tensor
    masks: dict[int | None, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layer:
    """One layer's states [1, heads, rows, size], and its attention settings."""

    number: int
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    window: int | None
    softcap: float | None


class Attends(Protocol):
    """Computes attention while it is active."""

    def attend(self, layer: Layer) -> Pair:
        """Return attention [1, heads, rows, size], and its log-sum-exp [1, heads, rows]."""
        ...


class Registered:
    """The function that transformers calls as its attention; a process runs one forward pass at a time.

    Attributes:
        active: Computes the attention.
        windows: Sliding windows of the layers seen so far.
    """

    def __init__(self) -> None:
        self.active: Attends | None = None
        self.windows: set[int] = set()

    def __call__(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Return the attention of [1, heads, rows, size] queries as [1, rows, heads, size]."""
        assert self.active is not None
        if sliding_window:
            self.windows.add(sliding_window)
        scale = scaling if scaling is not None else query.shape[3] ** -0.5
        layer = Layer(
            number=module.layer_idx,
            query=query,
            key=key,
            value=value,
            scale=scale,
            window=sliding_window or None,
            softcap=softcap,
        )
        out, lse = self.active.attend(layer)
        if s_aux is not None:  # an attention sink is part of the softmax, but has no value
            out *= torch.sigmoid(lse - s_aux.float().view(1, -1, 1)).unsqueeze(-1).to(out.dtype)
        return out.transpose(1, 2), None


REGISTERED = Registered()
AttentionInterface.register(NAME, REGISTERED)


class PackAttention:
    """Attention over packs of one trie, in their order.

    Attributes:
        kept: Keys and values of trunks that later packs need.
        seen: Keys and values of the current pack's rows, by layer, if `keep_all`.
    """

    def __init__(self, *, keep_all: bool = False) -> None:
        self.kept: Kept = {}
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        self._keep_all = keep_all
        self._pack: Pack | None = None
        self._positions = torch.zeros(0)
        self._groups: list[_BlockBatch] = []
        self._seen: dict[tuple[int, int, int, int, int], Sight] = {}

    def run(self, decoder: Any, pack: Pack, device: torch.device) -> Tensor:
        """Return the final hidden states [rows, hidden size] of the next pack."""
        self._pack = pack
        self._positions = torch.from_numpy(pack.positions).to(device)
        self._groups = _groups(pack, device)
        self._seen = {}
        hidden = forward(decoder, self, torch.from_numpy(pack.tokens).to(device), self._positions)
        return hidden

    def drop(self, pack: Pack) -> None:
        """Free the states that packs after this one do not need."""
        for trunk in pack.drop:
            self.kept.pop(trunk, None)

    def attend(self, layer: Layer) -> Pair:
        """Return every row's attention over its own unit and all trunks above."""
        pack, query, key, value, window = self._pack, layer.query, layer.key, layer.value, layer.window
        assert pack is not None
        attend = kernel(layer)
        out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3]).transpose(1, 2)
        lse = query.new_empty(1, query.shape[1], query.shape[2], dtype=torch.float32)
        for _trunk, start, end, _keep in pack.trunks:
            at = slice(start, end)
            mask = self._trunk_mask(start, end, window, query.dtype)
            out[:, :, at], lse[:, :, at] = attend(query[:, :, at], key[:, :, at], value[:, :, at], mask, mask is None)
        for group in self._groups:
            self._blocks(group, window, attend, (query, key, value), out, lse)
        own = {trunk.number: trunk.start for trunk in pack.trunks}
        for ancestor in pack.ancestors:
            first = own.get(ancestor.trunk)
            if first is None:
                keys, values = self.kept[ancestor.trunk][layer.number]
            else:
                keys, values = key[:, :, first:], value[:, :, first:]
            self._ancestor(ancestor, window, attend, (query, keys, values), out, lse)
        self._keep(layer)
        return out, lse

    def _keep(self, layer: Layer) -> None:
        """Keep the states that later packs need."""
        assert self._pack is not None
        for trunk, start, _end, keep in self._pack.trunks:
            if keep:
                at = slice(start, start + keep)
                kept = layer.key[:, :, at].clone(), layer.value[:, :, at].clone()
                self.kept.setdefault(trunk, {})[layer.number] = kept
        if self._keep_all:
            self.seen[layer.number] = layer.key, layer.value

    def _blocks(
        self, group: _BlockBatch, window: int | None, attend: Kernel, states: States, out: Tensor, lse: Tensor
    ) -> None:
        def batch(states: Tensor) -> Tensor:
            picked = states[0].index_select(1, group.gather)
            return picked.view(len(picked), group.blocks, group.size, -1).transpose(0, 1)

        query, key, value = (batch(state) for state in states)
        if window not in group.masks:
            visible = group.visible
            if window:
                at = self._positions[group.gather].view(group.blocks, 1, group.size)
                visible = visible & (at.unsqueeze(3) - at.unsqueeze(2) < window)
            group.masks[window] = additive(visible, query.dtype)
        block_out, block_lse = attend(query, key, value, group.masks[window], False)
        heads = block_out.shape[1]
        out[0].index_copy_(
            1, group.rows, block_out.transpose(0, 1).reshape(heads, -1, block_out.shape[3])[:, group.places]
        )
        lse[0].index_copy_(1, group.rows, block_lse.transpose(0, 1).reshape(heads, -1)[:, group.places])

    def _ancestor(
        self, ancestor: Ancestor, window: int | None, attend: Kernel, states: States, out: Tensor, lse: Tensor
    ) -> None:
        """Merge attention over a trunk into that of a range of rows below it."""
        assert self._pack is not None
        length, depth, start, end = ancestor.length, ancestor.depth, ancestor.start, ancestor.end
        positions = self._pack.positions[start:end]
        first = max(0, int(positions.min()) - window + 1 - depth) if window else 0
        if first >= length:
            return
        seen = None
        if window and int(positions.max()) - (depth + first) >= window:
            place = (start, end, depth, length, window)
            if place not in self._seen:
                there = torch.arange(depth + first, depth + length, device=out.device)
                self._seen[place] = Sight.of(self._positions[start:end, None] - there < window, out.dtype)
            seen = self._seen[place]
        query, key, value = states
        keys, values = key[:, :, first:length], value[:, :, first:length]
        extend(attend, query[:, :, start:end], keys, values, seen, out[:, :, start:end], lse[:, :, start:end])

    def _trunk_mask(self, start: int, end: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Return the mask of a trunk; None if plain causal attention is enough."""
        if not window or end - start <= window:
            return None
        place = (start, end, -1, -1, window)
        if place not in self._seen:
            at = torch.arange(end - start, device=self._positions.device)
            back = at[:, None] - at
            self._seen[place] = Sight.of((back >= 0) & (back < window), dtype)
        return self._seen[place].mask


class FlexPackAttention(PackAttention):
    """The same in one kernel per layer, for devices where many small calls are slower than one call with a mask.

    Keys are the kept prefixes of the trunks above, one after another, followed by the pack's own rows.
    """

    def run(self, decoder: Any, pack: Pack, device: torch.device) -> Tensor:
        """Return the final hidden states [rows, hidden size] of the next pack."""
        own = {trunk.number for trunk in pack.trunks}
        lengths: dict[int, int] = {}
        for ancestor in pack.ancestors:
            if ancestor.trunk not in own:
                lengths[ancestor.trunk] = max(lengths.get(ancestor.trunk, 0), ancestor.length)
        self._above = lengths
        places = {trunk: place for place, trunk in enumerate(lengths)}
        # For every trunk above: how many of its rows each row of the pack sees.
        limits = np.zeros((len(lengths) + 1, len(pack.tokens)), np.int64)
        depths = dict.fromkeys(lengths, 0)
        for ancestor in pack.ancestors:
            if ancestor.trunk in places:
                limits[places[ancestor.trunk], ancestor.start : ancestor.end] = ancestor.length
                depths[ancestor.trunk] = ancestor.depth
        self._limits = torch.from_numpy(limits).to(device)
        counts = list(lengths.values())
        self._trunk = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device)
        index = np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)])
        self._index = torch.from_numpy(index).to(device)
        above = np.concatenate([np.zeros(0, np.int64), *(depths[t] + np.arange(n) for t, n in lengths.items())])
        self._places = torch.from_numpy(np.concatenate([above, pack.positions])).to(device)
        self._ends = torch.from_numpy(pack.ends).to(device)
        self._visible: dict[int | None, BlockMask] = {}
        return super().run(decoder, pack, device)

    def attend(self, layer: Layer) -> Pair:
        """Return attention over all keys, computed with one mask."""
        number, query, key, value = layer.number, layer.query, layer.key, layer.value
        window, softcap = layer.window, layer.softcap
        keys = torch.cat([*(self.kept[t][number][0][:, :, :n] for t, n in self._above.items()), key], 2)
        values = torch.cat([*(self.kept[t][number][1][:, :, :n] for t, n in self._above.items()), value], 2)
        if window not in self._visible:
            self._visible[window] = create_block_mask(
                self._mask(window), None, None, query.shape[2], keys.shape[2], query.device
            )

        bound = softcap or 0.0

        def cap(score: Tensor, *_: Tensor) -> Tensor:
            return torch.tanh(score / bound) * bound

        out, aux = _flex(query.device.type)(
            query,
            keys,
            values,
            score_mod=cap if softcap is not None else None,
            block_mask=self._visible[window],
            scale=layer.scale,
            enable_gqa=query.shape[1] != key.shape[1],
            return_aux=AuxRequest(lse=True),
        )
        self._keep(layer)
        return out, aux.lse.float()

    def _mask(self, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        above, limits, trunk, index = len(self._index), self._limits, self._trunk, self._index
        ends, places = self._ends, self._places

        def visible(_batch: Tensor, _head: Tensor, row: Tensor, column: Tensor) -> Tensor:
            own = column - above
            sees = (own >= 0) & (own <= row) & (row < ends[own.clamp(min=0)])
            if above:
                at = column.clamp(max=above - 1)
                sees = sees | ((own < 0) & (index[at] < limits[trunk[at], row]))
            if window:
                sees = sees & (places[above + row] - places[column] < window)
            return sees

        return visible


@cache
def _flex(device: str) -> Any:
    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


def pack_attention(device: torch.device, *, keep_all: bool = False) -> PackAttention:
    """Return the attention implementation for a device."""
    return FlexPackAttention(keep_all=keep_all) if device.type == "cuda" else PackAttention(keep_all=keep_all)


def forward(decoder: Any, active: Attends, tokens: Tensor, positions: Tensor) -> Tensor:
    """Return the final hidden states [rows, hidden size] of int64 [rows] tokens at their positions."""
    REGISTERED.active = active
    try:
        output = decoder(input_ids=tokens[None], position_ids=positions[None], use_cache=False)
    finally:
        REGISTERED.active = None
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


class Sight(NamedTuple):
    """Which keys some rows see: an additive mask, and the rows that see no key."""

    mask: Tensor
    blind: Tensor

    @classmethod
    def of(cls, visible: Tensor, dtype: torch.dtype) -> Sight:
        """Make it from bool [rows, keys]."""
        return cls(additive(visible[None, None], dtype), ~visible.any(1))


def extend(
    attend: Kernel, query: Tensor, keys: Tensor, values: Tensor, seen: Sight | None, out: Tensor, lse: Tensor
) -> None:
    """Extend attention `out` [.., rows, size] and its log-sum-exp `lse` [.., rows] by more keys, in place."""
    other, other_lse = attend(query, keys, values, seen.mask if seen else None, False)
    if seen:
        other_lse = other_lse.masked_fill(seen.blind, -math.inf)
    out.copy_(torch.lerp(out, other, torch.sigmoid(other_lse - lse).unsqueeze(-1).to(out.dtype)))
    lse.copy_(torch.logaddexp(lse, other_lse))


def kernel(layer: Layer) -> Kernel:
    """Return the fastest attention function for a layer that also returns the log-sum-exp."""
    scale, softcap = layer.scale, layer.softcap
    if layer.query.device.type == "cpu" and softcap is None and layer.query.shape[3] == layer.value.shape[3]:

        def flash(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Pair:
            return cast(Pair, _FLASH(query, key, value, 0.0, causal, attn_mask=mask, scale=scale))

        return flash

    def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Pair:
        groups = query.shape[1] // key.shape[1]
        scores = query.float() @ key.repeat_interleave(groups, 1).float().transpose(2, 3) * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if mask is not None:
            scores = scores + mask
        if causal:
            rows = scores.shape[2]
            scores = scores.masked_fill(scores.new_ones(rows, rows, dtype=torch.bool).triu(1), -math.inf)
        lse = scores.logsumexp(3)
        weights = torch.exp(scores - lse.unsqueeze(3)).to(value.dtype)
        return weights @ value.repeat_interleave(groups, 1), lse

    return plain


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where visible, else minus infinity; a row that sees no key gets 0 in its first column."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -math.inf)
    mask[..., 0].masked_fill_(~visible.any(-1), 0.0)
    return mask


def _groups(pack: Pack, device: torch.device) -> list[_BlockBatch]:
    """Put blocks of similar size into padded batches."""
    waiting = sorted(pack.blocks, key=lambda block: block[0] - block[1])
    ends = torch.from_numpy(pack.ends)
    groups: list[_BlockBatch] = []
    while waiting:
        size = waiting[0][1] - waiting[0][0]
        chosen = [block for block in waiting if (block[1] - block[0]) * 1.25 + 8 >= size]
        waiting = waiting[len(chosen) :]
        starts, stops = torch.tensor(chosen).unsqueeze(2).unbind(1)
        rows = starts + torch.arange(size)
        real = rows < stops
        rows = torch.where(real, rows, 0)
        # Row i sees row j if j is not after i, and i is below j; padding neither sees nor is seen.
        below = (rows.unsqueeze(1) <= rows.unsqueeze(2)) & (rows.unsqueeze(2) < ends[rows].unsqueeze(1))
        visible = below & real.unsqueeze(1) & real.unsqueeze(2)
        places = real.flatten().nonzero()[:, 0]
        gather = rows.flatten()
        groups.append(
            _BlockBatch(
                blocks=len(chosen),
                size=size,
                gather=gather.to(device),
                places=places.to(device),
                rows=gather[places].to(device),
                visible=visible.unsqueeze(1).to(device),
            )
        )
    return groups
