"""Full weights, quantised: the base that an adapter trained on a quantised base (QLoRA) is compared with.

`int8` and `nf4` work on every device, and need no package: each weight is replaced by the nearest value of the format,
and is stored as an ordinary tensor of the compute dtype. A matrix product then equals dequantise-and-multiply (nf4:
exactly the values to which bitsandbytes 0.50 dequantises); no memory is saved. Embeddings and the output head are not
quantised, as in bitsandbytes.

* int8: symmetric, one scale per output, largest magnitude is 127 (LLM.int8's weight format, Dettmers et al. 2022a).
* nf4: 4-bit NormalFloat, one scale per block of 64 (Dettmers et al. 2023, appendix E), without double quantisation.

`bnb-int8` and `bnb-nf4` are bitsandbytes' own kernels on a CUDA device, which save the memory; bnb-int8 quantises
activations as well.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, cast

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from evalsvc.errors import UsageError
from evalsvc.records.vocabulary import Quantisation

BLOCK = 64
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_CHUNK = 1 << 22


def bitsandbytes(kind: Quantisation, device: torch.device, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the configuration with which transformers quantises while loading.

    Raises:
        UsageError: The package or a CUDA device is missing.
    """
    if device.type != "cuda" or find_spec("bitsandbytes") is None:
        requirement = (
            "a CUDA device" if device.type != "cuda" else "the package bitsandbytes (pip install bitsandbytes)"
        )
        raise UsageError(f"quantisation {kind}: needs {requirement}; {kind.removeprefix('bnb-')} works without it")
    if kind == "bnb-int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


@torch.no_grad()
def quantise(model: PreTrainedModel, kind: Quantisation) -> None:
    """Round the weights of all linear layers except the output head to a format, in place."""
    head = cast(Any, model).get_output_embeddings()
    for module in model.modules():
        if module is head or not isinstance(module, torch.nn.Linear | Conv1D):
            continue
        weight = module.weight
        by_output = weight.T if isinstance(module, Conv1D) else weight
        by_output.copy_(rounded_int8(by_output) if kind == "int8" else rounded_nf4(by_output))


def rounded_int8(weight: torch.Tensor) -> torch.Tensor:
    """Return [outputs, inputs] rounded to 8 bits with one scale per output."""
    exact = weight.float()
    scale = exact.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (exact / scale).round().clamp(-127, 127).mul(scale).to(weight.dtype)


def rounded_nf4(weight: torch.Tensor) -> torch.Tensor:
    """Return a tensor rounded to NF4 in blocks of 64, row by row; the last block may be shorter."""
    flat = weight.contiguous().view(-1)
    code = torch.tensor(_NF4, device=weight.device)
    middles = (code[1:] + code[:-1]) / 2
    rounded = torch.empty_like(flat)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK].float()
        blocks = torch.nn.functional.pad(part, (0, -len(part) % BLOCK)).view(-1, BLOCK)
        scale = blocks.abs().amax(dim=1, keepdim=True)
        levels = code[torch.bucketize(blocks / scale.clamp(min=1e-38), middles)]
        rounded[start : start + _CHUNK] = (levels * scale).view(-1)[: len(part)].to(weight.dtype)
    return rounded.view(weight.shape)
