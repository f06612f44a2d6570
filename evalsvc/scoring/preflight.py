"""Checks of checkpoints before scoring: files, compatibility with the base, context windows.

Checks that need scoring are in `probe`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalsvc.checkpoints.costs import read_json
from evalsvc.checkpoints.file_checks import UNLOADABLE, examine_files
from evalsvc.checkpoints.safetensors import read_headers
from evalsvc.checkpoints.weight_files import list_weights
from evalsvc.engine.sharding import Cut, Cutter, Slice
from evalsvc.errors import CheckpointError
from evalsvc.records.arms import Checkpoint, Finding
from evalsvc.records.generation import find_own_problem, list_own_settings, read_decoding
from evalsvc.records.plans import Plan
from evalsvc.records.shards import Likelihoods


def examine_checkpoints(
    base: Checkpoint, adapted: Sequence[Checkpoint], accepted: Collection[str] = ()
) -> list[Finding]:
    """Return the findings about a base and the checkpoints that were adapted from it.

    Args:
        accepted: Digests of adapters that may be attached to another base than the one that they name.
    """
    from evalsvc.engine.compatibility import examine_fit  # torch takes seconds to import

    findings: list[Finding] = []
    for checkpoint in (base, *adapted):
        parent = None if checkpoint is base else base
        try:
            by_files = examine_files(checkpoint, parent, base_anyway=checkpoint.digest in accepted)
            findings += by_files
            if UNLOADABLE & {finding.check for finding in by_files}:
                continue
            tensors = read_headers(list_weights(Path(checkpoint.path)))
            findings += examine_fit(checkpoint, parent, {name: tensor.shape for name, tensor in tensors.items()})
        except CheckpointError as error:
            findings.append(Finding("error", "files", checkpoint.label, str(error)))
    return findings


def examine_generation(checkpoints: Sequence[Checkpoint], plans: Sequence[Plan]) -> list[Finding]:
    """Return what the checkpoints' own generation configurations change, if a suite has answers to generate.

    Args:
        checkpoints: The base first. An adapter has its base's configuration.
    """
    requests = [request for plan in plans for request in plan.requests if request.kind == "generate_until"]
    if not requests:
        return []
    settings = {request.arguments[1] for request in requests}
    sampled = any(read_decoding(json.loads(text)).strategy["do_sample"] for text in settings)
    findings: list[Finding] = []
    of_base: dict[str, Any] = {}
    for checkpoint in checkpoints:
        if checkpoint.is_adapter:
            continue
        file = Path(checkpoint.path) / "generation_config.json"  # transformers takes old settings from config.json
        configuration = read_json(file if file.is_file() else file.with_name("config.json"))
        if problem := find_own_problem(configuration):
            findings.append(Finding("error", "generation", checkpoint.label, problem))
            continue
        own = list_own_settings(configuration, sampled=sampled)
        if checkpoint is checkpoints[0]:
            of_base = own
            text = f"its generation configuration sets {_list_settings(own)}; answers obey it, as in lm-eval"
            differs = bool(own)
        else:
            text = (
                f"its generation configuration sets {_list_settings(own)}, its base's {_list_settings(of_base)}: each "
                "answers by its own, as in lm-eval"
            )
            differs = own != of_base
        if "max_new_tokens" in own:
            text += "; max_new_tokens replaces the limits of all tasks"
        if differs:
            findings.append(Finding("warning", "generation", checkpoint.label, text))
    return findings


def _list_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {str(value)[:40]}" for name, value in sorted(settings.items())) or "nothing"


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Raise if a finding is an error.

    Raises:
        CheckpointError: One line, with the first of them.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first = errors[0]
        more = f" (and {len(errors) - 1} more: `evalsvc checkpoints check` lists them)" if len(errors) > 1 else ""
        raise CheckpointError(f"checkpoint {first.checkpoint}: {first.text}{more}")


def examine_windows(checkpoints: Sequence[Checkpoint], plans: Sequence[Plan], cutter: Cutter) -> list[Finding]:
    """Return the suites with prompts longer than a checkpoint's context window, and the number of affected samples.

    Checkpoints with the same tokenizer and window have the same result, which is reported for the first of them.
    """
    findings: list[Finding] = []
    seen: set[int] = set()
    for checkpoint in checkpoints:
        for plan in plans:
            cut = cutter.cut_plan(plan, checkpoint)
            if id(cut) not in seen:
                seen.add(id(cut))
                findings += _cut_samples(checkpoint, plan, cut)
    return findings


def _cut_samples(checkpoint: Checkpoint, plan: Plan, cut: Cut) -> list[Finding]:
    truncated = {
        digest
        for part in cut.slices
        for digest, tokens, text in zip(cut.digests(part), part.work.truncated, _rolling(part), strict=True)
        if tokens and not text
    }
    affected: Counter[str] = Counter()
    unanswerable = 0
    for task in plan.tasks:
        for sample in task.samples:
            refused = not cut.refused.keys().isdisjoint(sample.requests)
            unanswerable += refused
            affected[task.name] += not refused and not truncated.isdisjoint(sample.requests)
    total = sum(len(task.samples) for task in plan.tasks)
    findings = []
    if count := affected.total():
        tasks = ", ".join(f"{task} {number}" for task, number in affected.most_common(3) if number)
        text = (
            f"its context window is shorter than prompts of suite {plan.suite}: {count} of {total} samples are "
            f"truncated from the left ({tasks})"
        )
        findings.append(Finding("warning", "window", checkpoint.label, text, suite=plan.suite))
    if unanswerable:
        reason = next(iter(cut.refused.values()))
        text = f"{unanswerable} of {total} samples of suite {plan.suite} cannot be scored: {reason}"
        findings.append(Finding("warning", "window", checkpoint.label, text, suite=plan.suite))
    return findings


def _rolling(part: Slice) -> Sequence[bool]:
    """Return which requests of a slice are texts, which are scored window by window and never truncated."""
    return part.work.rolling.tolist() if isinstance(part.work, Likelihoods) else [False] * len(part.members)
