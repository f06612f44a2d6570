"""A base with other prompts instead of training: worked examples (ICL), retrieved passages (RAG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from evalsvc.checkpoints.costs import merge_costs
from evalsvc.errors import SuiteError, UsageError
from evalsvc.harness import other_prompts
from evalsvc.harness.plan import Planned
from evalsvc.harness.suites import Suite, find_suite
from evalsvc.records.arms import Checkpoint, Cost
from evalsvc.records.digests import join_digests
from evalsvc.records.methods import PROMPTED
from evalsvc.scoring.rendering import plan_suite
from evalsvc.scoring.submission import Submission

# ------------------------------------------------------------------------------------------------------------ prompts


def plan_prompted(
    submission: Submission,
    suites: Sequence[Suite],
    planned: Sequence[Planned],
    base: Checkpoint,
    adapted: Sequence[Checkpoint],
    speaker: Checkpoint | None,
) -> tuple[Checkpoint, dict[str, Planned]]:
    """Return the base with other prompts as a checkpoint of its own, and what it is asked by the plan it stands for.

    Raises:
        UsageError: It is not the base that is submitted, or there is no domain suite to ask otherwise.
    """
    flag = "--prompts" if submission.prompts else f"--shots {submission.shots}"
    if submission.prompts and submission.shots is not None:
        raise UsageError(f"--shots {submission.shots}: cannot go with --prompts; give one of the two")
    if adapted:
        raise UsageError(f"{flag}: {adapted[0].label} is adapted; what is prompted instead of trained is its base")
    said = submission.sources[0].said
    method = said.method or ("rag" if submission.prompts else "icl")
    if method not in PROMPTED:
        raise UsageError(f"{flag}: --method {method} must be {' or '.join(PROMPTED)}, or left out")
    domain = {suite.name: (suite, plan) for suite, plan in zip(suites, planned, strict=True) if suite.role == "domain"}
    if submission.prompts:
        others = [find_suite(name) for name in submission.prompts]
    else:
        others = [other_prompts.with_shots(suite, cast(int, submission.shots)) for suite, _ in domain.values()]
    if not domain:
        raise UsageError(f"{flag}: none of the suites has role domain, and only these are asked otherwise; add --suite")
    asked, content = {}, []
    for other in others:
        if other.name not in domain:
            raise SuiteError(
                f"{flag}: {other.path}: its name {other.name!r} must be that of the domain suite whose documents it "
                f"asks: {', '.join(domain)}"
            )
        suite, plan = domain[other.name]
        whole = other.model_copy(update={"role": suite.role, "chat_template": suite.chat_template})
        found = plan_suite(whole, speaker, submission.allow_task_code)
        asked[plan.plan.digest] = other_prompts.select_documents(plan, found)
        content.append(found.loaded.digest)
    identity = [base.digest, method, *(sorted(content) if submission.prompts else [str(submission.shots)])]
    name = said.name or f"{base.name}-{method if submission.prompts else f'{submission.shots}shot'}"
    nothing = Cost(gpu_hours=0.0, cpu_hours=0.0, train_tokens=0, train_samples=0, trainable_share=0.0)
    made = replace(
        base,
        digest=join_digests(["prompted", *identity], identity),
        name=name,
        method=method,
        parent=base.digest,
        cost=merge_costs(said.cost, nothing),
    )
    return made, asked
