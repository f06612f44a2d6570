"""What is known of a checkpoint is kept beside it."""

from __future__ import annotations

from pathlib import Path

from evalsvc.records.arms import Finding
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.store.checkpoint_facts import CheckpointFacts
from tests.support.fakes import make_checkpoint

BASE = make_checkpoint(1)
CHILD = make_checkpoint(2, parent=BASE)


def test_what_is_known_of_a_checkpoint_is_kept(db: Path) -> None:
    dossiers = CheckpointFacts(db)
    tensors = (
        TensorChange(name="a", shape=(2, 3), changed=1, base_norm=1.5, norm=2.5, rank_90=2, effective_rank=1.25),
        TensorChange(name="b", shape=(4,), changed=0, base_norm=1.0, norm=0.0),
    )
    for change in (
        WeightChange(10, 4, "|x| > 1", tensors),
        WeightChange(11, 4, "|x| > 1", tensors[:1]),
        WeightChange(11, 4, "-", ()),
    ):
        dossiers.keep_change(CHILD, change)
        assert dossiers.change(CHILD) == change
    assert dossiers.change(BASE) is None
    findings = [Finding("warning", "window", CHILD.label, "short"), Finding("note", "base-name", CHILD.label, "other")]
    dossiers.keep_findings(CHILD, findings)
    assert dossiers.findings(CHILD) == findings
    dossiers.keep_findings(CHILD, [])
    assert dossiers.findings(CHILD) == []
