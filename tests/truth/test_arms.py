"""Every number of every kind of arm along the path that users take, against transformers, peft and HFLM alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoTokenizer

from evalsvc.checkpoints.discover import Description, open_base, open_checkpoints
from evalsvc.engine.resident import Resident
from evalsvc.records.arms import Checkpoint, Serving
from evalsvc.records.plans import Plan
from evalsvc.scoring.inspect_checkpoint import compute_change
from evalsvc.scoring.submission import Source, Submission
from evalsvc.scoring.submit import submit
from evalsvc.settings import Compute
from evalsvc.store.store import Store
from tests.support import tasks
from tests.support.commands import Run
from tests.truth import kinds, oracle
from tests.truth.kinds import Kind

pytestmark = pytest.mark.slow

UNTIED = ("base", "full", "dotted", *kinds.ADAPTERS, *(f"{name}-merged" for name in kinds.MERGEABLE))
TIED = ("base-tied", "full-tied", "head-tied", *(f"{name}-tied" for name in kinds.TIED_ADAPTERS))
INT8 = ("base-int8", "lora-int8")
SUITES: dict[str, list[Any]] = {
    "domain": [{"task": "cloze", "limit": 10}, {"task": "gen", "limit": 5}],
    "general": [{"task": "mc", "limit": 4}, {"task": "votes", "limit": 2}],
    "drift": ["roll"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    return kinds.save_kinds(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def scored(made: dict[str, Kind], task_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Submit every kind, all of a base in one run of one process, so that each is exchanged for the next."""
    folder = tmp_path_factory.mktemp("scored")
    suites = tasks.write_suites(folder, task_folder, SUITES)
    store = Store(folder / "store.duckdb")
    jobs = []
    for names in (UNTIED, TIED):
        sources = [made[name] for name in names if not made[name].merged and made[name].folder != made[name].base]
        submission = Submission(
            sources=tuple(Source(str(kind.folder), Description(name=kind.name)) for kind in sources),
            base=str(made[names[0]].base),
            suites=suites,
            compute=Compute(workers=0),
        )
        jobs += submit(store, submission, lambda done, total: None, lambda text: None)
    submission = Submission(
        sources=(Source(str(made["lora"].folder), Description(name="lora")),),
        base=str(made["base"].base),
        suites=suites,
        compute=Compute(workers=0),
        quantisation="int8",
    )
    jobs += submit(store, submission, lambda done, total: None, lambda text: None)
    mergeable = tuple(Source(str(made[name].folder), Description(name=name)) for name in kinds.MERGEABLE)
    submission = Submission(
        sources=mergeable, base=str(made["base"].base), suites=suites, compute=Compute(workers=0), merged=True
    )
    jobs += submit(store, submission, lambda done, total: None, lambda text: None)
    return {"store": store, "jobs": jobs}


def arm_and_plans(scored: dict[str, Any], kind: Kind) -> tuple[Any, list[Plan]]:
    """Return the arm of a kind, and the plans that it was scored on."""
    jobs = [
        job
        for job in scored["jobs"]
        if Path(job.arm.checkpoint.path) == kind.folder
        and job.arm.serving == Serving(merged=kind.merged, quantisation="int8" if kind.int8 else None)
    ]
    assert jobs
    assert {job.state for job in jobs} == {"done"}
    by_digest = {job.planned.plan.digest: job.planned.plan for job in jobs}
    return jobs[0].arm, list(by_digest.values())


@pytest.mark.parametrize("name", [*UNTIED, *TIED, *INT8])
def test_answers_are_those_of_stock_lm_eval(made: dict[str, Kind], scored: dict[str, Any], name: str) -> None:
    kind = made[name]
    arm, plans = arm_and_plans(scored, kind)
    lm = oracle.serve(kinds.load(kind), kind.base)
    for plan in plans:
        responses = scored["store"].responses(arm, plan)
        for request, expected in zip(plan.requests, oracle.ask(lm, plan.requests), strict=True):
            response = responses[request.digest]
            if request.kind == "loglikelihood":
                assert (response.loglikelihood, response.greedy) == (pytest.approx(expected[0], abs=2e-4), expected[1])
            elif request.kind == "loglikelihood_rolling":
                assert response.loglikelihood == pytest.approx(expected, rel=1e-5)
            else:
                assert response.text == expected


@pytest.mark.parametrize("name", [*UNTIED[1:], *TIED[1:], *INT8[1:]])
def test_drift_is_the_divergence_of_whole_distributions(
    made: dict[str, Kind], scored: dict[str, Any], name: str
) -> None:
    kind, store = made[name], scored["store"]
    arm, plans = arm_and_plans(scored, kind)
    if name.removesuffix("-tied") in (*kinds.WITHOUT_WEIGHTS, "alora"):
        pytest.skip("arms on the plain path have no drift")
    (plan,) = (plan for plan in plans if plan.role == "drift")
    (stored,) = (a for a in store.arms() if a.digest == arm.key)
    (drift,) = (d for d in store.drifts([stored.number])[stored.number] if d.suite == "drift")
    base, adapted = kinds.load_base(kind.base, int8=kind.int8), kinds.load(kind)
    lm = oracle.serve(base, kind.base)
    expected = [kl for request in plan.requests for kl in oracle.divergences(base, adapted, lm, request.arguments[0])]
    assert len(drift.kl) == len(expected)
    assert float(drift.kl.mean()) == pytest.approx(float(np.mean(expected)), rel=1e-4)


