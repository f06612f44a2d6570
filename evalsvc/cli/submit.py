"""Commands that score: submit; and status, which watches it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from evalsvc.cli.options import Address, AllowTaskCode, Db, Device, Dtype, Json, Quiet, Workers
from evalsvc.cli.output import exit_on_failures, open_store, print_json, show, working
from evalsvc.settings import Compute

if TYPE_CHECKING:
    from evalsvc.scoring.driver import RunJob
    from evalsvc.scoring.submit import Prepared
    from evalsvc.store.store import Store


app = typer.Typer()

Rendering = Literal["base", "adapted", "plain"]
Quantised = Literal["int8", "nf4", "bnb-int8", "bnb-nf4"]
Shots = Annotated[
    int | None, typer.Option(min=1, help="ICL: the base itself, its domain suites asked with worked examples.")
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(help="RAG: the base itself, a domain suite's documents asked with this suite file's prompts."),
]


@app.command(
    epilog="Examples: evalsvc submit runs/lora --base models/base --suite clinic --suite valley   |   "
    "evalsvc submit org/name@main --base org/base --suite suites/mine.yaml --method cpt   |   "
    "evalsvc submit models/base --suite clinic --suite valley --shots 5"
)
def submit(
    checkpoint: Annotated[str, typer.Argument(help="Folder, training output folder (a trajectory), or hub id[@rev].")],
    base: Annotated[str | None, typer.Option(help="What it was adapted from: folder or hub id.")] = None,
    suite: Annotated[
        list[str] | None, typer.Option(help="Suite name or file; repeatable.", show_default="the base's")
    ] = None,
    method: Annotated[str | None, typer.Option(help="How it was adapted: full, lora, qlora, cpt, ...")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="the folder's name")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Training step.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(min=0, help="Cost: GPU-hours of training.")] = None,
    cpu_hours: Annotated[float | None, typer.Option(min=0, help="Cost: CPU-hours of training without a GPU.")] = None,
    train_tokens: Annotated[int | None, typer.Option(min=0, help="Cost: tokens trained on.")] = None,
    peak_memory_gb: Annotated[float | None, typer.Option(min=0, help="Cost: peak memory of training.")] = None,
    train_samples: Annotated[int | None, typer.Option(min=0, help="Cost: samples trained on.")] = None,
    annotation_cost: Annotated[float | None, typer.Option(min=0, help="Cost: of annotating the data.")] = None,
    trainable_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of parameters trained.", show_default="an adapter's own")
    ] = None,
    rendering: Annotated[
        Rendering | None, typer.Option(help="Whose chat template renders prompts, where the base's differs.")
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Score the base once more: how much changes though nothing was adapted.")
    ] = False,
    merged: Annotated[
        bool, typer.Option("--merged", help="Score adapters merged as well, as arms of their own.")
    ] = False,
    quantised: Annotated[
        Quantised | None, typer.Option(help="Serve everything on weights quantised so, base included.")
    ] = None,
    shots: Shots = None,
    prompts: Prompts = None,
    policy: Annotated[
        Path | None, typer.Option(help="Say first what this policy can resolve; refuse one that never passes.")
    ] = None,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_task_code: AllowTaskCode = False,
    db: Db = None,
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a checkpoint and its base on suites. What the store has already is not done again."""
    from evalsvc.checkpoints.discover import Description
    from evalsvc.records.arms import Cost

    cost = Cost(
        gpu_hours=gpu_hours,
        cpu_hours=cpu_hours,
        train_tokens=train_tokens,
        peak_memory_gb=peak_memory_gb,
        train_samples=train_samples,
        annotation_cost=annotation_cost,
        trainable_share=trainable_share,
    )
    with working(quiet) as (note, progress):
        from evalsvc.scoring.submission import Source, Submission
        from evalsvc.scoring.submit import submit as run_submission

        wanted = Submission(
            sources=(Source(checkpoint, Description(method=method, name=name, step=step, cost=cost)),),
            base=base,
            suites=tuple(suite or ()),
            compute=Compute(workers, device, dtype),
            allow_task_code=allow_task_code,
            rendering=rendering,
            merged=merged,
            quantisation=quantised,
            rerun=rerun,
            shots=shots,
            prompts=tuple(prompts or ()),
        )
        store = open_store(db)
        before = partial(_plan_first, store, policy, quiet) if policy else None
        jobs = run_submission(store, wanted, progress, note, before)
    _show_jobs(store, jobs, as_json)
    exit_on_failures(jobs)


def _plan_first(store: Store, policy: Path, quiet: bool, prepared: Prepared) -> None:
    """Say on stderr what a policy can resolve.

    Raises:
        PolicyError: It can never be met.
    """
    from rich.console import Console

    from evalsvc.gating.policy import load_policy
    from evalsvc.gating.power_plan import plan_prepared
    from evalsvc.reports.decisions import forecast_table

    found = plan_prepared(store, load_policy(policy), prepared)
    if not quiet:
        console = Console(stderr=True, highlight=False)
        console.print(forecast_table(found.rules, found.requests, found.seconds))


def _show_jobs(store: Store, jobs: list[RunJob], as_json: bool) -> None:
    from evalsvc.reports.runs import runs_json, runs_table

    mine = {(job.arm.key, job.planned.plan.digest): job for job in jobs}
    runs = [run for run in store.runs() if (run.arm.digest, run.plan) in mine]
    alive = [True] * len(runs)
    if not as_json:
        show(runs_table(runs, alive))
        return
    answer = runs_json(runs, alive)
    for run, entry in zip(runs, answer["runs"], strict=True):
        entry["reused"] = mine[run.arm.digest, run.plan].reused
    print_json(answer)


@app.command(epilog="Example: evalsvc status --json")
def status(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show how far runs have come."""
    from evalsvc.reports.runs import runs_json, runs_table
    from evalsvc.store.runs import is_alive

    runs = open_store(db).runs()
    alive = [is_alive(run.driver) for run in runs]
    if as_json:
        print_json(runs_json(runs, alive))
    else:
        show(runs_table(runs, alive))
