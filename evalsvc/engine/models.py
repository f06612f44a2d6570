"""Full weights in memory, and adapters attached to them and taken off again.

One set of full weights stays resident. An adapter is attached to it, unmerged as lm-eval serves it, and unloaded when
the next arm does not need it; the base's tensors are never written. Embeddings are never resized: lm-eval does so for
adapters whose base has a padded vocabulary, which changes the base's own scores.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from evalsvc.engine.encoding import Encoder
from evalsvc.errors import CheckpointError
from evalsvc.records import Checkpoint

if TYPE_CHECKING:
    from peft import PeftModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Resident:
    """The model that a worker holds, ready for one checkpoint at a time."""

    def __init__(self, device: str, dtype: str) -> None:
        self.device = torch.device(device)
        self.dtype = DTYPES[dtype]
        self.encoder: Encoder | None = None
        self._base: PreTrainedModel | None = None
        self._base_path: str | None = None
        self._adapted: PeftModel | None = None
        self._digest: str | None = None

    def hold(self, checkpoint: Checkpoint) -> tuple[torch.nn.Module, Encoder]:
        """Return the model and encoder of a checkpoint, loading what is not there yet.

        Raises:
            CheckpointError: Its files cannot be loaded, or the adapter does not fit its base.
        """
        if checkpoint.digest != self._digest:
            self._digest = None  # whatever fails below leaves nothing half-loaded behind
            self._detach()
            self._hold_base(checkpoint.resident)
            if checkpoint.is_adapter:
                self._attach(checkpoint)
            self.encoder = self._encoder(checkpoint)
            self._digest = checkpoint.digest
        return cast(torch.nn.Module, self._adapted or self._base), cast(Encoder, self.encoder)

    def _hold_base(self, path: str) -> None:
        if path == self._base_path:
            return
        self._base, self._base_path = None, None  # free the old weights before the new ones are read
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=self.dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # transformers raises anything from OSError to KeyError on a damaged folder
            raise CheckpointError(f"checkpoint {path}: cannot be loaded: {first_line(error)}") from error
        self._base = model.to(cast(Any, self.device)).eval().requires_grad_(False)
        self._base_path = path

    def _attach(self, checkpoint: Checkpoint) -> None:
        from peft import PeftModel, get_peft_model_state_dict  # takes seconds, and most workers never need it
        from peft.utils import load_peft_weights

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a misfit is reported below, as an error
                adapted = PeftModel.from_pretrained(cast(PreTrainedModel, self._base), checkpoint.path)
        except Exception as error:
            self._base_path = None  # a failed injection may have left adapter layers in the base
            raise CheckpointError(f"adapter {checkpoint.path}: cannot be attached: {first_line(error)}") from error
        self._adapted = adapted.to(self.device).eval().requires_grad_(False)
        saved = set(load_peft_weights(checkpoint.path, device="cpu"))
        expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        if unused := saved - expected - {key for key in saved if "embed" in key or "lm_head" in key}:
            self._detach()
            raise CheckpointError(
                f"adapter {checkpoint.path}: {len(unused)} of its {len(saved)} tensors match no module of the base "
                f"{checkpoint.base_path} (first: {min(unused)}); it was trained on another base"
            )

    def _detach(self) -> None:
        if self._adapted is None:
            return
        if hasattr(self._adapted.base_model, "unload"):
            self._base = self._adapted.base_model.unload()
        else:  # prompt learning leaves the base's modules alone
            self._base = self._adapted.get_base_model()
        self._adapted = None

    def _encoder(self, checkpoint: Checkpoint) -> Encoder:
        tokenizer = load_tokenizer(checkpoint)
        return Encoder(tokenizer, cast(PreTrainedModel, self._base).config)


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Return a checkpoint's tokenizer; an adapter without one of its own has its base's.

    Raises:
        CheckpointError: Neither folder holds one that loads.
    """
    problem: Exception | None = None
    for path in dict.fromkeys((checkpoint.path, checkpoint.resident)):
        try:
            config = AutoConfig.from_pretrained(checkpoint.resident, local_files_only=True, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(
                path, config=config, local_files_only=True, trust_remote_code=False
            )
            return cast(PreTrainedTokenizerBase, tokenizer)
        except Exception as error:  # see _hold_base
            problem = error
    raise CheckpointError(f"checkpoint {checkpoint.path}: its tokenizer cannot be loaded: {first_line(problem)}")


def first_line(error: Any) -> str:
    """Return an exception's first line, with its type where the text says nothing."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def silence() -> None:
    """Keep transformers' bars and advice off the terminal of the driver."""
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("peft").setLevel(logging.ERROR)
