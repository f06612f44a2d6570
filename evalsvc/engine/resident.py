"""Full weights in memory, and adapters attached to them, merged, and detached again.

One set of full weights stays in memory. Another of the same architecture is loaded into the same modules, without
building them again. An adapter is attached unmerged, as lm-eval serves it, or merged into copies of the weights that it
changes; the base's own tensors are never written. Embeddings are never resized: lm-eval does so for adapters whose base
has a padded vocabulary, which changes the base's own scores.
"""

from __future__ import annotations

import logging
import threading
import warnings
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from evalsvc.checkpoints.weight_files import list_weights
from evalsvc.engine.adapters import (
    adapter_kind,
    adds_tokens,
    describe_unmatched,
    match_tensors,
    mixes_rows,
    waits_for_tokens,
)
from evalsvc.engine.encoding import first_line, load_tokenizer
from evalsvc.engine.parity import Parity, examine
from evalsvc.engine.quantised import bitsandbytes, quantise
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Checkpoint, Serving
from evalsvc.records.vocabulary import Quantisation

if TYPE_CHECKING:
    from peft import PeftModel


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Size of an element in bytes -> an integer type of that size."""

_NOT_ARCHITECTURE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}


class Resident:
    """The model in a worker's memory, for one checkpoint at a time."""

    def __init__(self, device: str, dtype: str) -> None:
        self.device = torch.device(device)
        self.dtype = DTYPES[dtype]
        self._base: PreTrainedModel | None = None
        self._base_path: tuple[str, Quantisation | None] | None = None
        self._attention = ""
        self._adapted: PeftModel | None = None
        self._originals: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self._held: tuple[Checkpoint, Serving] | None = None
        self._content: dict[str, bytes] = {}
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._parities: dict[str, Parity] = {}

    def hold(self, checkpoint: Checkpoint, serving: Serving = Serving()) -> Any:  # noqa: B008 (frozen)
        """Return the model of a checkpoint as it is served, loading what is not in memory yet.

        Raises:
            CheckpointError: Its files cannot be loaded, or the adapter does not fit its base or cannot be merged.
            UsageError: The quantisation needs a package or device that is missing.
        """
        if self._held is None or (checkpoint.digest, serving) != (self._held[0].digest, self._held[1]):
            self._held = self._tokenizer = None  # if anything below fails, nothing counts as loaded
            self._detach()
            self._hold_base(checkpoint.resident, serving.quantisation)
            if checkpoint.is_adapter:
                self._attach(checkpoint)
                if serving.merged:
                    self._merge(checkpoint)
            self._held = checkpoint, serving
        # Adapter layers inside the base are called through the base, except where PEFT's own wrapper sees the tokens.
        return self._adapted if adds_tokens(self._adapted) or waits_for_tokens(self._adapted) else self._base

    @property
    def parity(self) -> Parity:
        """The path that the held model takes; checked once per architecture and kind of adapter."""
        assert self._held is not None
        kind = adapter_kind(self._adapted, self._held[0].digest)
        if kind not in self._parities:
            parity = examine(self._base, self._attention)
            if reason := self._why_plain():
                alone = parity.alone or mixes_rows(self._adapted)
                parity = Parity(False, reason, None, self._attention, alone)
            self._parities[kind] = parity
        return self._parities[kind]

    def _why_plain(self) -> str | None:
        """Return why the adapter takes the plain path, whatever the model; None if it may take the trie."""
        if adds_tokens(self._adapted):
            return "its adapter adds tokens to the prompt"
        if waits_for_tokens(self._adapted):
            return "its adapter begins at its invocation tokens"
        if mixes_rows(self._adapted):
            return "its adapter routes all tokens of a batch alike"
        return None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The held checkpoint's tokenizer."""
        assert self._held is not None
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._held[0])
        return self._tokenizer

    # ----------------------------------------------------------------------------------------------------- full weights

    def _hold_base(self, path: str, quantisation: Quantisation | None) -> None:
        if (path, quantisation) == self._base_path or (quantisation is None and self._exchange(path)):
            return
        self._base, self._base_path, self._content = None, None, {}  # free the old weights before the new ones are read
        self._parities = {}
        self._base = load_full(path, self.device, self.dtype, quantisation)
        self._attention = str(self._base.config._attn_implementation)
        self._base_path = path, quantisation

    def _exchange(self, path: str) -> bool:
        """Load other weights into the existing modules; return False if names or shapes of tensors differ."""
        if self._base is None or self._base_path is None or self._base_path[1] is not None:
            return False
        if _architecture(path) != _comparable(self._base.config):
            return False
        try:
            weights = _tensors(Path(path))
        except (OSError, CheckpointError, SafetensorError):
            return False  # ordinary loading reports the problem
        expected = self._base.state_dict()
        tied = set(getattr(self._base, "all_tied_weights_keys", {}))
        if set(weights) != set(expected) - tied or any(weights[k].shape != expected[k].shape for k in weights):
            return False
        self._base_path, self._content = None, {}
        with torch.no_grad():
            placed = {key: tensor.to(self.device, self.dtype) for key, tensor in weights.items()}
            self._base.load_state_dict(placed, strict=False, assign=True)
        self._base.tie_weights()
        self._base.requires_grad_(False)
        self._base.generation_config = _generation(path, self._base)
        self._base_path = path, None
        return True

    # --------------------------------------------------------------------------------------------------------- adapters

    def _attach(self, checkpoint: Checkpoint) -> None:
        from peft import PeftModel  # takes seconds, and most workers never need it
        from peft.utils import load_peft_weights

        self._content = self._content or compute_content(cast(PreTrainedModel, self._base))
        configs = _configs(cast(PreTrainedModel, self._base))
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")  # tensors that do not fit are reported below, as an error
                torch.manual_seed(0)  # an initialisation that draws numbers draws the same at every load
                adapted = PeftModel.from_pretrained(cast(PreTrainedModel, self._base), checkpoint.path)
            weights = load_peft_weights(checkpoint.path, device="cpu")
            unexpected, missing = match_tensors(adapted, weights)
        except Exception as error:
            self._base_path = None  # a failed injection may have left adapter layers in the base
            self._base = None
            raise CheckpointError(f"adapter {checkpoint.path}: cannot be attached: {first_line(error)}") from error
        self._adapted = adapted.to(self.device).eval().requires_grad_(False)
        for module in adapted.modules():  # repeated layers have copies of the configuration, which chooses attention
            if type(getattr(module, "config", None)) in configs:
                module.config = configs[type(module.config)]
        for problem in describe_unmatched(unexpected, missing, len(weights), adapted.config):
            self._detach()
            raise CheckpointError(f"adapter {checkpoint.path}: {problem}")

    def _merge(self, checkpoint: Checkpoint) -> None:
        """Merge the attached adapter into copies of the weights that it changes."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        assert self._adapted is not None
        if getattr(self._adapted.peft_config["default"], "layer_replication", None):
            self._detach()
            raise CheckpointError(
                f"adapter {checkpoint.path}: cannot be merged: the layers that it repeats share weights, and merging "
                "would add the changes of all copies to each of them"
            )
        layers = [module for module in self._adapted.modules() if isinstance(module, BaseTunerLayer)]
        try:
            for layer in layers:
                for weight in layer.get_base_layer().parameters():
                    self._originals.append((weight, weight.data))
                    weight.data = weight.data.clone()
            cast(Any, self._adapted).merge_adapter()
        except Exception as error:
            self._detach()
            raise CheckpointError(f"adapter {checkpoint.path}: cannot be merged: {first_line(error)}") from error

    def _detach(self) -> None:
        for weight, original in reversed(self._originals):
            weight.data = original
        self._originals = []
        if self._adapted is None:
            return
        if hasattr(self._adapted.base_model, "unload"):
            self._base = self._adapted.base_model.unload()
        else:  # prompt learning does not change the base's modules
            self._base = self._adapted.get_base_model()
        self._adapted = None
        # For some types PEFT does not remove trained copies, and some initialisations (OLoRA) write to the base's own
        # weights: such a base is loaded again before anything else is scored.
        if compute_content(cast(PreTrainedModel, self._base)) != self._content:
            self._base, self._base_path = None, None


def load_full(
    path: str, device: torch.device, dtype: torch.dtype, quantisation: Quantisation | None = None
) -> PreTrainedModel:
    """Return the model of a folder of full weights, ready to score.

    Args:
        dtype: Number format of weights that are not quantised, and of computation.

    Raises:
        CheckpointError: Its files cannot be loaded.
        UsageError: The quantisation needs bitsandbytes or a CUDA device, which is missing.
    """
    by_bitsandbytes = quantisation is not None and quantisation.startswith("bnb")
    options: dict[str, Any] = {}
    if quantisation is not None and by_bitsandbytes:
        options = {"quantization_config": bitsandbytes(quantisation, device, dtype), "device_map": {"": device}}
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        loader: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = loader.from_pretrained(
            path, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True, **options
        )
    except Exception as error:  # transformers raises anything from OSError to KeyError on a damaged folder
        how = f" as {quantisation}" if quantisation else ""
        raise CheckpointError(f"checkpoint {path}: cannot be loaded{how}: {first_line(error)}") from error
    if not by_bitsandbytes:
        if quantisation:
            quantise(model, quantisation)
        model = model.to(device)
    return cast(PreTrainedModel, model.eval().requires_grad_(False))


def read_ahead(folder: str) -> None:
    """Read a checkpoint's weights in the background, so that they are in the page cache when they are needed."""
    try:
        files = list_weights(Path(folder))
        size = sum(file.stat().st_size for file in files)
    except (OSError, CheckpointError):  # reported when the files are loaded
        return
    if size > psutil.virtual_memory().available // 2:
        return

    def read_files() -> None:
        buffer = bytearray(1 << 20)
        for file in files:
            try:
                with file.open("rb", buffering=0) as stream:
                    while stream.readinto(buffer):
                        pass
            except OSError:  # reported when the file is loaded
                return

    threading.Thread(target=read_files, name="read-ahead", daemon=True).start()


