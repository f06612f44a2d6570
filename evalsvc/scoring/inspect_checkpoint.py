"""Compute what is to be known of a checkpoint: what changed, what was found, without a submission."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalsvc.checkpoints.costs import TrainingMemory, training_memory
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
from evalsvc.store.arms import find_arm
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.store import Store

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Dossier:
    """All that is known of a checkpoint.

    Attributes:
        change: Against its base; None for a base.
        memory: What training takes; None for a base.
    """

    checkpoint: Checkpoint
    change: WeightChange | None
    memory: TrainingMemory | None
    findings: tuple[Finding, ...]


def compile_dossier(
    store: Store, source: str, base: str | None, progress: Progress, note: Callable[[str], None]
) -> Dossier:
    """Return what is known of a checkpoint; what the store does not know yet is computed, and kept there.

    Args:
        source: Folder, hub id, or the label, name or digest of a stored checkpoint.
        base: What it was adapted from, unless the checkpoint or the store says so.

    Raises:
        UsageError: It is neither, or several are meant.
    """
    checkpoint, parent = _find(store, source, base, progress)
    dossiers = CheckpointFacts(store.path) if store.path.is_file() else None
    findings = tuple(dossiers.findings(checkpoint)) if dossiers else ()
    if parent is None or checkpoint.is_prompted:
        return Dossier(checkpoint, None, None, findings)
    change = dossiers.change(checkpoint) if dossiers else None
    if change is None:
        note("comparing weights")
        change = compute_change(checkpoint, parent, progress)
        if dossiers:
            dossiers.keep_change(checkpoint, change)
    return Dossier(checkpoint, change, training_memory(change.parameters, change.trainable), findings)


def compute_change(checkpoint: Checkpoint, base: str, progress: Progress) -> WeightChange:
    """Compare a checkpoint's weights with those in its base's folder."""
    from evalsvc.engine.weights import adapter_change, full_change  # torch takes seconds to import

    folder = Path(checkpoint.path)
    mine, theirs = read_headers(list_weights(folder)), read_headers(list_weights(Path(base)))
    if checkpoint.is_adapter:
        return adapter_change(folder, mine, theirs, progress)
    return full_change(mine, theirs, progress)


def _find(store: Store, source: str, base: str | None, progress: Progress) -> tuple[Checkpoint, str | None]:
    """Return a checkpoint and the folder of its base: as stored, else as its folder says.

    Raises:
        UsageError: There is no such checkpoint, or a folder holds several.
    """
    if store.path.is_file() and not Path(source).is_dir():
        arms = store.arms()
        checkpoint = find_arm(arms, source).checkpoint
        folders = [arm.checkpoint.path for arm in arms if arm.checkpoint.digest == checkpoint.parent]
        return checkpoint, open_base(base).path if base else checkpoint.base_path or next(iter(folders), None)
    root, found = open_checkpoints(source, base, Description(), progress=progress)
    if len(found) > 1:
        raise UsageError(f"{source}: holds {len(found)} checkpoints; show one of its folders, or a label of the store")
    return (found[0], root.path) if found else (root, None)


def check_checkpoints(
    source: str,
    base: str | None,
    suites: Sequence[str],
    numerics: Numerics,
    progress: Progress,
    note: Callable[[str], None],
) -> tuple[list[Checkpoint], list[Finding]]:
    """Return the checkpoints at a path, their base first, and everything that is to be said against them.

    Args:
        suites: Names or files of suites whose prompts have to fit.

    Raises:
        UsageError: They cannot be read at all.
    """
    note("reading checkpoints")
    root, adapted = open_checkpoints(source, base, Description(), progress=progress, note=note)
    looked_at = [root, *adapted]
    note("checking checkpoints")
    findings = examine_checkpoints(root, adapted)
    broken = {finding.checkpoint for finding in findings if finding.severity == "error"}
    sound = [checkpoint for checkpoint in looked_at if checkpoint.label not in broken]
    if sound:
        plans = [
            planning.plan(loading.load(suite), Rendering(None, suite.system_prompt)).plan
            for suite in map(find_suite, suites)
        ]
        cutter = Cutter(cache_dir() / "tokens")
        findings += examine_windows(sound, plans, cutter)
        with InProcessExecutor(lambda: make_scorer(1)) as executor:
            findings += run_probe(executor, [Arm(checkpoint, numerics) for checkpoint in sound], cutter)
    return looked_at, findings
