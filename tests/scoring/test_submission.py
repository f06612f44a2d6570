"""What a submission refuses, what it asks for, and what it keeps, before it scores."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from evalsvc.errors import CheckpointError, SuiteError
from evalsvc.scoring.submission import Source, Submission
from evalsvc.scoring.submit import prepare, submit
from evalsvc.settings import Compute
from evalsvc.store.checkpoint_facts import CheckpointFacts
from evalsvc.store.store import Store
from tests.support import tiny
from tests.support.commands import Run
from tests.support.tasks import CHOICE, write_task


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("suite")
    rows = [{"query": "the cat sat on the mat " * n, "choices": [" dog", " cat"], "gold": 0} for n in (1, 2, 90)]
    write_task(folder, "choice", rows, **CHOICE)
    (folder / "s.yaml").write_text(f"name: s\nrole: general\ninclude: {folder}\ntasks: [choice]\n")
    return str(folder / "s.yaml")


def run(db: Path, source: Path, base: Path, suite: str, **options: Any) -> tuple[list[Any], list[str]]:
    notes: list[str] = []
    wanted = Submission(
        sources=(Source(str(source)),), base=str(base), suites=(suite,), compute=Compute(workers=0, device="cpu")
    )
    jobs = submit(Store(db), replace(wanted, **options), lambda done, total: None, notes.append)
    return jobs, notes


def test_warnings_are_noted_and_kept(models: Path, db: Path, suite: str) -> None:
    jobs, notes = run(db, models / "lora", models / "base", suite)
    assert {job.state for job in jobs} == {"done"}
    (warning,) = [note for note in notes if note.startswith("warning")]
    assert "base: its context window is shorter than prompts of suite s: 1 of 3 samples" in warning
    kept = CheckpointFacts(db).findings(jobs[0].arm.checkpoint)
    assert [finding.check for finding in kept] == ["vocabulary", "window"]
    assert "probing new arms" in notes
    again, notes = run(db, models / "lora", models / "base", suite)
    assert "probing new arms" not in notes
    assert {job.state for job in again} == {"done"}


def test_a_comparison_says_which_suites_were_truncated(
    models: Path, db: Path, suite: str, evalsvc: Run, tmp_path: Path
) -> None:
    """Also of a suite that was submitted after the arms had been scored on another one."""
    rows = [{"query": "the cat", "choices": [" dog", " cat"], "gold": 0}]
    write_task(tmp_path, "short", rows, **CHOICE)
    (tmp_path / "f.yaml").write_text(f"name: f\nrole: general\ninclude: {tmp_path}\ntasks: [short]\n")
    truncated = "its context window is shorter than prompts of suite s: 1 of 3 samples are truncated from the left"
    for suites, texts in (((str(tmp_path / "f.yaml"),), []), ((suite,), [truncated])):
        run(db, models / "lora", models / "base", suite, suites=suites)
        warnings = evalsvc("compare", "lora", "--db", db, "--json").json["warnings"]
        assert [(w["checkpoint"], w["suite"], w["text"].split(" (")[0]) for w in warnings] == [
            ("base", "s", text) for text in texts
        ]
    run(db, models / "lora", models / "base", suite, suites=(str(tmp_path / "f.yaml"),), rerun=True)
    assert f"warning: base: {truncated}" in " ".join(evalsvc("compare", "lora", "--db", db).out.split())
    assert evalsvc("compare", "lora", "--suite", "f", "--db", db, "--json").json["warnings"] == []
    kept = CheckpointFacts(db).findings(Store(db).arms()[0].checkpoint)  # the suite that was not submitted again, too
    assert sorted(finding.check for finding in kept) == ["vocabulary", "window"]


def test_an_error_refuses_and_stores_nothing(models: Path, db: Path, suite: str, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(models / "base")
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(str(tmp_path / "zero"))
    with pytest.raises(CheckpointError, match="checkpoint zero: its change is exactly zero"):
        run(db, tmp_path / "zero", models / "base", suite)
    assert not db.exists()


def test_what_only_logits_tell_refuses_too(models: Path, db: Path, suite: str, tmp_path: Path) -> None:
    from peft import IA3Config

    kind = IA3Config(target_modules=["q_proj"], feedforward_modules=[])
    get_peft_model(LlamaForCausalLM.from_pretrained(models / "base"), kind).save_pretrained(str(tmp_path / "ones"))
    with pytest.raises(CheckpointError, match="checkpoint ones: its log-likelihoods equal its base's"):
        run(db, tmp_path / "ones", models / "base", suite)
    assert not db.exists()


def test_chat_templates_that_differ_need_a_choice(models: Path, db: Path, suite: str, tmp_path: Path) -> None:
    chat = Path(shutil.copytree(models / "full", tmp_path / "chat"))
    tiny.make_tokenizer(tiny.CHAT).save_pretrained(chat)
    jobs, lines = run(db, chat, models / "base", suite)  # no suite wants a template
    assert "rendering: s: plain prompts, no chat template" in lines
    assert not any("--rendering" in line for line in lines)
    db.unlink()
    asks_in_a_chat = tmp_path / "on.yaml"
    asks_in_a_chat.write_text(Path(suite).read_text() + "chat_template: on\n")
    suite = str(asks_in_a_chat)
    with pytest.raises(CheckpointError, match=r"the base has none; choose .* --rendering adapted or plain"):
        run(db, chat, models / "base", suite)
    with pytest.raises(SuiteError, match="requires a chat template, and base has none"):
        run(db, chat, models / "base", suite, rendering="base")
    assert not db.exists()
    prompts = {}
    for choice in ("adapted", "plain"):
        jobs, lines = run(db, chat, models / "base", suite, rendering=choice)
        plans = {job.planned.plan.digest for job in jobs}
        assert len(plans) == 1  # both arms are asked the same
        prompts[choice] = jobs[0].planned.plan.requests[0].arguments[0]
    assert prompts["adapted"].startswith("<user>")
    assert "<user>" not in prompts["plain"]


def test_templates_of_several_checkpoints_cannot_all_be_chosen(
    models: Path, db: Path, suite: str, tmp_path: Path
) -> None:
    sources = []
    for number, template in enumerate((tiny.CHAT, tiny.CHAT + "!")):
        folder = Path(shutil.copytree(models / "full", tmp_path / f"chat{number}"))
        tiny.make_tokenizer(template).save_pretrained(folder)
        sources.append(Source(str(folder)))
    with pytest.raises(CheckpointError, match="2 adapted checkpoints have different chat templates"):
        run(db, models / "lora", models / "base", suite, sources=tuple(sources), rendering="adapted")


def test_a_hub_id_that_is_not_in_the_cache(db: Path, suite: str, models: Path) -> None:
    with pytest.raises(
        CheckpointError, match="fill the cache on a machine with network: hf download org/lora --revision v2"
    ):
        run(db, Path("org/lora@v2"), models / "base", suite)


def test_it_is_said_how_every_suite_is_rendered(
    models: Path, db: Path, suite: str, task_folder: Path, tmp_path: Path
) -> None:
    chat = Path(shutil.copytree(models / "base", tmp_path / "chat"))
    tiny.make_tokenizer(tiny.SWITCHED).save_pretrained(chat)
    for name, more in (
        ("plain", {"tasks": ["gen", "mc"]}),
        ("switched", {"tasks": ["gen"], "chat_template": "on", "template_args": {"enable_thinking": False}}),
        ("texts", {"tasks": ["mc", "roll"], "chat_template": "on"}),
    ):
        content = {"name": name, "role": "general", "include": str(task_folder), **more}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    suites = tuple(str(tmp_path / f"{name}.yaml") for name in ("plain", "switched", "texts"))
    notes: list[str] = []
    sources = (Source(str(chat)),)
    prepare(
        Store(db), Submission(sources=sources, suites=suites, compute=Compute(workers=0)), lambda *_: None, notes.append
    )
    assert (
        "rendering: plain: plain prompts, no chat template; switched: chat template of chat with "
        "enable_thinking=False; texts: chat template of chat"
    ) in notes
    assert any(note.startswith("suite plain: gen of a chat model without its chat template") for note in notes)
    assert any(note.startswith("suite texts: roll continues a text, but is asked in a chat template") for note in notes)
    switches = [note for note in notes if "switches that the suite does not set" in note]
    assert switches == [
        "suite texts: the chat template has switches that the suite does not set: enable_thinking; set them by "
        "template_args"
    ]
