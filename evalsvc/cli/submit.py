"""The commands `submit` and `status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalsvc import api
from evalsvc.cli.options import (
    RUN,
    Address,
    AllowTaskCode,
    BaseAnyway,
    Db,
    Device,
    Dtype,
    Json,
    Method,
    Quiet,
    Rendering,
    Source,
    Step,
    Workers,
)
from evalsvc.cli.output import print_report, show_note, working
from evalsvc.records.choices import Quantisation

app = typer.Typer()

Suites = Annotated[list[str] | None, typer.Option(help="Suite name or file; repeatable.", show_default="the base's")]
TrainingSeed = Annotated[
    int | None, typer.Option(min=0, help="Seed of the training run.", show_default="from its files")
]
GpuHours = Annotated[float | None, typer.Option(min=0, help="Cost: GPU-hours of training.")]
CpuHours = Annotated[float | None, typer.Option(min=0, help="Cost: CPU-hours of training without a GPU.")]
TrainTokens = Annotated[int | None, typer.Option(min=0, help="Cost: tokens trained on.")]
PeakMemory = Annotated[float | None, typer.Option(min=0, help="Cost: peak memory of training, in GB (1e9 bytes).")]
TrainSamples = Annotated[int | None, typer.Option(min=0, help="Cost: samples trained on.")]
AnnotationCost = Annotated[float | None, typer.Option(min=0, help="Cost: annotation of the data, in your currency.")]
TrainableShare = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of parameters trained.", show_default="an adapter's own")
]
Rerun = Annotated[bool, typer.Option("--rerun", help="Score the base twice to measure run-to-run noise (A/A).")]
Merged = Annotated[bool, typer.Option("--merged", help="Also score merged adapters, as separate arms.")]
Quantised = Annotated[Quantisation | None, typer.Option(help="Quantise all weights, base included.")]
Shots = Annotated[
    int | None, typer.Option(min=1, help="ICL: score the base with this number of few-shot examples on domain suites.")
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(help="RAG: score the base on domain suites with the prompts of this suite file; repeatable."),
]


@app.command(
    rich_help_panel=RUN,
    epilog="Examples:\n\nevalsvc submit runs/lora --base models/base --suite clinic --suite valley\n\n"
    "evalsvc submit org/name@main --base org/base --suite suites/mine.yaml --method cpt\n\n"
    "evalsvc submit models/base --suite clinic --suite valley --shots 5",
)
def submit(
    checkpoint: Annotated[
        str, typer.Argument(help="Folder, training output folder (a trajectory), Hub id@revision, or a stored label.")
    ],
    base: Source = None,
    base_anyway: BaseAnyway = False,
    suite: Suites = None,
    method: Method = None,
    name: Annotated[str | None, typer.Option(help="Name of the arm.", show_default="the folder's name")] = None,
    step: Step = None,
    seed: TrainingSeed = None,
    gpu_hours: GpuHours = None,
    cpu_hours: CpuHours = None,
    train_tokens: TrainTokens = None,
    peak_memory_gb: PeakMemory = None,
    train_samples: TrainSamples = None,
    annotation_cost: AnnotationCost = None,
    trainable_share: TrainableShare = None,
    rendering: Rendering = None,
    rerun: Rerun = False,
    merged: Merged = False,
    quantised: Quantised = None,
    shots: Shots = None,
    prompts: Prompts = None,
    policy: Annotated[
        Path | None, typer.Option(help="Print the power analysis first; stop if the policy cannot pass.")
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
    """Score a checkpoint and its base on suites.

    Results already in the store are reused.
    """
    with working(quiet) as (note, progress):
        from evalsvc.records.arms import Cost

        runs = api.submit(
            checkpoint,
            base=base,
            base_anyway=base_anyway,
            suites=suite or (),
            method=method,
            name=name,
            step=step,
            seed=seed,
            cost=Cost(
                gpu_hours=gpu_hours,
                cpu_hours=cpu_hours,
                train_tokens=train_tokens,
                peak_memory_gb=peak_memory_gb,
                train_samples=train_samples,
                annotation_cost=annotation_cost,
                trainable_share=trainable_share,
            ),
            rendering=rendering,
            rerun=rerun,
            merged=merged,
            quantised=quantised,
            shots=shots,
            prompts=prompts or (),
            policy=policy,
            on_plan=None if quiet else show_note,
            workers=workers,
            device=device,
            dtype=dtype,
            allow_task_code=allow_task_code,
            db=db,
            progress=progress,
            note=note,
        )
    print_report(runs, as_json)
    runs.raise_for_failures()


@app.command(rich_help_panel=RUN, epilog="Example: evalsvc status --json")
def status(db: Db = None, address: Address = None, as_json: Json = False) -> None:
    """Show the progress of runs."""
    from evalsvc.reports.runs import RunsReport

    print_report(RunsReport.of_store(api.find_store(db).runs()), as_json)
