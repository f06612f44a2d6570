"""Chooses the chat template that renders the prompts of a submission, and plans suites with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

from evalsvc.errors import CheckpointError, SuiteError
from evalsvc.harness import plan as planning
from evalsvc.harness import tasks as loading
from evalsvc.harness.plan import Planned
from evalsvc.harness.suites import Suite
from evalsvc.records.arms import Checkpoint, Finding
from evalsvc.records.digests import canonical, digest
from evalsvc.records.plans import Rendering
from evalsvc.scoring.submission import Submission

# ---------------------------------------------------------------------------------------------------------- rendering


def choose_template_source(
    submission: Submission,
    suites: Sequence[Suite],
    base: Checkpoint,
    adapted: Sequence[Checkpoint],
    findings: Sequence[Finding],
) -> Checkpoint | None:
    """Return the checkpoint whose chat template renders the prompts of all arms; None for plain prompts.

    Raises:
        CheckpointError: The templates differ and `rendering` is not given, or several adapted ones have their own.
    """
    differ = [finding for finding in findings if finding.check == "chat-template"]
    uses_template = any(suite.chat_template != "off" for suite in suites)
    if submission.rendering is None and differ and uses_template:
        raise CheckpointError(f"checkpoint {differ[0].checkpoint}: {differ[0].text}")
    if submission.rendering == "adapted":
        named = {finding.checkpoint for finding in differ}
        by_tokenizer = {checkpoint.tokenizer: checkpoint for checkpoint in adapted if checkpoint.label in named}
        if len(by_tokenizer) > 1:
            raise CheckpointError(
                f"--rendering adapted: {len(by_tokenizer)} adapted checkpoints have different chat templates; submit "
                "them one by one"
            )
        return next(iter(by_tokenizer.values()), base)
    return None if submission.rendering == "plain" else base


def plan_suite(suite: Suite, base: Checkpoint | None, allow_task_code: bool) -> Planned:
    """Plan a suite, rendered by one checkpoint's tokenizer: the prompts are the same for all arms."""
    loaded = loading.load(suite, allow_task_code=allow_task_code)
    if suite.chat_template == "off" or base is None:
        return planning.plan(loaded, Rendering(None, suite.system_prompt))
    from evalsvc.engine.encoding import load_tokenizer, render_chat  # transformers takes a second to import

    tokenizer = load_tokenizer(base)
    template = tokenizer.chat_template
    if template is None:
        raise SuiteError(
            f"suite {suite.name}: requires a chat template, and {base.label} has none; set chat_template: off, "
            "or add chat_template.jinja to the base"
        )
    content = [template if isinstance(template, str) else canonical(template)]
    content += [canonical(suite.template_args)] if suite.template_args else []
    rendering = Rendering(digest("template", *content), suite.system_prompt)
    return planning.plan(loaded, rendering, partial(render_chat, tokenizer, suite.template_args))


def describe_renderings(planned: Sequence[Planned], base: Checkpoint, source: Checkpoint | None) -> list[str]:
    """Return one line that says how every suite is rendered, and lines about what may not be meant.

    Args:
        source: Whose chat template renders the suites that want one; None for plain prompts.
    """
    from evalsvc.engine.encoding import find_switches, load_tokenizer  # transformers takes a second to import

    load = cache(lambda: load_tokenizer(source or base))
    by_rendering: dict[str, list[str]] = {}
    notes = []
    for plan, suite in ((suite_plan.plan, suite_plan.loaded.suite) for suite_plan in planned):
        kinds = {task.name: task.output_type for task in plan.tasks}
        generations = [name for name, kind in kinds.items() if kind == "generate_until"]
        texts = [name for name, kind in kinds.items() if kind.startswith("loglikelihood")]
        if plan.rendering.template is None:
            how = "plain prompts, no chat template"
            if generations and load().chat_template:
                notes.append(
                    f"suite {plan.suite}: {_list(generations)} of a chat model without its chat template, as lm-eval "
                    "does unless told otherwise; set chat_template: on to ask as in a chat"
                )
        else:
            args = ", ".join(f"{name}={value!r}" for name, value in suite.template_args.items())
            how = f"chat template of {(source or base).label}{' with ' if args else ''}{args}"
            if texts:
                notes.append(
                    f"suite {plan.suite}: {_list(texts)} continues a text, but is asked in a chat template; "
                    "set chat_template: off unless that is meant"
                )
            if unset := [name for name in find_switches(load()) if name not in suite.template_args]:
                notes.append(
                    f"suite {plan.suite}: the chat template has switches that the suite does not set: "
                    f"{', '.join(unset)}; set them by template_args"
                )
        by_rendering.setdefault(how + (", system prompt" if plan.rendering.system_prompt else ""), []).append(
            plan.suite
        )
    return ["rendering: " + "; ".join(f"{_list(names)}: {how}" for how, names in by_rendering.items()), *notes]


def _list(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
