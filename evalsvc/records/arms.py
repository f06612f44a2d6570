"""Checkpoints with their cost, how they are served, and arms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from evalsvc.records.digests import canonical, digest
from evalsvc.records.methods import PROMPTED
from evalsvc.records.vocabulary import Quantisation

# ------------------------------------------------------------------------------------------------ what is evaluated


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Costs of a checkpoint. None means not known, never zero.

    Attributes:
        gpu_hours: Hours of training times number of GPUs.
        cpu_hours: CPU time of training without a GPU, in hours; never counted as GPU-hours.
        peak_memory_gb: Peak memory of one GPU during training, in 1e9 bytes; without a GPU, of the process.
        train_samples: Samples seen in training, including repetitions.
        annotation_cost: Cost of annotating the training data, in the user's currency.
        trainable_share: Trainable parameters / parameters of the base.
        tokens_per_query: Prompt tokens per request, mean over the domain suites; measured for an arm, never declared.
    """

    gpu_hours: float | None = None
    cpu_hours: float | None = None
    train_tokens: int | None = None
    peak_memory_gb: float | None = None
    train_samples: int | None = None
    annotation_cost: float | None = None
    trainable_share: float | None = None
    tokens_per_query: float | None = None


COSTS = {
    "gpu_hours": "GPU-hours",
    "cpu_hours": "CPU-hours",
    "train_tokens": "training tokens",
    "peak_memory_gb": "peak memory, GB",
    "train_samples": "training samples",
    "annotation_cost": "annotation cost",
    "trainable_share": "trainable share of parameters",
    "tokens_per_query": "tokens per query",
}
"""The fields of `Cost`, with their names in tables and figures."""

DECLARED = tuple(field.name for field in fields(Cost) if field.name != "tokens_per_query")
"""Fields of a cost card: all that users declare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights and tokenizer at a fixed content.

    Attributes:
        digest: "sha256:..." of the content; for an adapter, of adapter and base together.
        name: Name for display; need not be unique.
        path: Its folder.
        method: "base", "full", "lora", another PEFT type, "cpt", ...; see `methods`.
        tokenizer: Digest of tokenizer files and chat template.
        parent: Digest of the base that it was adapted from.
        base_path: Folder of the weights that an adapter is attached to; None unless it is an adapter.
        tokenizer_path: Folder of its tokenizer; None if that is its own folder.
        step: Training step within its trajectory.
        trajectory: Name shared by all checkpoints of one training run.
        seed: Seed of the training run; None if it is not recorded.
    """

    digest: str
    name: str
    path: str
    method: str
    tokenizer: str
    parent: str | None = None
    base_path: str | None = None
    tokenizer_path: str | None = None
    step: int | None = None
    trajectory: str | None = None
    seed: int | None = None
    cost: Cost = Cost()

    @property
    def label(self) -> str:
        """The name, and the step within its trajectory: "lora@400"."""
        return self.name if self.step is None else f"{self.name}@{self.step}"

    @property
    def is_prompted(self) -> bool:
        """Whether it is the base with other prompts, instead of a trained checkpoint."""
        return self.method in PROMPTED

    @property
    def is_adapter(self) -> bool:
        """Whether the folder contains an adapter rather than full weights."""
        return self.base_path is not None

    @property
    def run_folder(self) -> str | None:
        """Folder of the training run of which it is a step; None for an imported or a single checkpoint."""
        is_step = bool(self.tokenizer) and self.trajectory is not None and self.step is not None
        return str(Path(self.path).parent) if is_step else None

    @property
    def resident(self) -> str:
        """Folder of the full weights that must be in memory to score this checkpoint."""
        return self.base_path or self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """Device, number format and library versions of scoring; equal for all arms of a comparison.

    Attributes:
        rerun: 1 for a base that is scored a second time, in other batches, in reverse order and with other seeds, to
            measure run-to-run noise (A/A); else 0.
    """

    device: str
    dtype: str
    torch: str
    transformers: str
    rerun: int = 0

    def key(self) -> str:
        """Return the text that is compared and stored."""
        return canonical({name: value for name, value in asdict(self).items() if name != "rerun" or value})


