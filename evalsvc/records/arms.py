"""What is evaluated: checkpoints with their cost, how they are served, arms. Frozen, typed, without I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, Protocol, TypeVar

from evalsvc.records.digests import canonical, digest
from evalsvc.records.methods import PROMPTED
from evalsvc.records.vocabulary import Quantisation

# ------------------------------------------------------------------------------------------------ what is evaluated


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a checkpoint cost. None means not known, never zero.

    Attributes:
        gpu_hours: Hours of training times GPUs.
        cpu_hours: CPU time of training, where no GPU was used; never counted as GPU-hours.
        peak_memory_gb: Of one device while training, in 1e9 bytes; without a GPU of the process (resident set).
        train_samples: Samples seen, repetitions counted.
        annotation_cost: Of the training data, in the user's currency.
        trainable_share: Parameters that training could change, over those of the base.
        tokens_per_query: Prompt tokens per request, mean over the domain suites; of an arm, measured, never declared.
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
"""The fields of `Cost`, with what tables and figures call them."""

DECLARED = tuple(field.name for field in fields(Cost) if field.name != "tokens_per_query")
"""Fields of a cost card; tokens per query are measured for an arm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights and tokenizer at a fixed content.

    Attributes:
        digest: "sha256:..." of the content; for an adapter, of adapter and base together.
        name: For people; not an identity.
        path: Its folder.
        method: "base", "full", "lora", another PEFT type, "cpt", ...; the names are those of `methods`.
        tokenizer: Digest of tokenizer files and chat template.
        parent: Digest of the base that it was adapted from.
        base_path: Folder of the weights that an adapter is attached to; None unless it is an adapter.
        step: Training step within its trajectory.
        trajectory: Name shared by all checkpoints of one training run.
    """

    digest: str
    name: str
    path: str
    method: str
    tokenizer: str
    parent: str | None = None
    base_path: str | None = None
    step: int | None = None
    trajectory: str | None = None
    cost: Cost = Cost()

    @property
    def label(self) -> str:
        """The name, and the step within its trajectory: "lora@400"."""
        return self.name if self.step is None else f"{self.name}@{self.step}"

    @property
    def is_prompted(self) -> bool:
        """Whether it is its base's own weights, asked with other prompts instead of being trained."""
        return self.method in PROMPTED

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds an adapter rather than whole weights."""
        return self.base_path is not None

    @property
    def resident(self) -> str:
        """Folder of the full weights that must be in memory to score this checkpoint."""
        return self.base_path or self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """How numbers are computed: part of a response's key, and equal within every comparison.

    Attributes:
        rerun: 0; 1 for a base that is scored a second time, in other batches, the opposite order and with other seeds,
            to measure run-to-run noise (A/A).
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
        merged: Whether an adapter's change is added to the base's weights instead of computed beside them.
        quantisation: Format of the quantised full weights, and the library that quantises; None: not quantised.
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
        words = self.serving.words
        return digest(self.checkpoint.digest, self.numerics.key(), *([words] if words else []))

    @property
    def weights(self) -> str:
        """What must be in memory to score it: the folder of the full weights, and their quantisation."""
        quantisation = self.serving.quantisation
        return f"{self.checkpoint.resident} ({quantisation})" if quantisation else self.checkpoint.resident

    @property
    def label(self) -> str:
        """The checkpoint's label, and how it is served unless that is as usual."""
        return served_label(self.checkpoint, self.serving)


class ServedCheckpoint(Protocol):
    """An arm, in memory or in the store."""

    @property
    def checkpoint(self) -> Checkpoint:
        """Return the weights."""
        ...

    @property
    def serving(self) -> Serving:
        """Return how they are served."""
        ...

    @property
    def numerics(self) -> object:
        """Return how numbers are computed; arms are compared where this is equal."""
        ...


AnyArm = TypeVar("AnyArm", bound=ServedCheckpoint)


def identify_reference(arm: ServedCheckpoint) -> tuple[str, Serving] | None:
    """Return checkpoint digest and serving of the arm that an arm is compared with; None for a base served as usual.

    An adapted checkpoint is compared with its base under the same quantisation, so that the effect of quantising is
    not taken for forgetting; a quantised base with the base as usual, which shows that effect.
    """
    if arm.checkpoint.parent is not None:
        return arm.checkpoint.parent, replace(arm.serving, merged=False)
    return (arm.checkpoint.digest, Serving()) if arm.serving.quantisation is not None else None


def find_reference(arm: ServedCheckpoint, arms: Iterable[AnyArm]) -> AnyArm | None:
    """Return the arm that an arm is compared with (see `identify_reference`), None if it is not among the arms."""
    reference = identify_reference(arm)
    for other in arms:
        if (other.checkpoint.digest, other.serving) == reference and other.numerics == arm.numerics:
            return other
    return None


def served_label(checkpoint: Checkpoint, serving: Serving) -> str:
    """Return a checkpoint's label with how it is served: "lora@400", "lora@400 (nf4, merged)"."""
    return f"{checkpoint.label} ({serving.words})" if serving.words else checkpoint.label


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about a checkpoint before trusting its scores.

    Attributes:
        severity: "error": scores would be wrong, submit refuses; "warning": they may mislead; "note": nothing to do.
        check: Name of the check, the same in every version.
        checkpoint: Label of the checkpoint.
    """

    severity: Literal["error", "warning", "note"]
    check: str
    checkpoint: str
    text: str


def why_no_drift(adapted: Checkpoint, base: Checkpoint) -> str:
    """Return why the drift of a checkpoint from its base is not known although a suite measures drift."""
    if adapted.tokenizer == base.tokenizer:
        return (
            "its divergences could not be computed: it was scored on the plain path, or its vocabulary has "
            "another size than its base's; use bits per byte (evalsvc compare)"
        )
    return (
        f"its tokenizer ({adapted.tokenizer[:12]}) is not that of its base {base.label} ({base.tokenizer[:12]}), and "
        "drift per token is only defined over the same tokens; save the base's tokenizer beside the checkpoint and "
        "submit it again, or use bits per byte (evalsvc compare)"
    )