@pytest.mark.parametrize("name", [*kinds.ADAPTERS, "dotted", "full", *TIED[1:]])
def test_the_change_of_weights_is_that_of_merging(made: dict[str, Kind], name: str) -> None:
    kind = made[name]
    _, (checkpoint,) = open_checkpoints(str(kind.folder), str(kind.base), Description())
    change = compute_change(checkpoint, str(kind.base), lambda done, total: None)
    if name.removesuffix("-tied") in (
        *kinds.WITHOUT_WEIGHTS,
        "replicated",
    ):  # a repeated layer's change belongs to no tensor of the base
        assert change.tensors == ()
        return
    before = kinds.load_base(kind.base).state_dict()
    merged = Kind(kind.name, kind.base, kind.folder, merged=kind.is_adapter)
    after = kinds.add_factors(kind, before) if name == "alora" else kinds.load(merged).state_dict()
    moved = {key: float((after[key].double() - before[key].double()).norm()) for key in before}
    moved = {key: norm for key, norm in moved.items() if norm > 0}
    if name.endswith("-tied"):
        moved.pop("lm_head.weight", None)  # the same tensor as the embedding
    assert {tensor.name: tensor.norm for tensor in change.tensors} == pytest.approx(moved, rel=1e-4)


@pytest.mark.parametrize("name", [*UNTIED, *TIED, *INT8])
def test_tokens_per_query_are_those_of_its_prompts(made: dict[str, Kind], scored: dict[str, Any], name: str) -> None:
    arm, plans = arm_and_plans(scored, made[name])
    (stored,) = (a for a in scored["store"].arms() if a.digest == arm.key)
    tokenizer = AutoTokenizer.from_pretrained(made[name].base)
    prompts = [request.arguments[0] for plan in plans if plan.role == "domain" for request in plan.requests]
    expected = np.mean([len(tokenizer(prompt.rstrip())["input_ids"]) for prompt in prompts])
    assert stored.checkpoint.cost.tokens_per_query == pytest.approx(float(expected))


# ------------------------------------------------------------------------------------------------- one after another


def every_triple(names: Sequence[str]) -> list[str]:
    """Return a shortest sequence in which every ordered triple of names stands somewhere (de Bruijn 1946)."""
    k, n = len(names), 3
    a, sequence = [0] * k * n, []

    def extend(t: int, p: int) -> None:
        if t > n:
            if n % p == 0:
                sequence.extend(a[1 : p + 1])
            return
        a[t] = a[t - p]
        extend(t + 1, p)
        for j in range(a[t - p] + 1, k):
            a[t] = j
            extend(t + 1, t)

    extend(1, 1)
    return [names[i] for i in [*sequence, *sequence[:2]]]


def test_every_triple_is_in_the_sequence() -> None:
    names = "abcd"
    sequence = every_triple(names)
    assert len(sequence) == 4**3 + 2
    triples = set(zip(sequence, sequence[1:], sequence[2:], strict=False))
    assert triples == set(itertools.product(names, repeat=3))


def test_each_kind_is_itself_after_every_two_others(made: dict[str, Kind]) -> None:
    opened: dict[str, tuple[Checkpoint, Serving]] = {}
    expected: dict[str, torch.Tensor] = {}
    ids = torch.tensor([random.Random(3).choices(range(360), k=12)])
    chosen = ("base", "full", "replicated", "olora", "saved", "prompt")
    for name in chosen:
        kind = made[name]
        if kind.folder == kind.base:
            checkpoint = open_base(str(kind.base))
        else:
            _, (checkpoint,) = open_checkpoints(str(kind.folder), str(kind.base), Description())
        opened[name] = checkpoint, Serving(merged=kind.merged)
        with torch.inference_mode():
            expected[name] = kinds.load(kind)(ids).logits
    resident = Resident("cpu", "float32")
    for name in every_triple(chosen):
        model = resident.hold(*opened[name])
        with torch.inference_mode():
            torch.testing.assert_close(model(ids).logits, expected[name], rtol=0, atol=2e-4)


def test_an_adapter_that_is_another_model_at_every_load_is_refused(
    made: dict[str, Kind], tmp_path: Path, evalsvc: Run
) -> None:
    base, config = made["base"].base, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa_niter_2")
    folder = tmp_path / "pissa"
    peft.get_peft_model(kinds.load_base(base), config).save_pretrained(str(folder))
    refused = evalsvc("submit", folder, "--base", base, "--suite", "valley", "--db", tmp_path / "s.duckdb")
    assert refused.code == 2
    assert "its initialisation pissa_niter_2 is random" in refused.err
