"""How adapting changed the weights, by tensor and summed up by kind of layer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

_KINDS = (
    ("embeddings", re.compile(r"embed_tokens|\bwte\b|\bwpe\b|word_embeddings|embed_in")),
    ("head", re.compile(r"lm_head|embed_out|^output\.")),
    ("norms", re.compile(r"norm|\bln_")),
    ("attention", re.compile(r"attn|attention")),
    ("feed-forward", re.compile(r"mlp|feed_forward|ffn|experts|\bfc")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorChange:
    """Difference of a tensor from its base's.

    Attributes:
        changed: Number of elements that differ by more than the tolerance.
        base_norm, norm: Frobenius norms of the base's tensor and of the difference.
        rank_90: Smallest number of the difference's singular values with 90 % of their sum of squares; None unless a
            matrix.
        effective_rank: exp of the entropy of the difference's singular values as shares of their sum.
    """

    name: str
    shape: tuple[int, ...]
    changed: int
    base_norm: float
    norm: float
    rank_90: int | None = None
    effective_rank: float | None = None


@dataclass(frozen=True, slots=True)
class WeightChange:
    """Difference of a checkpoint's weights from its base's.

    Attributes:
        parameters: Parameters of the base.
        trainable: Trainable parameters, as far as files show: those of changed tensors, or an adapter's own.
        tolerance: When an element counts as changed, in words.
        tensors: The compared tensors; without those that an adapter does not change.
    """

    parameters: int
    trainable: int
    tolerance: str
    tensors: tuple[TensorChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChange:
    """Change of all tensors of one kind of layer.

    Attributes:
        parameters: Parameters of the compared tensors.
        changed: Share of them that changed by more than the tolerance.
        norm: Norm of the change / norm of the base.
        rank_90, effective_rank: Medians over the changed matrices; None if there is none.
    """

    group: str
    tensors: int
    parameters: int
    changed: float
    norm: float
    rank_90: float | None
    effective_rank: float | None


def find_layer_kind(name: str) -> str:
    """Return the kind of layer by a tensor's name."""
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), "other")


def group_changes(change: WeightChange) -> list[GroupChange]:
    """Return one entry per kind of layer, and one for all."""
    groups: dict[str, list[TensorChange]] = {}
    for tensor in change.tensors:
        groups.setdefault(find_layer_kind(tensor.name), []).append(tensor)
    order = [kind for kind, _ in _KINDS] + ["other"]
    lines = [_sum_up(kind, groups[kind]) for kind in order if kind in groups]
    return [*lines, _sum_up("all", change.tensors)] if len(lines) > 1 else lines


def _sum_up(group: str, tensors: Sequence[TensorChange]) -> GroupChange:
    parameters = sum(math.prod(tensor.shape) for tensor in tensors)
    base = math.hypot(*(tensor.base_norm for tensor in tensors))
    return GroupChange(
        group=group,
        tensors=len(tensors),
        parameters=parameters,
        changed=sum(tensor.changed for tensor in tensors) / parameters,
        norm=math.hypot(*(tensor.norm for tensor in tensors)) / base if base else math.inf,
        rank_90=_median(tensor.rank_90 for tensor in tensors if tensor.norm),
        effective_rank=_median(tensor.effective_rank for tensor in tensors if tensor.norm),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