@dataclass(frozen=True, slots=True)
class Serving:
    """How a checkpoint is served: part of an arm's identity.

    Attributes:
        merged: Whether an adapter is merged into the base's weights before scoring.
        quantisation: Format of the quantised full weights, and the library; None if not quantised.
    """

    merged: bool = False
    quantisation: Quantisation | None = None

    @property
    def words(self) -> str:
        """The part of a label: empty for an unquantised, unmerged checkpoint."""
        return ", ".join(word for word in (self.quantisation, "merged" if self.merged else None) if word)


@dataclass(frozen=True, slots=True)
class Arm:
    """A checkpoint as it is served."""

    checkpoint: Checkpoint
    numerics: Numerics
    serving: Serving = Serving()

    @property
    def key(self) -> str:
        """The arm's identity: same content, same numerics, same serving."""
        return _compute_key(self.checkpoint.digest, self.numerics, self.serving.words)

    @property
    def weights(self) -> str:
        """Full weights that must be in memory to score the arm: their folder and quantisation."""
        quantisation = self.serving.quantisation
        return f"{self.checkpoint.resident} ({quantisation})" if quantisation else self.checkpoint.resident

    @property
    def label(self) -> str:
        """The checkpoint's label, with quantisation and merging if any."""
        return format_label(self.checkpoint, self.serving)


@lru_cache(4096)  # asked for at every shard of every run
def _compute_key(checkpoint: str, numerics: Numerics, words: str) -> str:
    return digest(checkpoint, numerics.key(), *([words] if words else []))


class ServedCheckpoint(Protocol):
    """An arm, in memory or in the store."""

    @property
    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint."""
        ...

    @property
    def serving(self) -> Serving:
        """Return how it is served."""
        ...

    @property
    def numerics(self) -> object:
        """Return the numerics; only arms with equal numerics are compared."""
        ...


AnyArm = TypeVar("AnyArm", bound=ServedCheckpoint)


def identify_reference(arm: ServedCheckpoint) -> tuple[str, Serving] | None:
    """Return checkpoint digest and serving of the arm that an arm is compared with; None for an unquantised base.

    An adapted checkpoint is compared with its base under the same quantisation, so that the effect of quantisation does
    not count as forgetting. A quantised base is compared with the unquantised base, which shows that effect.
    """
    if arm.checkpoint.parent is not None:
        return arm.checkpoint.parent, replace(arm.serving, merged=False)
    return (arm.checkpoint.digest, Serving()) if arm.serving.quantisation is not None else None


def find_reference(arm: ServedCheckpoint, arms: Iterable[AnyArm]) -> AnyArm | None:
    """Return the arm that an arm is compared with (see `identify_reference`), None if it is not among the arms."""
    reference = identify_reference(arm)
    for candidate in arms:
        if (candidate.checkpoint.digest, candidate.serving) == reference and candidate.numerics == arm.numerics:
            return candidate
    return None


def format_label(checkpoint: Checkpoint, serving: Serving) -> str:
    """Return a checkpoint's label with how it is served: "lora@400", "lora@400 (nf4, merged)"."""
    return f"{checkpoint.label} ({serving.words})" if serving.words else checkpoint.label


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of a check of a checkpoint.

    Attributes:
        severity: "error": scores would be wrong, submit refuses; "warning": scores may mislead; "note": no action.
        check: Name of the check, stable across versions.
        checkpoint: Label of the checkpoint.
        suite: The suite whose scores it is about; None for all.
    """

    severity: Literal["error", "warning", "note"]
    check: str
    checkpoint: str
    text: str
    suite: str | None = field(default=None, kw_only=True)


def why_no_drift(adapted: Checkpoint, base: Checkpoint) -> str:
    """Return why a checkpoint has no token drift although a suite measures it."""
    if adapted.tokenizer == base.tokenizer:
        return (
            "its KL divergence could not be computed: it was scored on the plain path, or its vocabulary size differs "
            "from its base's; use bits per byte (evalsvc compare)"
        )
    return (
        f"its tokenizer ({adapted.tokenizer[:12]}) differs from that of its base {base.label} "
        f"({base.tokenizer[:12]}), and KL per token needs the same tokens; save the base's tokenizer with the "
        "checkpoint and submit it again, or use bits per byte (evalsvc compare)"
    )
