"""Commands that decide: gate, verify."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from evalsvc.cli.options import Address, AllowTaskCode, Db, Device, Dtype, Json, Quiet, Workers
from evalsvc.cli.output import open_store, print_json, show, working
from evalsvc.errors import EvalsvcError
from evalsvc.settings import Compute

if TYPE_CHECKING:
    from evalsvc.gating.decisions import Decision, Question
    from evalsvc.gating.policy import Policy
    from evalsvc.store.store import Store


app = typer.Typer()

Half = Literal["select", "confirm"]


@app.command(
    epilog="Examples: evalsvc gate lora@400 --policy policy.yaml --junit gate.xml   |   "
    "evalsvc gate runs/lora --policy policy.yaml --base models/base --evaluate   |   "
    "evalsvc gate lora@400 --policy policy.yaml --plan"
)
def gate(
    checkpoint: Annotated[str, typer.Argument(help="The adapted arm: label, name, path or digest.")],
    policy: Annotated[Path, typer.Option(help="What it must meet: a YAML file.")],
    base: Annotated[str | None, typer.Option(help="What it is compared with.", show_default="its own base")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what the policy can resolve, and decide nothing.")] = False,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Score what is missing; CHECKPOINT may be new.")] = False,
    suite: Annotated[list[str] | None, typer.Option(help="File of a suite that the store does not know.")] = None,
    batch: Annotated[bool, typer.Option("--batch", help="Correct for all candidates tried on these suites.")] = False,
    half: Annotated[Half | None, typer.Option(help="Look at one seeded half of every task's items only.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown here.")] = None,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_task_code: AllowTaskCode = False,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decide whether a checkpoint may be promoted: exit code 0 pass, 3 fail, 4 inconclusive, 5 no evidence."""
    from evalsvc.gating.policy import load_policy

    with _report_refusals(checkpoint, junit, markdown):
        said = load_policy(policy)
        store = open_store(db)
        if plan:
            _show_plan(store, said, checkpoint, base, suite or [], as_json=as_json)
            return
        from evalsvc.gating.decisions import Question, decide

        question = Question(checkpoint=checkpoint, policy=said, base=base, batch=batch, half=half)
        if evaluate:
            compute = Compute(workers, device, dtype)
            decision = _evaluate(store, question, suite or [], compute, allow_task_code, quiet)
        else:
            decision = decide(store, question)
    _show(decision, junit, markdown, as_json=as_json)
    raise typer.Exit(decision.outcome.exit_code)


def _show_plan(
    store: Store, policy: Policy, checkpoint: str, base: str | None, suites: list[str], *, as_json: bool
) -> None:
    from evalsvc.gating.power_plan import plan_power
    from evalsvc.reports import decisions as report

    found = plan_power(store, policy, checkpoint, base, suites)
    if as_json:
        print_json(report.forecast_json(found.rules, found.requests, found.seconds))
    else:
        show(report.forecast_table(found.rules, found.requests, found.seconds))


def _evaluate(
    store: Store, question: Question, suites: list[str], compute: Compute, allow_task_code: bool, quiet: bool
) -> Decision:
    """Score and decide."""
    with working(quiet) as (note, progress):
        from evalsvc.gating.evaluate import evaluate
        from evalsvc.scoring.submission import Source, Submission
        from evalsvc.store.arms import find_arm, find_base

        source, base = question.checkpoint, question.base
        if store.path.is_file() and not Path(source).exists():
            # An arm that the store knows is found again where it was.
            arms = store.arms()
            known = find_arm(arms, source)
            source, base = known.checkpoint.path, base or find_base(arms, known).checkpoint.path
        submission = Submission(
            sources=(Source(source),), base=base, suites=tuple(suites), compute=compute, allow_task_code=allow_task_code
        )
        return evaluate(store, question, submission, progress, note)


def _show(decision: Decision, junit: Path | None, markdown: Path | None, *, as_json: bool) -> None:
    from evalsvc.reports import decisions as report

    _write(junit, markdown, report.junit(decision), report.markdown(decision))
    if as_json:
        print_json(report.decision_json(decision))
    else:
        show(*report.decision_tables(decision))


@contextmanager
def _report_refusals(checkpoint: str, junit: Path | None, markdown: Path | None) -> Iterator[None]:
    """Say in every output that there is no verdict, if there is none."""
    try:
        yield
    except EvalsvcError as error:
        from evalsvc.reports import decisions as report

        text = str(error)
        _write(junit, markdown, report.no_verdict_junit(checkpoint, text), report.no_verdict_markdown(checkpoint, text))
        raise


def _write(junit: Path | None, markdown: Path | None, xml: str, text: str) -> None:
    """Write files that were asked for, and append to the summary of a CI job, if there is one."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    for path, content, mode in (
        (junit, xml, "w"),
        (markdown, text, "w"),
        (Path(summary) if summary else None, text, "a"),
    ):
        if path is not None:
            try:
                with path.open(mode, encoding="utf-8") as file:
                    file.write(content)
            except OSError as error:
                raise EvalsvcError(f"{path}: cannot be written: {error.strerror}") from error


@app.command(epilog="Example: evalsvc verify evalsvc.duckdb.decisions/0f3c5a9e11d27b64.json")
def verify(
    decision: Annotated[Path, typer.Argument(help="A decision record.")],
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Recompute a decision from the stored scores: exit code 0 if it holds, 5 if anything differs."""
    from evalsvc.gating.verify import find_differences as differences
    from evalsvc.gating.verify import read_record

    record = read_record(decision)
    found = differences(open_store(db), record)
    if as_json:
        print_json({"schema": 1, "decision": record.get("digest"), "equal": not found, "differences": found})
    else:
        for line in found or [f"equal: {record['verdict']} for {record['checkpoint']['arm']}, {record['decided']}"]:
            print(line)
    if found:
        raise typer.Exit(5)
