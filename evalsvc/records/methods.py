"""Methods of adapting a checkpoint, and the groups that they belong to: the one taxonomy."""

from __future__ import annotations

from evalsvc.records.arms import Checkpoint

FULL_METHODS = frozenset({"base", "full", "cpt", "cpt-replay", "sft", "rl", "icl", "rag", "pretraining", "unknown"})


def list_kinds(method: str, name: str) -> frozenset[str]:
    """Return what a run counts as; a continued pre-training says "replay" in its method or name if it has any."""
    found = {method.lower()}
    if method.lower() not in FULL_METHODS:
        found.add("peft")
    if method.lower().startswith("cpt"):
        found.add("replay" if "replay" in f"{method} {name}".lower() else "no replay")
    return frozenset(found)


RUNGS = ("base", "icl", "rag", "peft", "full", "cpt")
"""Kinds of adapting in order of what they cost as a rule."""


def find_rung(checkpoint: Checkpoint) -> str:
    """Return the kind of adapting that a checkpoint's method belongs to."""
    method = checkpoint.method.lower()
    if method in {"base", "icl", "rag"}:
        return method
    if method.startswith("cpt") or method == "pretraining":
        return "cpt"
    return "peft" if "peft" in list_kinds(method, checkpoint.name) else "full"
