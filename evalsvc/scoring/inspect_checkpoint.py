"""Facts about a checkpoint, the comparison of its weights with its base's, and its checks, without a submission."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalsvc.checkpoints.costs import TrainingMemory, estimate_training_memory
from evalsvc.checkpoints.discover import Description, open_base, open_checkpoints
from evalsvc.checkpoints.safetensors import read_headers
from evalsvc.checkpoints.weight_files import list_weights
from evalsvc.engine.sharding import Cutter
from evalsvc.errors import UsageError
from evalsvc.harness import plan as planning
from evalsvc.harness import tasks as loading
from evalsvc.harness.suites import find_suite
from evalsvc.records.arms import Arm, Checkpoint, Finding, Numerics
from evalsvc.records.plans import Rendering
from evalsvc.records.weight_changes import WeightChange
from evalsvc.scoring.executors import InProcessExecutor, make_scorer
from evalsvc.scoring.preflight import examine_checkpoints, examine_windows
from evalsvc.scoring.probe import run_probe
from evalsvc.settings import cache_dir
from evalsvc.store.arms import find_arm, find_base_folder
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.store import Store

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """A checkpoint with its weight change, training memory and findings.

    Attributes:
        change: Difference from the base's weights; None for a base, or if not computed yet.
        memory: Memory that training takes; None for a base, or if neither change nor trainable share is known.
    """

    checkpoint: Checkpoint
    change: WeightChange | None
    memory: TrainingMemory | None
    findings: tuple[Finding, ...]


def read_checkpoint(store: Store, source: str, base: str | None, progress: Progress) -> CheckpointReport:
    """Return the known facts about a checkpoint; compares no weights and stores nothing.

    Args:
        source: Folder, Hub id, or the label, name or digest of a stored checkpoint.
        base: The base, if neither the checkpoint nor the store names it.

    Raises:
        UsageError: There is no such checkpoint, or several match.
    """
    return _report(store, *_find(store, source, base, progress))


def compare_weights(
    store: Store, source: str, base: str | None, progress: Progress, note: Callable[[str], None]
) -> CheckpointReport:
    """Compare a checkpoint's weights with its base's, keep the result if the store has it, and return the report.

    A comparison that is already stored is not repeated.

    Raises:
        UsageError: There is no such checkpoint, or it has no weights to compare.
    """
    checkpoint, parent = _find(store, source, base, progress)
    if parent is None or checkpoint.is_prompted:
        reason = "is the base with other prompts" if checkpoint.is_prompted else "has no base; name it with --base"
        raise UsageError(f"checkpoint {checkpoint.label}: {reason}: there are no weights to compare")
    report = _report(store, checkpoint, parent)
    if report.change is not None:
        return report
    note("comparing weights")
    change = compute_change(checkpoint, parent, progress)
    if stored := _find_stored(store, checkpoint):
        CheckpointFacts(store.path).keep_change(checkpoint, change)
        if stored == checkpoint:  # the store's record, which has the share that was just compared
            checkpoint = _find_stored(store, checkpoint) or checkpoint
        return _report(store, checkpoint, parent)
    note("not kept: the store has no arm of this checkpoint; submit it first")
    return replace(report, change=change, memory=_estimate_memory(checkpoint, change, parent))


def _report(store: Store, checkpoint: Checkpoint, base: str | None) -> CheckpointReport:
    """Return the report from the store and from the files' headers.

    Args:
        base: Folder of the base.
    """
    facts = CheckpointFacts(store.path) if store.path.is_file() else None
    change = facts.change(checkpoint) if facts and checkpoint.parent else None
    return CheckpointReport(
        checkpoint=checkpoint,
        change=change,
        memory=_estimate_memory(checkpoint, change, base),
        findings=tuple(facts.findings(checkpoint)) if facts else (),
    )


def _estimate_memory(checkpoint: Checkpoint, change: WeightChange | None, base: str | None) -> TrainingMemory | None:
    """Return the memory that training takes, by the compared weights, else by trainable share and base's headers."""
    if change is not None:
        return estimate_training_memory(change.parameters, change.trainable if checkpoint.is_adapter else None)
    share = checkpoint.cost.trainable_share
    if base is None or share is None or checkpoint.is_prompted or not Path(base).is_dir():
        return None
    parameters = sum(tensor.count for tensor in read_headers(list_weights(Path(base))).values())
    return estimate_training_memory(parameters, round(share * parameters) if checkpoint.is_adapter else None)


