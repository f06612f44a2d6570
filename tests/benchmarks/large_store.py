"""A store of the size that the dashboard is built for: arms, runs and decisions as they come, scores in bulk.

Run by hand: python -m tests.benchmarks.large_store FILE [arms, 1000 by default]. Checkpoints, plans, runs, drift,
dossiers and decisions go in through the store's own calls. Only the rows of which there are millions (responses,
scores, results) are inserted as tables, in the columns and the order in which `Store.commit` and `Store.finish` write
them.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from evalsvc.gating.decisions import Question, decide
from evalsvc.gating.policy import LearningRule, Policy, RetentionRule
from evalsvc.records.arms import Arm, Cost, Finding
from evalsvc.records.plans import Plan
from evalsvc.records.vocabulary import Role
from evalsvc.records.weight_changes import TensorChange, WeightChange
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.database import Connection, Database
from evalsvc.store.runs import driver_name
from evalsvc.store.store import Store
from tests.support.evidence import Array, make_item_plan
from tests.support.fakes import NUMERICS, make_arm

ITEMS = 200
SUITES: dict[str, tuple[Role, int]] = {
    "clinic": ("domain", 8),
    "law": ("domain", 2),
    "mmlu": ("general", 30),
    "reasoning": ("general", 6),
    "commands": ("instruction", 3),
    "safety": ("safety", 1),
}
"""Suite to its role and number of tasks: 50 in all."""
STEPS = 10
METHODS = ("lora", "full", "dora", "cpt", "lora", "icl", "full", "lora", "rag", "cpt-replay")
BATCH = 50


def plans() -> list[Plan]:
    """Return the plans of all suites, every task with as many items."""
    column: Array = np.zeros(ITEMS)
    return [
        make_item_plan(suite, {f"{suite}-{number:02d}": (column, column) for number in range(tasks)}, role)
        for suite, (role, tasks) in SUITES.items()
    ]


def arms(count: int) -> list[Arm]:
    """Return a base and so many adapted arms: training runs of ten steps, with what they cost."""
    base = make_arm(1)
    found = [Arm(replace(base.checkpoint, name="base-8b"), NUMERICS)]
    for number in range(count):
        run, place = divmod(number, STEPS)
        method, step = METHODS[run % len(METHODS)], 100 * (place + 1)
        name = f"{method}-{run:03d}"
        made = replace(
            make_arm(1000 + number, parent=base.checkpoint).checkpoint,
            name=name,
            method=method.removesuffix("-replay"),
            step=step,
            trajectory=name,
            cost=Cost(
                gpu_hours=0.01 * step * (1 + run % 7), train_tokens=10_000 * step, peak_memory_gb=20.0 + run % 50
            ),
        )
        found.append(Arm(made, NUMERICS))
    return found


def values(count: int, roles: Array, rng: np.random.Generator) -> Array:
    """Return scores [arms, items]: the base's, then of arms that learn in the domain and forget elsewhere, by step.

    Args:
        roles: [items], 1 in the domain, 0 elsewhere.
    """
    base = rng.random(len(roles)) < np.where(roles > 0, 0.45, 0.65)
    found = np.tile(base, (count + 1, 1))
    for number in range(count):
        run, place = divmod(number, STEPS)
        pace = np.random.default_rng(run).uniform(0.2, 1.0, 2) * (place + 1) / STEPS
        gained = np.where(roles > 0, 0.5 * pace[0], 0.03)
        lost = np.where(roles > 0, 0.03, 0.02 + 0.25 * pace[1])
        drawn = rng.random(len(roles))
        found[number + 1] = np.where(base, drawn >= lost, drawn < gained)
    return found.astype(np.float64)


def insert(connection: Connection, numbers: range, of: Array, items: pa.Table, rng: np.random.Generator) -> None:
    """Insert the responses, scores and results of some arms, which have one run on every plan.

    Args:
        of: [arms, items] scores.
        items: One row per item in the order of plans and tasks: plan, task, sample, request.
    """
    rows = len(items)
    repeated = items.take(pa.array(np.tile(np.arange(rows), len(numbers))))
    flat = of.ravel()
    incoming = repeated.append_column("arm", pa.array(np.repeat(list(numbers), rows).astype(np.int32)))
    incoming = incoming.append_column("value", pa.array(flat))
    incoming = incoming.append_column("answer", pa.array(np.where(flat > 0, 0, rng.integers(1, 4, len(flat)))))
    incoming = incoming.append_column("confidence", pa.array(rng.uniform(0.3, 1.0, len(flat))))
    connection.register("incoming", incoming)
    connection.execute("INSERT INTO responses SELECT arm, request, ln(confidence), value > 0, NULL, 3, 0 FROM incoming")
    connection.execute(
        "INSERT INTO scores SELECT u.run, i.task, i.sample, 'acc', 'none', i.value, NULL, NULL, i.answer, NULL, "
        "i.confidence FROM incoming i JOIN runs u ON u.arm = i.arm AND u.plan = i.plan "
        "ORDER BY i.arm, i.plan, i.task, i.sample"
    )
    connection.execute(
        "INSERT INTO results SELECT u.run, i.task, 'acc', 'none', count(*), avg(i.value), "
        "stddev_samp(i.value) / sqrt(count(*)), true, true, false "
        "FROM incoming i JOIN runs u ON u.arm = i.arm AND u.plan = i.plan "
        "GROUP BY u.run, i.task ORDER BY u.run, i.task"
    )
    connection.execute(
        "UPDATE runs SET state = 'done', answered = requests, updated = now()::TIMESTAMP WHERE arm BETWEEN ? AND ?",
        [numbers[0], numbers[-1]],
    )
    connection.unregister("incoming")


def fill(db: Path, count: int = 1000) -> None:
    """Make the store."""
    store, database = Store(db), Database(db)
    known, made, rng = arms(count), plans(), np.random.default_rng(0)
    store.register(known, made, driver_name())
    with database.read() as connection:
        items = connection.sql(
            "SELECT m.plan, m.task, m.sample, s.requests[1] AS request "
            "FROM plan_samples m JOIN samples s USING (sample) JOIN tasks t ON t.plan = m.plan AND t.task = m.task "
            "ORDER BY m.plan, t.position, m.sample"
        ).to_arrow_table()
    domain = [number + 1 for number, what in enumerate(made) if what.role == "domain"]
    of = values(count, np.isin(items["plan"].to_numpy(), domain).astype(np.float64), rng)
    for start in range(0, count + 1, BATCH):
        numbers = range(start + 1, min(start + BATCH, count + 1) + 1)
        with database.write() as connection:
            insert(connection, numbers, of[start : start + len(numbers)], items, rng)
    describe(store, known, made)


def describe(store: Store, known: list[Arm], made: list[Plan]) -> None:
    """Add what only some checkpoints have: drift, dossiers, decisions."""
    general = next(what for what in made if what.role == "general")
    task, dossiers = general.tasks[0], CheckpointFacts(store.path)
    for number, of in enumerate(known[1:201:10]):
        store.add_drift(of, general, task.name, {s.digest: [0.001 * number] * 40 for s in task.samples[:20]})
    tensors = tuple(
        TensorChange(
            name=f"model.layers.{layer}.{part}.weight",
            shape=(4096, 4096),
            changed=8,
            base_norm=2.0,
            norm=0.01 * (layer + 1),
            rank_90=3,
            effective_rank=2.5,
        )
        for layer in range(32)
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj")
    )
    for of in known[1:]:
        dossiers.keep_findings(of.checkpoint, [Finding("warning", "window", of.label, "3 prompts were cut")])
        dossiers.keep_change(of.checkpoint, WeightChange(8_030_261_248, 41_943_040, "|x| > 0", tensors))
    policy = Policy(
        version=1, learning=LearningRule(suites=("clinic",)), retention=(RetentionRule(suite="mmlu", margin=0.05),)
    )
    for of in known[1:301:15]:
        decide(store, Question(checkpoint=of.checkpoint.digest, policy=policy))


if __name__ == "__main__":
    began = time.perf_counter()
    path = Path(sys.argv[1])
    fill(path, int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
    print(f"{path}: {path.stat().st_size / 1e6:,.0f} MB in {time.perf_counter() - began:.0f} s")
