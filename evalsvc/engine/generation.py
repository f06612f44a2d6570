"""Generation on a trie: prompts share their prefixes, and many answers are generated at the same time.

Prompts come from packs in depth-first order. When a prompt's last row has been computed, its answer starts; while
there are free slots, the next pack is run. Every step adds one token to each active answer. An answer's own keys and
values are stored in a slot; the common prefix of its *family* of neighbouring prompts is stored once for all of them.
Each answer ends at its own stop texts. Tokens are chosen as transformers' `generate` chooses them, and sampled from a
random stream per request, so that no answer depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.generation.configuration_utils import GenerationMode

from evalsvc.engine import trie as tries
from evalsvc.engine.attention import (
    Layer,
    PackAttention,
    Pair,
    Sight,
    additive,
    extend,
    forward,
    kernel,
    pack_attention,
)
from evalsvc.engine.devices import spare_memory
from evalsvc.engine.likelihood import Head
from evalsvc.engine.packs import BLOCK_ROWS, Pack, packs
from evalsvc.engine.unpacked import GenerationSettings, Stops, is_out_of_memory
from evalsvc.records.shards import Prompts
from evalsvc.records.vocabulary import Ints

CPU_SLOTS = 16
"""Answers that are generated at the same time on a CPU; one pack may have more prompts."""

GPU_SLOTS = 256

_FAMILY_ROWS = 64
"""Shortest common prefix that is stored once for several prompts."""

_FEW = 4
"""Slots that are added at a time."""


Chooser = Callable[[list[int], list[int], Tensor], int]
"""Prompt, tokens so far, float32 logits [vocabulary] -> the next token."""

States = dict[int, tuple[Tensor, Tensor]]
"""Keys and values [heads, rows, size] of each layer."""


@dataclass(slots=True, eq=False)
class _Family:
    """Neighbouring prompts, and the keys and values of their first `length` tokens by layer."""

    length: int
    waiting: int
    states: States = field(default_factory=dict)


@dataclass(slots=True, eq=False, kw_only=True)
class _Answer:
    """An answer that is being generated.

    Attributes:
        prompt: The prompt's tokens.
        chooser: Chooses the next token; None takes the most likely one.
        tokens: The tokens generated so far.
        length: Rows in use of its slot.
    """

    number: int
    prompt: list[int]
    family: _Family
    chooser: Chooser | None
    length: int = 0
    tokens: list[int] = field(default_factory=list)


def can_generate(model: Any, options: GenerationSettings) -> bool:
    """Whether this module supports some settings: greedy or sampled, one answer, no beams, one pass per token."""
    config, rest = model._prepare_generation_config(None, **options.sampling)
    simple = config.get_generation_mode() in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
    alone = (config.num_return_sequences or 1) == 1 and (config.guidance_scale or 1) == 1
    return simple and alone and not rest and not config.stop_strings


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    work: Prompts,
    all_options: Sequence[GenerationSettings],
    seeds: Sequence[int],
    rows: int,
) -> list[list[int]]:
    """Return the generated tokens of each request.

    Args:
        rows: Rows per forward pass over prompts. When memory runs out, generation starts again with half as many rows
            and half as many answers at the same time.

    Raises:
        torch.OutOfMemoryError: A single answer does not fit.
    """
    slots = GPU_SLOTS if next(model.parameters()).device.type == "cuda" else CPU_SLOTS
    while True:
        try:
            return _Run(model, tokenizer, work, all_options, seeds, rows, slots).finish()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or slots == 1:
                raise
        rows, slots = max(BLOCK_ROWS, rows // 2), slots // 2


class _Run:
    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        work: Prompts,
        all_options: Sequence[GenerationSettings],
        seeds: Sequence[int],
        rows: int,
        slots: int,
    ) -> None:
        self._model, self._work = model, work
        self._decoder, self._head = model.get_decoder(), Head(model)
        self._device = next(model.parameters()).device
        self._all_options, self._seeds = all_options, seeds
        self._stops = [Stops(tokenizer, options.stops) for options in all_options]
        self._packs = packs(work.trie, rows)[::-1]
        self._prefill = pack_attention(self._device, keep_all=True)
        self._order = np.argsort(work.ends, kind="stable")
        self._families = _families(work, self._order)
        lengths = tries.positions(work.trie)[work.ends] + 1
        own = max(
            (int(n) - f.length + w.max_new_tokens for n, f, w in zip(lengths, self._families, all_options, strict=True))
        )
        self._side_by_side = min(
            slots, len(all_options), max(1, spare_memory(self._device) // (own * _row_bytes(model)))
        )
        self._slots = _Slots(self._device, self._side_by_side, own)
        self._growing: list[_Answer] = []
        self._ends: list[frozenset[int]] = [frozenset()] * len(all_options)
        self._tokens: list[list[int]] = [[] for _ in all_options]

    def finish(self) -> list[list[int]]:
        """Return the tokens of all answers."""
        while self._growing or self._packs:
            self._step()
        return self._tokens

    def _step(self) -> None:
        """Start answers while there are free slots, then add one token to each."""
        while self._packs and len(self._growing) < self._side_by_side:
            self._begin(self._packs.pop())
        if not self._growing:
            return
        tokens = torch.tensor([answer.tokens[-1] for answer in self._growing], device=self._device)
        at = [len(answer.prompt) + len(answer.tokens) - 1 for answer in self._growing]
        self._slots.prepare_step(self._growing, at)
        hidden = forward(self._decoder, self._slots, tokens, torch.tensor(at, device=self._device))
        for answer in self._growing:
            answer.length += 1
        self._choose(list(self._growing), hidden)

    def _begin(self, pack: Pack) -> None:
        """Run a pack, and start the answer of every prompt that ends in it: a slot and its first token."""
        low, high = np.searchsorted(self._work.ends[self._order], [pack.first, pack.first + len(pack.tokens)])
        hidden = self._prefill.run(self._decoder, pack, self._device)
        fresh = []
        for number in self._order[low:high].tolist():
            path = tries.path(self._work.trie, int(self._work.ends[number]))
            family = self._families[number]
            prompt = self._work.trie.tokens[path].tolist()
            answer = _Answer(number=number, prompt=prompt, family=family, chooser=self._chooser(number, prompt))
            if family.length and not family.states:
                family.states = _history(self._prefill, pack, path, 0, family.length)
            answer.length = len(prompt) - family.length
            own = _history(self._prefill, pack, path, family.length, len(prompt))
            self._slots.fill(len(self._growing), own, answer.length)
            self._growing.append(answer)
            fresh.append(answer)
        self._prefill.drop(pack)
        self._prefill.seen.clear()
        if fresh:
            rows = [int(self._work.ends[answer.number]) - pack.first for answer in fresh]
            self._choose(fresh, hidden[torch.tensor(rows, device=self._device)])

    def _choose(self, answers: list[_Answer], hidden: Tensor) -> None:
        """Choose the next token of some answers, and finish those that are complete."""
        complete = []
        for first in range(0, len(answers), self._head.chunk):
            logits = self._head(hidden[first : first + self._head.chunk])
            likeliest = logits.argmax(1).tolist()
            for row, answer in enumerate(answers[first : first + self._head.chunk]):
                chooser = answer.chooser
                token = likeliest[row] if chooser is None else chooser(answer.prompt, answer.tokens, logits[row])
                answer.tokens.append(token)
                if (
                    token in self._ends[answer.number]
                    or len(answer.tokens) >= self._all_options[answer.number].max_new_tokens
                    or self._stops[answer.number].are_reached(answer.tokens)
                ):
                    complete.append(answer)
        for answer in complete:
            self._end(answer)

    def _end(self, answer: _Answer) -> None:
        self._tokens[answer.number] = answer.tokens
        family = answer.family
        family.waiting -= 1
        if not family.waiting:
            family.states = {}
        place = self._growing.index(answer)
        last = self._growing.pop()
        if last is not answer:
            self._growing[place] = last
            self._slots.move(len(self._growing), place)

    def _chooser(self, number: int, prompt: list[int]) -> Chooser | None:
        """Return the token chooser of transformers' `generate`, and record the tokens that end an answer."""
        model, options, length = self._model, self._all_options[number], len(prompt)
        config, _ = model._prepare_generation_config(None, max_new_tokens=options.max_new_tokens, **options.sampling)
        model._prepare_special_tokens(config, True, self._device, batch_size=1)
        config.max_length = length + options.max_new_tokens
        if config._eos_token_tensor is not None:
            self._ends[number] = frozenset(config._eos_token_tensor.tolist())
        processors = model._get_logits_processor(
            config,
            input_ids_seq_length=length,
            encoder_input_ids=torch.tensor([prompt], device=self._device),
            device=self._device,
            model_kwargs={"attention_mask": torch.ones(1, length, dtype=torch.int64, device=self._device)},
        )
        if not processors and not config.do_sample:
            return None
        generator = torch.Generator(self._device).manual_seed(self._seeds[number])

        def choose(prompt: list[int], tokens: list[int], logits: Tensor) -> int:
            scores = processors(torch.tensor([prompt + tokens], device=logits.device), logits[None])
            if not config.do_sample:
                return int(scores.argmax())
            return int(torch.multinomial(scores.softmax(1), 1, generator=generator))

        return choose


