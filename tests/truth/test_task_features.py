"""Every feature of tasks along the path that users take, against `lm_eval.simple_evaluate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsvc.checkpoints.discover import open_base
from evalsvc.records.plans import Request
from evalsvc.scoring.submission import Source, Submission
from evalsvc.scoring.submit import submit
from evalsvc.settings import Compute
from evalsvc.store.store import Store
from tests.support import tiny
from tests.support.harness import stock
from tests.truth.task_features import ENTRIES, write_features

pytestmark = pytest.mark.slow

SYSTEM = ({"system_prompt": "Be brief."}, {"system_instruction": "Be brief."})
RENDERINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "shots": ({"defaults": {"shots": 1}, **SYSTEM[0]}, {"num_fewshot": 1, **SYSTEM[1]}),
    "chat": ({"chat_template": "on", **SYSTEM[0]}, {"apply_chat_template": True, **SYSTEM[1]}),
}
"""Keys of a suite, and the arguments of `simple_evaluate` that mean the same."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth") / "base"
    tiny.make_llama(seed=3, window=512).save_pretrained(folder)
    tiny.make_tokenizer(tiny.CHAT).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_scores_are_those_of_simple_evaluate(
    base: Path, rendering: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_features(tmp_path / "tasks")
    keys, options = RENDERINGS[rendering]
    # lm-eval cannot show examples of which several choices are right.
    entries = tuple(entry for entry in ENTRIES if rendering != "shots" or entry != "golds")
    suite = {"name": "features", "role": "general", "include": "tasks", "tasks": list(entries), **keys}
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(suite))
    store = Store(tmp_path / "store.duckdb")
    submission = Submission(
        sources=(Source(str(base)),),
        suites=(str(tmp_path / "features.yaml"),),
        compute=Compute(workers=0),
        allow_task_code=True,
    )
    (job,) = submit(store, submission, lambda done, total: None, lambda text: None)
    assert job.error is None
    monkeypatch.chdir(tmp_path / "tasks")
    expected = stock(tmp_path / "tasks", open_base(str(base)), entries, {"batch_size": 1}, bootstrap_iters=0, **options)

    known = {request.digest: request for request in job.planned.plan.requests}
    for task in job.planned.plan.tasks:
        samples = expected["samples"][task.name]
        first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
        prompts = [[_texts(known[key]) for key in sample.requests] for sample in task.samples]
        assert prompts == [[_stock_texts(arguments) for arguments in sample["arguments"]] for sample in first], (
            task.name
        )

    table = {
        (task, *key.split(",")): value
        for task, values in {**expected["results"], **expected.get("groups", {})}.items()
        for key, value in values.items()
        if "," in key and "_stderr" not in key
    }
    stored = {(result.task, result.metric, result.filter): result.value for result in store.results()}
    assert stored.keys() == table.keys()
    for key, value in stored.items():
        assert value == pytest.approx(float(table[key]), rel=1e-5, abs=1e-9, nan_ok=True), key
    assert sum(0 < value < 1 for value in stored.values() if not math.isnan(value)) > len(stored) / 3


def _texts(request: Request) -> list[str]:
    return list(request.arguments[:1] if request.kind == "generate_until" else request.arguments)


def _stock_texts(arguments: Any) -> list[str]:
    return [argument for argument in arguments if isinstance(argument, str)]
