"""Tasks of one name in two suites: every table says which is which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.table import Table

from evalsvc.analysis.diversity_and_drift import compare_sampled
from evalsvc.analysis.stored import compare_arms
from evalsvc.analysis.training_runs import follow_runs
from evalsvc.records.arms import Arm
from evalsvc.records.vocabulary import Role
from evalsvc.reports.comparison import ComparisonReport
from evalsvc.reports.diversity_and_drift import DiversityReport
from evalsvc.reports.formatting import label_tasks
from evalsvc.reports.report import Report
from evalsvc.reports.trajectories import TrajectoryReport
from evalsvc.store.store import Store
from tests.support.evidence import CHILD, fill_store, make_binary
from tests.support.fakes import NUMERICS
from tests.support.sampled import store_collapsed


def read_column(report: Report, name: str) -> list[str]:
    """Return the cells of the columns of this name, of all tables without a column of suites."""
    tables = [table for table in report.tables() if isinstance(table, Table)]
    plain = [table for table in tables if "suite" not in {column.header for column in table.columns}]
    return [str(cell) for table in plain for column in table.columns if column.header == name for cell in column.cells]


def fill_two_suites(db: Path) -> Store:
    """Store a training run's step on two suites that have a task of the same name, which lose 30 and 5 of 200 items."""
    step = Arm(replace(CHILD.checkpoint, name="lora", step=10, trajectory="lora"), NUMERICS)
    suites: tuple[tuple[str, Role, int], ...] = (("core", "general", 30), ("more", "general", 5), ("new", "domain", 0))
    for suite, role, lost in suites:
        tasks = {"t": make_binary(lost, 0, 200)} if suite != "new" else {"own": make_binary(0, 40, 200)}
        fill_store(db, suite, tasks, role=role, adapted=step)
    return Store(db)


def test_only_a_name_that_two_suites_have_gets_its_suite() -> None:
    keys = [("a", "t"), ("b", "t"), ("b", "u"), ("a", "t")]
    assert label_tasks(keys) == {("a", "t"): "a/t", ("b", "t"): "b/t", ("b", "u"): "u"}


def test_comparisons_and_trajectories_tell_two_tasks_of_one_name_apart(db: Path) -> None:
    store = fill_two_suites(db)
    comparison = ComparisonReport(compare_arms(store, "lora@10"))
    assert read_column(comparison, "task") == ["core/t", "more/t", "own"]
    assert read_column(comparison, "worst task") == ["core/t", "own"]
    assert [total["worst_suite"] for total in comparison.to_dict()["roles"]] == ["core", "new"]
    assert read_column(TrajectoryReport(tuple(follow_runs(store))), "task") == ["core/t", "more/t", "own"]


def test_diversity_tells_two_tasks_of_one_name_apart(db: Path) -> None:
    store = store_collapsed(db)
    base, arm = (arm.number for arm in store.arms())
    answers = store.sampled_answers(base, [arm])
    (task,) = compare_sampled(answers[base], answers[arm])
    tables = DiversityReport("full", (task, replace(task, suite="wild"))).tables()
    titles = [str(table.title) for table in tables if isinstance(table, Table)]
    assert [title.split(",")[0] for title in titles] == ["full: open/open", "full: wild/open"]
