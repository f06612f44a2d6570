"""The difference of a checkpoint's weights from its base's: tensor by tensor, and within a tensor block by block.

No tensor is in memory as a whole: a block of both tensors is read, converted to float32 and compared. Norms and counts
need one pass. Singular values of a difference come from its Gram matrix if the smaller side has at most 1024 rows, else
from a randomised SVD (Halko, Martinsson and Tropp 2011, algorithm 4.4, one power iteration) with 256 columns: four
passes. An adapter's difference is computed from its own factors; LoRA's singular values from a matrix of its rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from evalsvc.checkpoints.costs import read_json
from evalsvc.checkpoints.safetensors import Tensor
from evalsvc.records.vocabulary import Floats
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.stats.spectrum import complete_spectrum, effective_rank, rank_90

TOLERANCE = 1e-5
"""Absolute difference above which a weight counts as changed (Mukherjee et al. 2025, for bfloat16)."""
EXACT = 1024
COLUMNS = 256
_BLOCK = 1 << 18
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_PAIR = re.compile(r"\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$")

Progress = Callable[[int, int], None]
"""Called with millions of weights compared and millions in total."""


class WeightMatrix(Protocol):
    """A matrix that can be read in pieces; a vector has one row."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def read_piece(self, rows: slice, columns: slice) -> torch.Tensor:
        """Return a piece as float32 [rows, columns]."""
        ...


