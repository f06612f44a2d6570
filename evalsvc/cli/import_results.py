"""Commands that import what others have computed: import lm-eval, items, matrix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalsvc.cli.options import Db, Json
from evalsvc.cli.output import open_store, print_json
from evalsvc.errors import UsageError

if TYPE_CHECKING:
    from evalsvc.interchange.arms import Imported, Target
    from evalsvc.records.arms import Checkpoint
    from evalsvc.store.store import Store


app = typer.Typer(help="Bring in results that others have computed.", no_args_is_help=True)

SuiteName = Annotated[str, typer.Option("--suite", help="Suite to keep them under.")]
RoleName = Annotated[str, typer.Option("--role", help="Its role: domain, general, instruction, safety or drift.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="Only tasks that match; repeatable.")]
MetricName = Annotated[str | None, typer.Option("--metric", help="What comparisons use.")]
Method = Annotated[str, typer.Option("--method", help="How it was adapted: base, full, lora, ...")]


@app.command(
    "lm-eval",
    epilog="Example: evalsvc import lm-eval results_base.json --samples samples_copa_2025-01-31T12.jsonl --name base "
    "--suite nlp --role general",
)
def lm_eval(
    results: Annotated[list[Path], typer.Argument(help="results_*.json; several, named ...step1000.json, are steps.")],
    suite: SuiteName,
    role: RoleName,
    samples: Annotated[list[Path] | None, typer.Option(help="What --log_samples wrote; repeatable.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="the file's name")] = None,
    method: Method = "base",
    base: Annotated[str | None, typer.Option(help="The imported arm that it was adapted from.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Training step.")] = None,
    task: Tasks = None,
    metric: MetricName = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Import results that lm-eval has written; with samples they can be compared item by item."""
    from evalsvc.interchange import arms
    from evalsvc.interchange.lm_eval import read_lm_eval

    if len(results) > 1 and (samples or step is not None):
        raise UsageError(f"{len(results)} results files: --samples and --step go with one file; import them one by one")
    store, target = open_store(db), _target(suite, role, task, metric)
    parent = _parent(store, base)
    found = []
    for path in results:
        number = step if len(results) == 1 else _step_of(path)
        stem = name or re.sub(r"[._-]?step[_-]?\d+$", "", path.name.split(".json")[0])
        content = path.read_bytes().hex() if path.is_file() else ""
        of = arms.imported_checkpoint(stem, content, method, path, parent, number)
        found.append(read_lm_eval(path, samples or (), of, target))
    _keep(store, found, as_json)


@app.command(
    epilog="Example: evalsvc import items gsm8k.parquet --arm system --item id --value correct --base pretrained "
    "--method full --suite gsm8k --role general"
)
def items(
    table: Annotated[Path, typer.Argument(help="Parquet file, one row per arm and item.")],
    suite: SuiteName,
    role: RoleName,
    arm: Annotated[str, typer.Option(help="Column that names the arm.")],
    item: Annotated[str, typer.Option(help="Column that tells items apart.")],
    value: Annotated[str, typer.Option(help="Column with the score: 0 or 1, or graded.")],
    task_column: Annotated[str | None, typer.Option("--task-column", help="Column that names the task.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Column with the prompt, or its hash.")] = None,
    answer: Annotated[str | None, typer.Option(help="Column with the parsed answer.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Column of items that go together.")] = None,
    base: Annotated[str | None, typer.Option(help="The arm that the others were adapted from.")] = None,
    method: Method = "unknown",
    task: Tasks = None,
    metric: MetricName = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Import a table of items, whose columns the options name."""
    from evalsvc.interchange.items import Columns, read_items

    columns = Columns(arm=arm, item=item, value=value, task=task_column, prompt=prompt, answer=answer, cluster=cluster)
    found = read_items(table, columns, _target(suite, role, task, metric), method, base)
    _keep(open_store(db), found, as_json)


@app.command(epilog="Example: evalsvc import matrix runs/full_seed1.json runs/lora_seed1.json && evalsvc continual")
def matrix(
    files: Annotated[list[Path], typer.Argument(help="JSON: tasks, scores (one row per stage), method, seed.")],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Import matrices of tasks that were learned one after the other."""
    from evalsvc.interchange.matrices import read_matrix

    found = [read_matrix(path) for path in files]
    open_store(db).add_matrices(found)
    if as_json:
        print_json({"schema": 1, "matrices": [{"name": m.name, "tasks": list(m.tasks)} for m in found]})
    else:
        print(f"{len(found)} matrices: {', '.join(m.name for m in found)}")


def _target(suite: str, role: str, task: list[str] | None, metric: str | None) -> Target:
    from typing import cast, get_args

    from evalsvc.interchange.arms import Target
    from evalsvc.records.vocabulary import Role

    if role not in get_args(Role):
        raise UsageError(f"role {role!r}: must be one of {', '.join(get_args(Role))}")
    return Target(suite, cast(Role, role), tuple(task or ("*",)), metric)


def _parent(store: Store, base: str | None) -> Checkpoint | None:
    from evalsvc.store.arms import find_arm

    return find_arm(store.arms(), base).checkpoint if base else None


def _step_of(path: Path) -> int:
    found = re.search(r"step[_-]?(\d+)", path.name)
    if not found:
        raise UsageError(f"{path}: its name has no step (...step1000.json); import it by itself, with --step")
    return int(found[1])


def _keep(store: Store, found: list[Imported], as_json: bool) -> None:
    from evalsvc.store.runs import driver_name

    for one in found:
        store.register([one.arm], [one.plan], driver_name())
        store.finish(one.arm, one.plan, one.graded)
    rows = [
        {
            "arm": one.arm.checkpoint.label,
            "digest": one.arm.checkpoint.digest,
            "suite": one.plan.suite,
            "tasks": len(one.plan.tasks),
            "items": sum(len(task.samples) for task in one.plan.tasks),
        }
        for one in found
    ]
    if as_json:
        print_json({"schema": 1, "imported": rows})
        return
    for row in rows:
        print(f"{row['arm']}: {row['tasks']} tasks, {row['items']} items in suite {row['suite']}")