def compute_change(checkpoint: Checkpoint, base: str, progress: Progress) -> WeightChange:
    """Compare a checkpoint's weights with those in its base's folder."""
    from evalsvc.engine.weights import adapter_change, full_change  # torch takes seconds to import

    folder = Path(checkpoint.path)
    adapted, original = read_headers(list_weights(folder)), read_headers(list_weights(Path(base)))
    if checkpoint.is_adapter:
        return adapter_change(folder, adapted, original, progress)
    return full_change(adapted, original, progress)


def _find(store: Store, source: str, base: str | None, progress: Progress) -> tuple[Checkpoint, str | None]:
    """Return a checkpoint and the folder of its base: from the store, else from its folder.

    Raises:
        UsageError: There is no such checkpoint, or a folder contains several.
    """
    if store.path.is_file() and not Path(source).is_dir():
        arms = store.arms()
        checkpoint = find_arm(arms, source).checkpoint
        return checkpoint, open_base(base).path if base else find_base_folder(arms, checkpoint)
    root, checkpoints = open_checkpoints(source, base, Description(), progress=progress)
    if len(checkpoints) > 1:
        raise UsageError(
            f"{source}: contains {len(checkpoints)} checkpoints; name one of its folders, or a label in the store"
        )
    if checkpoints:
        return checkpoints[0], root.path
    stored = _find_stored(store, root)  # a full fine-tune's folder does not name its base, the store may
    return (stored, find_base_folder(store.arms(), stored)) if stored and stored.parent else (root, None)


def _find_stored(store: Store, checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the store's record of a checkpoint with the same content, read anew; None if it has none."""
    arms = store.arms() if store.path.is_file() else []
    same = (arm.checkpoint for arm in arms if arm.checkpoint.digest == checkpoint.digest)
    return next(same, None)


def check_checkpoints(
    source: str,
    base: str | None,
    suites: Sequence[str],
    numerics: Numerics,
    progress: Progress,
    note: Callable[[str], None],
    *,
    base_anyway: bool = False,
) -> tuple[list[Checkpoint], list[Finding]]:
    """Return the checkpoints at a path, their base first, and the findings about them.

    Args:
        suites: Names or files of suites whose prompts have to fit into the context window.
        base_anyway: Attach adapters to the base even if they name another one.

    Raises:
        UsageError: They cannot be read at all.
    """
    note("reading checkpoints")
    root, adapted = open_checkpoints(source, base, Description(), progress=progress, note=note)
    checkpoints = [root, *adapted]
    note("checking checkpoints")
    findings = examine_checkpoints(root, adapted, {checkpoint.digest for checkpoint in adapted if base_anyway})
    broken = {finding.checkpoint for finding in findings if finding.severity == "error"}
    sound = [checkpoint for checkpoint in checkpoints if checkpoint.label not in broken]
    if sound:
        plans = [
            planning.plan(loading.load(suite), Rendering(None, suite.system_prompt)).plan
            for suite in map(find_suite, suites)
        ]
        cutter = Cutter(cache_dir() / "tokens")
        findings += examine_windows(sound, plans, cutter)
        with InProcessExecutor(lambda: make_scorer(1)) as executor:
            findings += run_probe(executor, [Arm(checkpoint, numerics) for checkpoint in sound], cutter)
    return checkpoints, findings