class _SharedRows(NamedTuple):
    """Rows of a step whose prompts have a common prefix."""

    rows: Tensor
    family: _Family


class _Slots:
    """Keys and values of active answers, and the attention of a step over them."""

    def __init__(self, device: torch.device, slots: int, rows: int) -> None:
        """Create slots with as many rows as the longest answer may need, so that they are never copied to grow."""
        self._device = device
        self._slots, self._rows = slots, rows
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._used = 0
        self._groups: list[_SharedRows] = []
        self._lengths = self._positions = torch.zeros(0)
        self._masks: dict[int | None, Tensor] = {}
        self._seen: dict[tuple[int, int], Sight] = {}

    def fill(self, place: int, states: States, length: int) -> None:
        """Fill a slot with a prompt's states."""
        for layer, (keys, values) in states.items():
            for store, rows in ((self._keys, keys), (self._values, values)):
                have = store.get(layer)
                if have is None or place >= len(have):
                    slots = self._slots if have is None else len(have) + _FEW
                    have = store[layer] = _room(slots, self._rows, rows, have)
                have[place, :, :length] = rows

    def move(self, source: int, place: int) -> None:
        """Copy a slot over another."""
        for store in (self._keys, self._values):
            for states in store.values():
                states[place] = states[source]

    def prepare_step(self, answers: Sequence[_Answer], positions: Sequence[int]) -> None:
        """Prepare a step of the answers in the first slots."""
        self._lengths = torch.tensor([answer.length for answer in answers], device=self._device)
        self._positions = torch.tensor(positions, device=self._device)
        self._used = max(answer.length for answer in answers) + 1
        members: dict[int, list[int]] = {}
        families = {id(answer.family): answer.family for answer in answers if answer.family.length}
        for row, answer in enumerate(answers):
            members.setdefault(id(answer.family), []).append(row)
        self._groups = [
            _SharedRows(torch.tensor(members[key], device=self._device), family) for key, family in families.items()
        ]
        self._masks, self._seen = {}, {}

    def attend(self, layer: Layer) -> Pair:
        """Return attention of each answer over its own rows and its family's prefix."""
        number, query, key, value, window = layer.number, layer.query, layer.key, layer.value, layer.window
        attend = kernel(layer)
        count, rows = len(self._lengths), self._used
        slots = torch.arange(count, device=self._device)
        for store, states in ((self._keys, key), (self._values, value)):
            store[number][slots, :, self._lengths] = states[0].transpose(0, 1)
        keys, values = self._keys[number][:count, :, :rows], self._values[number][:count, :, :rows]
        slot_out, slot_lse = attend(
            query[0].transpose(0, 1).unsqueeze(2), keys, values, self._mask(window, query), False
        )
        out, lse = slot_out.transpose(0, 2).contiguous(), slot_lse.permute(2, 1, 0).contiguous()
        for place, group in enumerate(self._groups):
            own, own_lse = out[:, :, group.rows], lse[:, :, group.rows]
            keys, values = (states[None] for states in group.family.states[number])
            extend(attend, query[:, :, group.rows], keys, values, self._sight(place, window, query), own, own_lse)
            out[:, :, group.rows], lse[:, :, group.rows] = own, own_lse
        return out, lse

    def _mask(self, window: int | None, query: Tensor) -> Tensor:
        """Return the mask of a slot's rows that are empty or outside the window, [answers, 1, 1, rows]."""
        if window not in self._masks:
            back = self._lengths[:, None] - torch.arange(self._used, device=self._device)
            visible = (back >= 0) & (back < window) if window else back >= 0
            self._masks[window] = additive(visible[:, None, None], query.dtype)
        return self._masks[window]

    def _sight(self, place: int, window: int | None, query: Tensor) -> Sight | None:
        """Return which rows of their family's prefix a group's rows see; None for all of them."""
        if not window:
            return None
        if (place, window) not in self._seen:
            group = self._groups[place]
            at = torch.arange(group.family.length, device=self._device)
            self._seen[place, window] = Sight.of(self._positions[group.rows, None] - at < window, query.dtype)
        return self._seen[place, window]


