"""A sanity probe: every arm scores a few sentences, on the same path as its requests, before any request is sent.

It shows what only logits can show: an adapter without effect, a model that collapsed or was converted wrongly, a model
that cannot be loaded on the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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
FAR = 1.0
"""Bits per byte above its base's from which a model counts as broken rather than adapted.

Full fine-tunes and LoRAs of a small story model on medical abstracts stayed below their base; one layer's rows in
another order cost 1.1, transposed projections 1.4 to 3.0, a permuted vocabulary 12.
"""
POOR = 4.0
"""Bits per byte from which a base predicts such sentences too badly for a comparison."""


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
            findings += _against_base(arm, levels[arm.key], levels[base.key])
        findings += _against_usual(arm, arms, levels)
    return findings


def _shards(arm: Arm, cutter: Cutter) -> Iterator[Shard]:
    cut = cutter.cut(PLAN, arm.checkpoint)
    for part in cut.slices:
        requests = cut.digests(part)
        yield Shard(key=digest("probe", *requests), arm=arm, requests=requests, work=part.work)


def _problem(arm: Arm, result: ShardResult) -> Finding | None:
    if result.failures:
        return Finding("error", "scoring", arm.label, f"cannot be scored: {result.failures[0].error}")
    if any(not math.isfinite(answer.loglikelihood or 0.0) for answer in result.responses):
        return Finding("error", "finite", arm.label, "its log-likelihoods are NaN or infinite on ordinary sentences")
    return None


def _against_usual(arm: Arm, arms: Sequence[Arm], levels: dict[str, dict[str, float]]) -> Iterator[Finding]:
    """Compare an arm with the same checkpoint served as usual: merging and quantising change at least the last bits."""
    for other in arms:
        usual = other.checkpoint == arm.checkpoint and other.numerics == arm.numerics and not other.serving.words
        if usual and other != arm and arm.key in levels and levels[arm.key] == levels.get(other.key):
            text = f"answers exactly as {other.label} does, to the last bit: it was not served as asked"
            yield Finding("error", "serving", arm.label, text)


def _against_base(arm: Arm, levels: dict[str, float], of_base: dict[str, float]) -> Iterator[Finding]:
    if levels == of_base:
        effect = "the adapter has no effect" if arm.checkpoint.is_adapter else "only its files differ"
        text = f"answers exactly as its base does, to the last bit: {effect}"
        yield Finding("error" if arm.checkpoint.is_adapter else "warning", "no-effect", arm.label, text)
        return
    base, adapted = (-sum(nats.values()) / math.log(2) / _BYTES for nats in (of_base, levels))
    if base < POOR and adapted > base + FAR:
        text = (
            f"needs {adapted:.1f} bits per byte for ordinary sentences and its base {base:.1f}: collapsed or "
            "mis-converted (transposed or scrambled weights, a wrong tokenizer or base)?"
        )
        yield Finding("warning", "collapsed", arm.label, text)