class Stored:
    """A tensor in a safetensors file."""

    def __init__(self, tensor: Tensor) -> None:
        first = tensor.shape[0] if len(tensor.shape) > 1 else 1
        self.shape = (first, tensor.count // max(1, first))
        self.tensor, self.dtype = tensor, _DTYPES[tensor.dtype]

    def read_piece(self, rows: slice, columns: slice) -> torch.Tensor:
        """Return a piece as float32 [rows, columns]; whole rows in one read, parts of rows one by one."""
        width, size = columns.stop - columns.start, self.dtype.itemsize
        count = rows.stop - rows.start
        raw = bytearray(count * width * size)
        view = memoryview(raw)
        whole = width == self.shape[1]
        with self.tensor.file.open("rb", buffering=0) as file:
            for row in range(1 if whole else count):
                file.seek(self.tensor.start + ((rows.start + row) * self.shape[1] + columns.start) * size)
                _fill(file, view if whole else view[row * width * size : (row + 1) * width * size])
        return torch.frombuffer(raw, dtype=self.dtype).view(count, width).to(torch.float32)


def _fill(file: Any, view: memoryview) -> None:
    while len(view):
        count = file.readinto(view)
        if not count:
            raise OSError("the file was truncated while it was read")
        view = view[count:]


@dataclass(slots=True)
class Between:
    """Adapted minus base."""

    adapted: WeightMatrix
    base: WeightMatrix
    shape: tuple[int, int]

    def read_piece(self, rows: slice, columns: slice) -> torch.Tensor:
        """Return a piece of the difference."""
        return self.adapted.read_piece(rows, columns).sub_(self.base.read_piece(rows, columns))


@dataclass(slots=True)
class LowRank:
    """scale * b @ a."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product."""
        return self.b.shape[0], self.a.shape[1]

    def read_piece(self, rows: slice, columns: slice) -> torch.Tensor:
        """Return a piece of the product."""
        product: torch.Tensor = self.b[rows] @ self.a[:, columns]
        return product.mul_(self.scale)

    def singular_values(self) -> torch.Tensor:
        """Return the singular values that are not zero by construction, from the factors' QR decompositions."""
        _, right = torch.linalg.qr(self.a.double().T)
        _, left = torch.linalg.qr(self.b.double())
        values: torch.Tensor = torch.linalg.svdvals(left @ right.T)
        return values * abs(self.scale)


class Dora:
    """DoRA's change: rows of base + low-rank, each rescaled to a trained length, minus the base (Liu et al. 2024)."""

    def __init__(self, base: WeightMatrix, low: LowRank, magnitude: torch.Tensor) -> None:
        self.base, self.low, self.shape = base, low, base.shape
        norms = [self._sum(rows, slice(0, self.shape[1])).norm(dim=1) for rows in _slices(*self.shape)]
        self.factor = (magnitude.flatten() / torch.cat(norms))[:, None]

    def _sum(self, rows: slice, columns: slice) -> torch.Tensor:
        return self.base.read_piece(rows, columns).add_(self.low.read_piece(rows, columns))

    def read_piece(self, rows: slice, columns: slice) -> torch.Tensor:
        """Return a piece of the change."""
        return self._sum(rows, columns).mul_(self.factor[rows]).sub_(self.base.read_piece(rows, columns))


@dataclass(slots=True)
class Scaled:
    """IA3's change: base * (factor - 1), with one factor per row or per column."""

    base: WeightMatrix
    factor: torch.Tensor
    shape: tuple[int, int]

    def read_piece(self, rows: slice, columns: slice) -> torch.Tensor:
        """Return a piece of the change."""
        factor = self.factor[rows] if self.factor.shape[0] > 1 else self.factor[:, columns]
        return self.base.read_piece(rows, columns).mul_(factor - 1)


class Rows:
    """The change of trainable tokens: some rows of the base are replaced.

    Args:
        new: float32 [rows, columns].
        indices: The row of the base that each row of `new` replaces.
    """

    def __init__(self, base: WeightMatrix, new: torch.Tensor, indices: Sequence[int]) -> None:
        self.base, self.new, self.indices, self.shape = base, new, indices, base.shape

    def read_piece(self, rows: slice, columns: slice) -> torch.Tensor:
        """Return a piece of the change: zero except for the replaced rows."""
        before = self.base.read_piece(rows, columns)
        change = torch.zeros_like(before)
        for place, index in enumerate(self.indices):
            if rows.start <= index < rows.stop:
                change[index - rows.start] = self.new[place, columns] - before[index - rows.start]
        return change


# ------------------------------------------------------------------------------------------------------- measurements


def _slices(rows: int, columns: int) -> Iterator[slice]:
    """Cut rows into slices of about `_BLOCK` elements."""
    step = max(1, _BLOCK // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _pieces(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Cut a matrix into pieces of at most `_BLOCK` elements; long rows are cut as well."""
    width = min(columns, _BLOCK)
    for part in _slices(rows, width):
        for start in range(0, columns, width):
            yield part, slice(start, min(columns, start + width))


@torch.inference_mode()
def measure(
    name: str, shape: tuple[int, ...], base: WeightMatrix, difference: WeightMatrix, rounding: float = 0.0
) -> TensorChange:
    """Return size and rank of a difference.

    Args:
        rounding: Relative error of the coarser of two number formats; smaller differences do not count as changes.
    """
    changed, base_squares, squares = 0, 0.0, 0.0
    for rows, columns in _pieces(*difference.shape):
        before, delta = base.read_piece(rows, columns), difference.read_piece(rows, columns)
        base_squares += float(torch.linalg.vector_norm(before)) ** 2
        squares += float(torch.linalg.vector_norm(delta)) ** 2
        bound = before.abs_().mul_(rounding).clamp_(min=TOLERANCE) if rounding else TOLERANCE
        changed += int((delta.abs_() > bound).sum())
    change = TensorChange(
        name=name, shape=shape, changed=changed, base_norm=math.sqrt(base_squares), norm=math.sqrt(squares)
    )
    if len(shape) != 2 or min(difference.shape) < 2 or not math.isfinite(squares):
        return change
    if squares == 0:
        return TensorChange(
            name=name, shape=shape, changed=changed, base_norm=change.base_norm, norm=0.0, rank_90=0, effective_rank=0.0
        )
    values = spectrum(difference, squares)
    return TensorChange(
        name=name,
        shape=shape,
        changed=changed,
        base_norm=change.base_norm,
        norm=change.norm,
        rank_90=rank_90(values),
        effective_rank=effective_rank(values),
    )


def spectrum(matrix: WeightMatrix, squares: float) -> Floats:
    """Return a matrix's singular values: exact up to `EXACT`, else the largest ones and a model of the others.

    Args:
        squares: The matrix's squared Frobenius norm.
    """
    smaller = min(matrix.shape)
    if isinstance(matrix, LowRank):
        return _numpy(matrix.singular_values())
    if smaller <= EXACT:
        return _numpy(torch.linalg.eigvalsh(_gram(matrix)).flip(0).clamp(min=0).sqrt())
    # The last columns of a sketch underestimate by far: they only improve the others.
    return complete_spectrum(_largest(matrix)[: COLUMNS * 3 // 4], squares, smaller)


def _gram(matrix: WeightMatrix) -> torch.Tensor:
    rows, columns = matrix.shape
    total = torch.zeros(min(rows, columns), min(rows, columns), dtype=torch.float64)
    if rows > columns:
        for part in _slices(rows, columns):
            piece = matrix.read_piece(part, slice(0, columns)).double()
            total.addmm_(piece.T, piece)
    else:
        for part in _slices(columns, rows):
            piece = matrix.read_piece(slice(0, rows), part).double()
            total.addmm_(piece, piece.T)
    return total


def _largest(matrix: WeightMatrix) -> Floats:
    """Return the largest singular values by a randomised SVD."""
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(matrix.shape[1], COLUMNS, generator=generator)
    for _ in range(2):
        left = _orthonormal(_times(matrix, right))
        right = _times_transposed(matrix, left)
        del left
        core = _gram_of(right)
        right = _orthonormal(right)
    return _numpy(torch.linalg.eigvalsh(core).flip(0).clamp(min=0).sqrt())


def _numpy(values: torch.Tensor) -> Floats:
    array: Floats = values.numpy()
    return array


def _gram_of(tall: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64)
    for part in _slices(*tall.shape):
        piece = tall[part].double()
        total.addmm_(piece.T, piece)
    return total


def _orthonormal(tall: torch.Tensor) -> torch.Tensor:
    """Orthonormalise columns in place, by their Gram matrix in float64: a QR would need three copies."""
    values, vectors = torch.linalg.eigh(_gram_of(tall))
    kept = values > values[-1] * 1e-12
    change = (vectors * torch.where(kept, values.clamp(min=1e-300).rsqrt(), 0.0)).float()
    for part in _slices(*tall.shape):
        tall[part] = tall[part] @ change
    return tall


def _times(matrix: WeightMatrix, right: torch.Tensor) -> torch.Tensor:
    rows, columns = matrix.shape
    product = torch.empty(rows, right.shape[1])
    for part in _slices(rows, columns):
        torch.mm(matrix.read_piece(part, slice(0, columns)), right, out=product[part])
    return product


def _times_transposed(matrix: WeightMatrix, left: torch.Tensor) -> torch.Tensor:
    rows, columns = matrix.shape
    product = torch.zeros(columns, left.shape[1])
    for part in _slices(rows, columns):
        product.addmm_(matrix.read_piece(part, slice(0, columns)).T, left[part])
    return product


# ------------------------------------------------------------------------------------------------------- checkpoints


def full_change(adapted: Mapping[str, Tensor], base: Mapping[str, Tensor], progress: Progress) -> WeightChange:
    """Compare full weights with their base's; for an extended vocabulary, the rows that both have.

    Args:
        adapted, base: Tensors by name.
    """
    common = [name for name in adapted if name in base and _comparable(adapted[name], base[name])]
    total, done, mixed = sum(adapted[name].count for name in common), 0, False
    changes = []
    for name in common:
        new, old = Stored(adapted[name]), Stored(base[name])
        rounding = max(torch.finfo(t.dtype).eps for t in (new, old)) / 2 if new.dtype != old.dtype else 0.0
        mixed = mixed or rounding > 0
        shape = (min(new.shape[0], old.shape[0]), new.shape[1])
        change = measure(name, adapted[name].shape, old, Between(new, old, shape), rounding)
        changes.append(change)
        done += adapted[name].count
        progress(done // 1_000_000, total // 1_000_000)
    return WeightChange(
        parameters=sum(tensor.count for tensor in base.values()),
        trainable=sum(math.prod(tensor.shape) for tensor in changes if tensor.norm),
        tolerance=f"|difference| > {TOLERANCE:g}" + (" and half a step of the coarser number format" if mixed else ""),
        tensors=tuple(changes),
    )


def _comparable(new: Tensor, old: Tensor) -> bool:
    return new.dtype in _DTYPES and old.dtype in _DTYPES and new.shape[1:] == old.shape[1:]


def adapter_change(
    folder: Path, adapter: Mapping[str, Tensor], base: Mapping[str, Tensor], progress: Progress
) -> WeightChange:
    """Return an adapter's changes of its base, computed from the adapter's own tensors.

    For LoRA, DoRA, IA3, trainable tokens and whole modules in an adapter; for other types, and where layers are
    repeated, only the number of trainable parameters is known. Prompt-tuning types change no weight.
    """
    config = read_json(folder / "adapter_config.json")
    differences = dict(_differences(config, adapter, base))
    total, done, changes = sum(base[name].count for name in differences), 0, []
    for name, difference in differences.items():
        changes.append(measure(name, base[name].shape, Stored(base[name]), difference()))
        done += base[name].count
        progress(done // 1_000_000, total // 1_000_000)
    return WeightChange(
        parameters=sum(tensor.count for tensor in base.values()),
        trainable=sum(tensor.count for tensor in adapter.values()),
        tolerance=f"|difference| > {TOLERANCE:g}",
        tensors=tuple(changes),
    )


def _differences(
    config: Mapping[str, Any], adapter: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> Iterator[tuple[str, Callable[[], WeightMatrix]]]:
    """Yield the name of each changed tensor of the base, and a function that returns the change."""
    if config.get("layer_replication"):
        return  # the adapter's layers are not the base's: several may repeat one
    for name, tensor in adapter.items():
        short = name.removeprefix("base_model.model.")
        match = _PAIR.search(short)
        if match is not None:
            target = f"{short[: match.start()]}.weight"
            if match[2] == "B" and target in base:
                yield target, _low_rank_maker(config, adapter, name, base[target])
        elif (factor := re.search(r"\.ia3_l$", short)) is not None:
            target = f"{short[: factor.start()]}.weight"
            if target in base:
                yield target, _scaled_maker(tensor, base[target])
        elif (rows := re.search(r"\.token_adapter\.trainable_tokens_delta$", short)) is not None:
            target = f"{short[: rows.start()]}.weight"
            if target in base:
                yield target, _token_rows_maker(config, target, tensor, base[target])
        elif short in base and _comparable(tensor, base[short]) and tensor.shape == base[short].shape:
            yield short, _between_maker(tensor, base[short])


def _between_maker(new: Tensor, old: Tensor) -> Callable[[], WeightMatrix]:
    return lambda: Between(Stored(new), Stored(old), Stored(old).shape)


def _token_rows_maker(config: Mapping[str, Any], target: str, rows: Tensor, old: Tensor) -> Callable[[], WeightMatrix]:
    indices = config.get("trainable_token_indices") or config.get("token_indices") or ()
    if isinstance(indices, Mapping):  # module's name -> indices
        module = target.removesuffix(".weight")
        indices = next((own for name, own in indices.items() if module.endswith(name)), ())
    return lambda: Rows(Stored(old), _whole(rows), [int(index) for index in indices])


def _scaled_maker(factor: Tensor, old: Tensor) -> Callable[[], WeightMatrix]:
    return lambda: Scaled(Stored(old), _whole(factor).view(factor.shape), Stored(old).shape)


def _whole(tensor: Tensor) -> torch.Tensor:
    stored = Stored(tensor)
    return stored.read_piece(slice(0, stored.shape[0]), slice(0, stored.shape[1]))


def _low_rank_maker(
    config: Mapping[str, Any], adapter: Mapping[str, Tensor], name_b: str, target: Tensor
) -> Callable[[], WeightMatrix]:
    """Return a function that returns scale * B A, in the orientation of the base's tensor, or DoRA's change."""

    def make() -> WeightMatrix:
        name_a = name_b.replace("lora_B", "lora_A").replace("lora_embedding_B", "lora_embedding_A")
        a, b = _whole(adapter[name_a]), _whole(adapter[name_b])
        module = name_b[: name_b.index(".lora_")]
        low = LowRank(a, b, _scale(config, module, a.shape[0]))
        if isinstance(config.get("init_lora_weights"), str):
            low = _subtract_start(low, config, _whole(target))
        if low.shape != Stored(target).shape:  # embeddings, and layers that are stored transposed
            low = LowRank(b.T.contiguous(), a.T.contiguous(), low.scale)
        magnitude = next((t for n, t in adapter.items() if n.startswith(f"{module}.lora_magnitude_vector")), None)
        return Dora(Stored(target), low, _whole(magnitude)) if magnitude is not None else low

    return make


def _subtract_start(low: LowRank, config: Mapping[str, Any], weight: torch.Tensor) -> LowRank:
    """Return scale * (B A - B0 A0): PiSSA and OLoRA subtract the product of their initial factors from the base.

    The initial factors B0 and A0 are those that PEFT computes from the base's weight.
    """
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds

    rows, columns = weight.shape
    holder = torch.nn.ModuleDict({"layer": torch.nn.Linear(columns, rows, bias=False)})
    holder["layer"].weight.data = weight.clone()
    settings = LoraConfig(
        r=low.a.shape[0],
        lora_alpha=low.scale * low.a.shape[0],
        init_lora_weights=config["init_lora_weights"],
        target_modules=["layer"],
    )
    layer: Any = inject_adapter_in_model(settings, holder)["layer"]
    if torch.equal(layer.base_layer.weight.data, weight):
        return low
    a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
    return LowRank(torch.cat([low.a, a]), torch.cat([low.b, -b], dim=1), low.scale)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return LoRA's factor of B A: alpha / r, or alpha / sqrt(r) with rsLoRA."""
    alpha = float(config.get("lora_alpha") or rank)
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = float(own)
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
