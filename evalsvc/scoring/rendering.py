"""Chooses the chat template that renders the prompts of a submission, and plans suites with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from evalsvc.errors import CheckpointError, SuiteError
from evalsvc.harness import plan as planning
from evalsvc.harness import tasks as loading
from evalsvc.harness.documents import Render
from evalsvc.harness.plan import Planned
from evalsvc.harness.suites import Suite
from evalsvc.records.arms import Checkpoint, Finding
from evalsvc.records.digests import digest
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
    setting = suite.chat_template
    if setting == "off" or base is None or (setting == "auto" and not has_chat_template(Path(base.path))):
        return planning.plan(loaded, Rendering(None, suite.system_prompt))
    template, render = _chat(base)
    if template is None:
        raise SuiteError(
            f"suite {suite.name}: requires a chat template, and {base.label} has none; set chat_template: off, "
            "or add chat_template.jinja to the base"
        )
    return planning.plan(loaded, Rendering(digest("template", template), suite.system_prompt), render)


def has_chat_template(folder: Path) -> bool:
    """Whether a checkpoint's files include a chat template."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))


def _chat(base: Checkpoint) -> tuple[str | None, Render]:
    from evalsvc.engine.encoding import load_tokenizer, render_chat  # transformers takes a second to import

    tokenizer = load_tokenizer(base)
    template = tokenizer.chat_template
    text = template if isinstance(template, str) or template is None else json.dumps(template, sort_keys=True)
    return text, partial(render_chat, tokenizer)
