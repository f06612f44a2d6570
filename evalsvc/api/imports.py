"""Results of others, into a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evalsvc.api.arguments import find_store, to_texts

if TYPE_CHECKING:
    from evalsvc.api.arguments import AnyStore, PathLike
    from evalsvc.records.choices import Role
    from evalsvc.reports.imports import ImportReport


def import_lm_eval(
    results: PathLike | Sequence[PathLike],
    *,
    suite: str,
    role: Role,
    samples: Sequence[PathLike] = (),
    name: str | None = None,
    method: str | None = None,
    base: str | None = None,
    step: int | None = None,
    seed: int | None = None,
    tasks: Sequence[str] = ("*",),
    metric: str | None = None,
    higher_is_better: Sequence[str] = (),
    lower_is_better: Sequence[str] = (),
    db: AnyStore = None,
) -> ImportReport:
    """Import results of lm-eval; with samples, arms can be compared item by item.

    Args:
        results: results_*.json, or the folder of --output_path with its samples; several named ...step1000 are steps of
            one training run.
        suite: Name of the suite for these results.
        samples: Files written by --log_samples; only with one results file.
        name: Name of the arm; None for the file's name, or the model's. Results of an arm that the store has already
            are added to it.
        method: How it was adapted; None for "base", or with a base "unknown".
        base: The imported arm that it was adapted from.
        step: Training step; only with one results file.
        seed: Seed of the training run.
        tasks: Only tasks that match one of these patterns, or are below a group that does.
        metric: The metric that comparisons use, as NAME or NAME,FILTER; None for the task's first.
        higher_is_better, lower_is_better: Metrics whose direction neither the file nor lm-eval tells.

    Raises:
        UsageError: A file, the role or the store cannot be used, or a metric's direction is not known.
        EvidenceError: The samples do not match the results.
    """
    from evalsvc.interchange.arms import Adaptation, Target, store_imported
    from evalsvc.interchange.lm_eval import read_runs
    from evalsvc.reports.imports import ImportReport
    from evalsvc.store.arms import find_arm

    store = find_store(db)
    arms = store.arms() if store.path.is_file() else []
    parent = find_arm(arms, base).checkpoint if base else None
    imported = read_runs(
        [Path(path) for path in to_texts(results)],
        [Path(path) for path in to_texts(samples)],
        Target(suite, role, tuple(tasks), metric, tuple(higher_is_better), tuple(lower_is_better)),
        Adaptation(name=name, method=method, parent=parent, step=step, seed=seed),
        arms,
    )
    store_imported(store, imported)
    return ImportReport(tuple(imported))


def import_items(
    table: PathLike,
    *,
    suite: str,
    role: Role,
    arm: str,
    item: str,
    value: str,
    task_column: str | None = None,
    prompt: str | None = None,
    answer: str | None = None,
    cluster: str | None = None,
    seed: str | None = None,
    base: str | None = None,
    method: str | None = None,
    tasks: Sequence[str] = ("*",),
    metric: str | None = None,
    higher_is_better: Sequence[str] = (),
    lower_is_better: Sequence[str] = (),
    db: AnyStore = None,
) -> ImportReport:
    """Import a Parquet, CSV, TSV or JSON-lines table with one row per arm and item.

    Args:
        suite: Name of the suite for these scores.
        arm, item, value: Columns with the arm's name, the item's id, and the score.
        task_column, prompt, answer, cluster, seed: Columns with the task's name, the prompt or its hash, the parsed
            answer, the cluster of items that are not independent, and the seed of the arm's training.
        base: The arm that the others were adapted from.
        metric: What the scores are; None for "score", of which more is better.
        method, tasks, higher_is_better, lower_is_better: As in `import_lm_eval`.

    Raises:
        UsageError: The file, a column, the role or the store cannot be used.
    """
    from evalsvc.interchange.arms import Target, store_imported
    from evalsvc.interchange.items import Columns, read_items
    from evalsvc.interchange.repeated_items import link_repeated_items
    from evalsvc.reports.imports import ImportReport
    from evalsvc.store.runs import Runs

    columns = Columns(
        arm=arm, item=item, value=value, task=task_column, prompt=prompt, answer=answer, cluster=cluster, seed=seed
    )
    store = find_store(db)
    target = Target(suite, role, tuple(tasks), metric, tuple(higher_is_better), tuple(lower_is_better))
    arms = store.arms() if store.path.is_file() else []
    imported = read_items(Path(table), columns, target, method, base, arms)
    named = Runs(store.path).named_items([entry.arm.key for entry in imported]) if arms else []
    imported = link_repeated_items(imported, named)
    store_imported(store, imported)
    return ImportReport(tuple(imported))
