"""Evaluates a base with other prompts instead of training: few-shot examples (ICL), retrieved passages (RAG)."""

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
    template_source: Checkpoint | None,
) -> tuple[Checkpoint, dict[str, Planned]]:
    """Return the base with other prompts as a separate checkpoint, and its plans by the digests of the plans replaced.

    Raises:
        UsageError: The submitted checkpoint is not the base, or no suite has role domain.
    """
    flag = "--prompts" if submission.prompts else f"--shots {submission.shots}"
    if submission.prompts and submission.shots is not None:
        raise UsageError(f"--shots {submission.shots}: cannot go with --prompts; give one of the two")
    if adapted:
        raise UsageError(f"{flag}: {adapted[0].label} is adapted; other prompts are for its base: submit the base")
    description = submission.sources[0].description
    method = description.method or ("rag" if submission.prompts else "icl")
    if method not in PROMPTED:
        raise UsageError(f"{flag}: --method {method} must be {' or '.join(PROMPTED)}, or left out")
    domain = {suite.name: (suite, plan) for suite, plan in zip(suites, planned, strict=True) if suite.role == "domain"}
    if submission.prompts:
        prompted_suites = [find_suite(name) for name in submission.prompts]
    else:
        prompted_suites = [other_prompts.with_shots(suite, cast(int, submission.shots)) for suite, _ in domain.values()]
    if not domain:
        raise UsageError(f"{flag}: no suite has role domain, and only domain suites get other prompts; add --suite")
    replacements, content = {}, []
    for prompted_suite in prompted_suites:
        if prompted_suite.name not in domain:
            raise SuiteError(
                f"{flag}: {prompted_suite.path}: its name {prompted_suite.name!r} must be the name of the domain suite "
                f"whose documents it uses: {', '.join(domain)}"
            )
        suite, plan = domain[prompted_suite.name]
        same = ("role", "chat_template", "template_args", "think_end")
        complete_suite = prompted_suite.model_copy(update={name: getattr(suite, name) for name in same})
        prompted = plan_suite(complete_suite, template_source, submission.allow_task_code)
        replacements[plan.plan.digest] = other_prompts.select_documents(plan, prompted)
        content.append(prompted.loaded.digest)
    identity = [base.digest, method, *(sorted(content) if submission.prompts else [str(submission.shots)])]
    name = description.name or f"{base.name}-{method if submission.prompts else f'{submission.shots}shot'}"
    no_cost = Cost(gpu_hours=0.0, cpu_hours=0.0, train_tokens=0, train_samples=0, trainable_share=0.0)
    checkpoint = replace(
        base,
        digest=join_digests(["prompted", *identity], identity),
        name=name,
        method=method,
        parent=base.digest,
        cost=merge_costs(description.cost, no_cost),
    )
    return checkpoint, replacements
