"""Commands that import results: import lm-eval, items, matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalsvc import api
from evalsvc.cli.options import Db, Json, Seed, Step
from evalsvc.cli.output import print_report
from evalsvc.records.choices import Role

app = typer.Typer(help="Import results of lm-eval, tables of items, matrices.", no_args_is_help=True)

SuiteName = Annotated[str, typer.Option("--suite", help="Name of the suite for these results.")]
RoleName = Annotated[Role, typer.Option("--role", help="Role of the suite.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", help="Only tasks that match this pattern, or are below a group that does; repeatable."),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric", help="Metric that comparisons use: NAME, or NAME,FILTER.", show_default="the task's first"
    ),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        "--method", help="How it was adapted: full, lora, cpt, ...", show_default="base; with a base, unknown"
    ),
]
Higher = Annotated[
    list[str] | None,
    typer.Option("--higher-is-better", metavar="METRIC", help="Metric of unknown direction; repeatable."),
]
Lower = Annotated[
    list[str] | None,
    typer.Option("--lower-is-better", metavar="METRIC", help="Metric of unknown direction; repeatable."),
]


@app.command(
    "lm-eval",
    epilog="Example: evalsvc import lm-eval results_base.json --samples samples_copa_2025-01-31T12.jsonl --name base "
    "--suite nlp --role general",
)
def lm_eval(
    results: Annotated[
        list[Path],
        typer.Argument(help="results_*.json, or folders of --output_path; several named ...step1000 are steps."),
    ],
    suite: SuiteName,
    role: RoleName,
    samples: Annotated[list[Path] | None, typer.Option(help="File that --log_samples wrote; repeatable.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the arm.", show_default="the file's or model's")] = None,
    method: MethodName = None,
    base: Annotated[str | None, typer.Option(help="The imported arm that it was adapted from.")] = None,
    step: Step = None,
    seed: Seed = None,
    task: Tasks = None,
    metric: MetricName = None,
    higher: Higher = None,
    lower: Lower = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Import results of lm-eval; with samples, arms can be compared item by item.

    Results of an arm that the store has already, on another suite, are added to it.
    """
    report = api.import_lm_eval(
        results,
        suite=suite,
        role=role,
        samples=samples or (),
        name=name,
        method=method,
        base=base,
        step=step,
        seed=seed,
        tasks=task or ("*",),
        metric=metric,
        higher_is_better=higher or (),
        lower_is_better=lower or (),
        db=db,
    )
    print_report(report, as_json)


@app.command(
    epilog="Example: evalsvc import items gsm8k.parquet --arm system --item id --value correct --base pretrained "
    "--method full --suite gsm8k --role general"
)
def items(
    table: Annotated[Path, typer.Argument(help="Parquet, CSV, TSV or JSON lines; one row per arm and item.")],
    suite: SuiteName,
    role: RoleName,
    arm: Annotated[str, typer.Option(help="Column with the arm's name.")],
    item: Annotated[str, typer.Option(help="Column with the item's id.")],
    value: Annotated[str, typer.Option(help="Column with the score: 0 or 1, or graded.")],
    task_column: Annotated[str | None, typer.Option("--task-column", help="Column with the task's name.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Column with the prompt, or its hash.")] = None,
    answer: Annotated[str | None, typer.Option(help="Column with the parsed answer.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Column with the cluster of items that are not independent.")
    ] = None,
    seed: Annotated[str | None, typer.Option(help="Column with the seed of the arm's training.")] = None,
    base: Annotated[str | None, typer.Option(help="The arm that the others were adapted from.")] = None,
    method: MethodName = None,
    task: Tasks = None,
    metric: MetricName = None,
    higher: Higher = None,
    lower: Lower = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Import a table of item scores; options name its columns."""
    report = api.import_items(
        table,
        suite=suite,
        role=role,
        arm=arm,
        item=item,
        value=value,
        task_column=task_column,
        prompt=prompt,
        answer=answer,
        cluster=cluster,
        seed=seed,
        base=base,
        method=method,
        tasks=task or ("*",),
        metric=metric,
        higher_is_better=higher or (),
        lower_is_better=lower or (),
        db=db,
    )
    print_report(report, as_json)


@app.command(epilog="Example: evalsvc import matrix runs/full_seed1.json runs/lora_seed1.json && evalsvc continual")
def matrix(
    files: Annotated[list[Path], typer.Argument(help="JSON: tasks, scores (one row per stage), method, seed.")],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Import matrices of scores on tasks that were learned in sequence."""
    from evalsvc.interchange.matrices import read_matrix
    from evalsvc.reports.imports import MatrixImportReport

    matrices = [read_matrix(path) for path in files]
    api.find_store(db).add_matrices(matrices)
    print_report(MatrixImportReport(tuple(matrices)), as_json)
