"""Sanity probe: every new arm scores a few sentences, on the same path as its requests, before any request is sent.

It finds what only logits show: an adapter without effect, a collapsed or wrongly converted model, a model that cannot
be loaded on the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from evalsvc.checkpoints.base_checks import read_invocation
from evalsvc.engine.sharding import Cutter
from evalsvc.records.arms import Arm, Finding, find_reference
from evalsvc.records.digests import digest
from evalsvc.records.plans import Plan, Rendering, Request
from evalsvc.records.shards import Shard, ShardResult
from evalsvc.scoring.executors import Executor

TEXTS = (
    "The old woman opened the door and looked at the rain. Her dog did not want to go out, so they stayed in the "
    "kitchen and she told him a story about the sea.",
    "Water boils at one hundred degrees Celsius at sea level. Higher up, where the air is thinner, it boils at a lower "
    "temperature, and food takes longer to cook.",
    "Patients who received the treatment were followed for twelve months. No difference between the two groups was "
    "found in the primary outcome, and side effects were mild.",
    "In 1969 two people walked on the surface of the Moon for the first time, while a third stayed in orbit. They "
    "brought stones home with them.",
    "Question: Tom has three apples and buys two more. How many apples does he have now? Answer: He has five apples.",
    "def add(a, b):\n    return a + b\n\nfor number in range(10):\n    print(add(number, 1))\n",
    "Dear all, the meeting on Monday has been moved to Tuesday at ten. Please bring the numbers of the last quarter, "
    "and tell me if you cannot come. Best wishes, Anna",
    "To make bread, mix flour, water, salt and yeast. Let the dough rest until it is twice as large, and bake it for "
    "forty minutes in a hot oven.",
)
REQUESTS = tuple(Request.of("loglikelihood_rolling", (text,)) for text in TEXTS)
_BYTES = sum(len(text.encode()) for text in TEXTS)
MAX_INCREASE = 1.0
"""Increase in bits per byte over the base above which a model is reported as broken.

Measured: full fine-tunes and LoRAs of a small story model on medical abstracts stayed below their base; permuting one
layer's rows added 1.1, transposed projections 1.4 to 3.0, a permuted vocabulary 12.
"""
MAX_BASE = 4.0
"""Bits per byte of a base above which the comparison is skipped: it predicts such sentences too badly."""


PLAN = Plan(
    digest=digest("probe", *TEXTS),
    suite="probe",
    role="drift",
    description="",
    suite_digest="",
    suite_path="",
    rendering=Rendering(),
    tasks=(),
    requests=REQUESTS,
)


def run_probe(executor: Executor, arms: Sequence[Arm], cutter: Cutter) -> list[Finding]:
    """Score the sentences with every arm, and return the findings.

    Args:
        arms: Bases first.
    """
    findings: list[Finding] = []
    levels: dict[str, dict[str, float]] = {arm.key: {} for arm in arms}
    for result in executor.run([shard for arm in arms for shard in _shards(arm, cutter)]):
        arm = result.shard.arm
        if problem := _problem(arm, result):
            findings.append(problem)
            levels.pop(arm.key, None)
        elif arm.key in levels:
            levels[arm.key] |= {answer.request: answer.loglikelihood or 0.0 for answer in result.responses}
    for arm in arms:
        base = find_reference(arm, arms) if arm.checkpoint.parent else None
        if arm.key in levels and base is not None and base.key in levels:
            findings += _compare_with_base(arm, levels[arm.key], levels[base.key])
        findings += _compare_with_unmodified(arm, arms, levels)
    return findings


def _shards(arm: Arm, cutter: Cutter) -> Iterator[Shard]:
    cut = cutter.cut_plan(PLAN, arm.checkpoint)
    for part in cut.slices:
        requests = cut.digests(part)
        yield Shard(key=digest("probe", *requests), arm=arm, requests=requests, work=part.work)


def _problem(arm: Arm, result: ShardResult) -> Finding | None:
    if result.failures:
        return Finding("error", "scoring", arm.label, f"cannot be scored: {result.failures[0].error}")
    if any(not math.isfinite(answer.loglikelihood or 0.0) for answer in result.responses):
        return Finding("error", "finite", arm.label, "its log-likelihoods are NaN or infinite on ordinary sentences")
    return None


def _compare_with_unmodified(arm: Arm, arms: Sequence[Arm], levels: dict[str, dict[str, float]]) -> Iterator[Finding]:
    """Compare an arm with the same checkpoint, not merged and not quantised: at least the last bits must differ."""
    for plain in arms:
        is_same = plain.checkpoint == arm.checkpoint and plain.numerics == arm.numerics and not plain.serving.words
        if is_same and plain != arm and arm.key in levels and levels[arm.key] == levels.get(plain.key):
            text = (
                f"its log-likelihoods equal those of {plain.label} to the last bit: merging or quantising had no effect"
            )
            yield Finding("error", "serving", arm.label, text)


def _compare_with_base(arm: Arm, levels: dict[str, float], of_base: dict[str, float]) -> Iterator[Finding]:
    if levels == of_base and (tokens := read_invocation(arm.checkpoint)):
        text = f"is an activated LoRA: prompts without its invocation tokens {tokens} get the base's answers"
        yield Finding("warning", "invocation", arm.label, text)
        return
    if levels == of_base:
        effect = "the adapter has no effect" if arm.checkpoint.is_adapter else "only its files differ"
        text = f"its log-likelihoods equal its base's to the last bit: {effect}"
        yield Finding("error" if arm.checkpoint.is_adapter else "warning", "no-effect", arm.label, text)
        return
    base, adapted = (-sum(nats.values()) / math.log(2) / _BYTES for nats in (of_base, levels))
    if base < MAX_BASE and adapted > base + MAX_INCREASE:
        text = (
            f"has {adapted:.1f} bits per byte on ordinary sentences, its base {base:.1f}: collapsed or converted "
            "wrongly (transposed or permuted weights, wrong tokenizer or base)?"
        )
        yield Finding("warning", "collapsed", arm.label, text)