@torch.inference_mode()
def compute_content(model: PreTrainedModel) -> dict[str, bytes]:
    """Return, by name, a checksum of each parameter and buffer: the sum of every row's bit patterns.

    Tensors with several names are listed under each of them: layers may be repeated, heads tied.
    """
    checksums: dict[int, bytes] = {}
    content = {}
    for name, tensor in chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    ):
        if id(tensor) not in checksums:
            checksums[id(tensor)] = _checksum(tensor.detach())
        content[name] = checksums[id(tensor)]
    return content


def _checksum(tensor: torch.Tensor) -> bytes:
    """Return the sums of bit patterns of the rows of the last dimension; reads a tensor once, at memory's speed."""
    if tensor.dtype == torch.bool or not tensor.numel():
        return tensor.cpu().numpy().tobytes()
    bits = tensor.reshape(-1, tensor.shape[-1] if tensor.dim() else 1).contiguous()
    sums = bits.view(_BITS[tensor.element_size()]).sum(1, dtype=torch.int64)
    return sha256(sums.cpu().numpy().tobytes()).digest()


def _configs(model: PreTrainedModel) -> dict[type, PretrainedConfig]:
    configs = (getattr(module, "config", None) for module in model.modules())
    return {type(config): config for config in configs if isinstance(config, PretrainedConfig)}


def _comparable(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in _NOT_ARCHITECTURE}


def _architecture(path: str) -> dict[str, Any] | None:
    try:
        return _comparable(AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False))
    except Exception:  # ordinary loading reports the problem
        return None


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint's weight files, mapped into memory."""
    tensors: dict[str, torch.Tensor] = {}
    for path in list_weights(folder):
        with safe_open(path, framework="pt") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    return tensors


def _generation(path: str, model: PreTrainedModel) -> GenerationConfig:
    if (Path(path) / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(path, local_files_only=True)
    return GenerationConfig.from_model_config(model.config)


def silence() -> None:
    """Hide the progress bars and warnings of transformers and peft."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("peft").setLevel(logging.ERROR)
