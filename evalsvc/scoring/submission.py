"""Records of a submission: sources and settings, which `submit` reads and scores."""

from __future__ import annotations

from dataclasses import dataclass

from evalsvc.checkpoints.discover import Description
from evalsvc.records.choices import Quantisation, TemplateSource
from evalsvc.settings import Compute


@dataclass(frozen=True, slots=True)
class Source:
    """A folder or Hub id of a checkpoint or of a training run's output, and the user's description of it."""

    path: str
    description: Description = Description()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a user submits.

    Attributes:
        sources: Checkpoints with one base in common.
        base: Folder or Hub id of the base, if the checkpoints do not name it.
        base_anyway: Attach adapters to the base even if they name another one.
        suites: Names or files; if empty, the suites that the base was scored on before.
        rendering: Whose chat template renders the prompts of all arms, or none; required where the base and an adapted
            checkpoint have different templates.
        merged: Also score adapters merged into the base, as separate arms.
        quantisation: Quantise all weights, base included; the quantised base is then the reference.
        rerun: Score the base twice, in other batches and with other seeds, to measure run-to-run noise (A/A).
        shots: Number of few-shot examples in the prompts of domain suites, for the base as a separate arm (ICL).
        prompts: Files of suites with other prompts for the documents of the domain suites of the same names, for the
            base as a separate arm (RAG, or ICL with chosen examples).
    """

    sources: tuple[Source, ...]
    base: str | None = None
    base_anyway: bool = False
    suites: tuple[str, ...] = ()
    compute: Compute = Compute()
    allow_task_code: bool = False
    rendering: TemplateSource | None = None
    merged: bool = False
    quantisation: Quantisation | None = None
    rerun: bool = False
    shots: int | None = None
    prompts: tuple[str, ...] = ()

    @property
    def is_prompted(self) -> bool:
        """Whether the base is scored with other prompts instead of being trained."""
        return self.shots is not None or bool(self.prompts)
