"""What is wrong with a suite is said before anything is scored; what lm-eval leaves to its caller is settled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from evalsvc.errors import SuiteError
from evalsvc.harness import tasks as harness_tasks
from evalsvc.harness.documents import choose_documents
from evalsvc.harness.plan import plan
from evalsvc.harness.suites import Suite
from evalsvc.harness.tasks import load
from evalsvc.records.plans import Plan, Rendering
from evalsvc.settings import cache_dir
from tests.support.tasks import CHOICE, MEAN, write_task

ROWS = [{"query": f"q{i}", "choices": ["a", "b"], "gold": i % 2} for i in range(12)]


def suite(folder: Path, *tasks: str | dict[str, Any], **more: Any) -> Suite:
    return Suite.model_validate({"name": "s", "role": "general", "include": [folder], "tasks": list(tasks), **more})


def planned(folder: Path, *tasks: str | dict[str, Any], **more: Any) -> Plan:
    return plan(load(suite(folder, *tasks, **more)), Rendering()).plan


# ---------------------------------------------------------------------------------------------------------- bad input


def test_an_unknown_task_is_named_with_its_nearest_neighbours(task_folder: Path) -> None:
    with pytest.raises(SuiteError, match=r"unknown task 'mc_shot'; did you mean mc_shots"):
        load(suite(task_folder, "mc_shot"))


def test_a_task_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    """lm-eval passes over it in silence."""
    text = "task: t\ndataset_path: json\nprocess_docs: !function utils.docs\ndoc_to_text: {{query}}\n"
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(SuiteError, match=r"unknown task 't': .*other\.yaml: not valid YAML at line 4: .*in quotes"):
        load(suite(tmp_path, "t"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"task": "mc", "metric": "f2"}, "has no metric 'f2', only acc, acc_norm"),
        ({"task": "gen", "filter": "lax"}, "has no filter 'lax', only loose, strict"),
    ],
)
def test_an_unknown_metric_or_filter_lists_those_there_are(
    task_folder: Path, entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(SuiteError, match=message):
        planned(task_folder, entry)


@pytest.mark.parametrize(
    ("gold", "message"),
    [(2, "document 3: gold 2 is out of range for 2 choices"), (-1, "document 3: gold -1 is out of range")],
)
def test_a_gold_out_of_range_is_refused(tmp_path: Path, gold: int, message: str) -> None:
    rows = [{**row, "gold": gold} if i == 3 else row for i, row in enumerate(ROWS)]
    write_task(tmp_path, "t", rows, **CHOICE)
    with pytest.raises(SuiteError, match=message):
        planned(tmp_path, "t")


def test_a_gold_field_that_does_not_exist_is_refused_not_scored_zero(tmp_path: Path) -> None:
    write_task(tmp_path, "t", ROWS, **{**CHOICE, "doc_to_target": "gould"})
    with pytest.raises(SuiteError, match="gold 'gould' is not among its choices"):
        planned(tmp_path, "t")
    config = {"output_type": "generate_until", "doc_to_text": "{{query}}", "doc_to_target": "gould"}
    write_task(tmp_path, "u", ROWS, **config, metric_list=[{"metric": "exact_match", **MEAN}])
    with pytest.raises(SuiteError, match="'gould' is not a field of its data"):
        planned(tmp_path, "u")


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    path = write_task(tmp_path, "t", ROWS, **CHOICE)
    (tmp_path / "data" / "t.jsonl").unlink()
    with pytest.raises(SuiteError, match=r"task t cannot be loaded: .*data/t.jsonl"):
        load(suite(tmp_path, "t"))
    assert path.exists()


def test_a_task_that_comes_in_twice_is_refused(task_folder: Path) -> None:
    with pytest.raises(SuiteError, match="task member_a is included twice, by 'family' and 'member_a'"):
        load(suite(task_folder, "family", "member_a"))


def test_shots_that_lm_eval_would_ignore_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, "t", ROWS, **CHOICE, num_fewshot=0)
    with pytest.raises(SuiteError, match="lm-eval would ignore shots: 5"):
        load(suite(tmp_path, {"task": "t", "shots": 5}))
    assert planned(tmp_path, "t", defaults={"shots": 5}).tasks[0].shots == 0


def test_code_beside_a_task_runs_only_if_allowed(tmp_path: Path) -> None:
    path = write_task(tmp_path, "t", ROWS, **CHOICE)
    path.write_text(path.read_text() + "process_docs: !function helper.process\n")
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n\ndef process(docs):\n    return docs\n"
    (tmp_path / "helper.py").write_text(code)
    with pytest.raises(SuiteError, match=r"runs its own Python code .* --allow-task-code"):
        load(suite(tmp_path, "t"))
    assert not (tmp_path / "ran").exists()
    assert load(suite(tmp_path, "t"), allow_task_code=True).tasks[0].runs_code
    assert (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------------------ groups, files


def test_groups_and_tags_expand_to_their_tasks(task_folder: Path) -> None:
    family = planned(task_folder, {"task": "family", "weight": 3.0})
    assert [(t.name, t.group) for t in family.tasks] == [("member_a", "family"), ("member_b", "family")]
    assert [t.weight for t in family.tasks] == pytest.approx([3 * 10 / 16, 3 * 6 / 16])
    multi = planned(task_folder, "multi")
    assert [(t.name, t.group, t.weight) for t in multi.tasks] == [("mc", None, 1.0), ("mc_shots", None, 1.0)]


def test_data_files_are_relative_to_the_tasks_yaml(
    task_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(planned(task_folder, "mc").tasks[0].samples) == 24


def test_changed_data_with_an_unchanged_time_is_read_anew(tmp_path: Path) -> None:
    write_task(tmp_path, "t", ROWS, **CHOICE)
    file = tmp_path / "data" / "t.jsonl"
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    first = planned(tmp_path, "t")
    file.write_text(file.read_text().replace("q11", "Q11"))
    os.utime(file, ns=times)
    second = planned(tmp_path, "t")
    assert "Q11" in second.tasks[0].samples[11].doc
    assert first.digest != second.digest
    assert first.suite_digest != second.suite_digest


# ------------------------------------------------------------------------------------ few-shot determinism and limits


def test_plans_are_reproducible_whatever_was_drawn_or_planned_before(task_folder: Path) -> None:
    import random

    first = planned(task_folder, "mc_shots")
    random.random()
    planned(task_folder, "mc")
    assert planned(task_folder, "mc_shots").digest == first.digest
    # ... and do not depend on the company a task keeps.
    together = planned(task_folder, "mc", "mc_shots", "cloze")
    assert together.tasks[1].samples == first.tasks[0].samples


def test_another_seed_gives_other_shots_never_cached_ones(task_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = task_folder / "lm_cache"
    monkeypatch.setenv("LM_HARNESS_CACHE_PATH", str(cache))
    first = planned(task_folder, "mc_shots", defaults={"seed": 1})
    second = planned(task_folder, "mc_shots", defaults={"seed": 2})
    assert {r.arguments[0] for r in first.requests}.isdisjoint({r.arguments[0] for r in second.requests})
    assert not cache.exists()


def test_a_limit_is_a_seeded_random_sample_and_grows_by_inclusion(task_folder: Path) -> None:
    few = planned(task_folder, {"task": "mc", "limit": 6}).tasks[0].samples
    more = planned(task_folder, {"task": "mc", "limit": 12}).tasks[0].samples
    everything = planned(task_folder, {"task": "mc", "limit": 500}).tasks[0].samples
    ids = [sample.doc_id for sample in few]
    assert ids == sorted(ids) != list(range(6))
    assert set(few) < set(more) < set(everything)
    assert len(everything) == 24
    assert planned(task_folder, {"task": "mc", "limit": 6}).tasks[0].samples == few
    assert choose_documents(range(24), 6, 99, "mc") != ids


def test_a_limit_of_one_is_one_document(task_folder: Path) -> None:
    assert len(planned(task_folder, {"task": "mc", "limit": 1}).tasks[0].samples) == 1


def test_sample_ids_name_their_own_documents(task_folder: Path) -> None:
    everything = {s.doc_id: s for s in planned(task_folder, "mc_shots").tasks[0].samples}
    for sample in planned(task_folder, {"task": "mc_shots", "limit": 7}).tasks[0].samples:
        assert sample == everything[sample.doc_id]


def test_equal_documents_are_different_samples(tmp_path: Path) -> None:
    write_task(tmp_path, "t", [ROWS[0]] * 3, **CHOICE)
    found = planned(tmp_path, "t")
    assert len({sample.digest for sample in found.tasks[0].samples}) == 3
    assert len(found.requests) == 2  # but are asked once


def test_lm_evals_index_is_read_once_per_version_and_a_damaged_copy_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = harness_tasks._stock_index()
    assert len(made) > 10_000
    (file,) = (cache_dir() / "lm-eval").iterdir()
    text = file.read_text()

    class ReadAgainError(Exception):
        pass

    def read() -> None:
        raise ReadAgainError

    monkeypatch.setattr(harness_tasks, "TaskManager", read)
    harness_tasks._stock_index.cache_clear()
    assert harness_tasks._stock_index() == made
    file.write_text(text[: len(text) // 2])
    harness_tasks._stock_index.cache_clear()
    with pytest.raises(ReadAgainError):
        harness_tasks._stock_index()
    file.write_text(text)