def _row_bytes(model: Any) -> int:
    """Return the bytes of a token's keys and values in all layers, at most."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * next(model.parameters()).element_size())


def _room(slots: int, rows: int, like: Tensor, before: Tensor | None) -> Tensor:
    """Return states [slots, heads, rows, size] for more answers than `before` had slots; the new ones are zero.

    Zero, because a masked row is still part of a product, where a NaN would spread.
    """
    room = like.new_zeros(slots, like.shape[0], rows, like.shape[2])
    if before is not None:
        room[: len(before)] = before
    return room


def _history(attention: PackAttention, pack: Pack, path: Ints, start: int, stop: int) -> States:
    """Return the states of positions `start` to `stop` of a sequence that ends in a pack that has just been run."""
    last = int(path[-1]) - pack.first
    inside = path[path >= pack.first] - pack.first
    outside = len(path) - len(inside)
    own_rows = torch.from_numpy(inside[max(0, start - outside) : max(0, stop - outside)])
    own = {trunk.number for trunk in pack.trunks}
    above = sorted(
        (ancestor.depth, ancestor.length, ancestor.trunk)
        for ancestor in pack.ancestors
        if ancestor.start <= last < ancestor.end and ancestor.trunk not in own
    )
    history: States = {}
    for layer, seen in attention.seen.items():
        pieces: tuple[list[Tensor], list[Tensor]] = ([], [])
        for depth, length, trunk in above:
            low, high = max(0, start - depth), min(length, stop - depth)
            if low < high:
                for piece, states in zip(pieces, attention.kept[trunk][layer], strict=True):
                    piece.append(states[0, :, low:high])
        for piece, states in zip(pieces, seen, strict=True):
            piece.append(states[0].index_select(1, own_rows.to(states.device)))
        history[layer] = torch.cat(pieces[0], 1), torch.cat(pieces[1], 1)
    return history


def _families(work: Prompts, order: Ints) -> list[_Family]:
    """Return the family of every prompt: neighbours whose common prefix is long enough to be stored once."""
    families: list[_Family] = [_Family(0, 1)] * len(order)
    family = _Family(0, 0)
    previous: Ints = np.zeros(0, np.int64)
    for number in order.tolist():
        path = tries.path(work.trie, int(work.ends[number]))
        n = min(len(previous), len(path))
        same = previous[:n] == path[:n]
        shared = int(same.argmin()) if n and not same.all() else n
        length = min(shared, family.length)
        if family.waiting and length >= _FAMILY_ROWS and 2 * length >= family.length:
            family.length = length
            family.waiting += 1
        else:
            if family.waiting == 1:
                family.length = 0
            family = _Family(len(path), 1)
        families[number] = family
        previous = path
    if family.waiting == 1:
        family.length = 0
    return families
