"""Files and folders that lm-eval wrote, of every release: what stock lm-eval says is what the store has."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsvc.harness.plan import plan
from evalsvc.harness.suites import Suite
from evalsvc.harness.tasks import load
from evalsvc.records.direction import find_direction
from evalsvc.records.plans import Rendering
from evalsvc.store.store import Store
from tests.support.commands import Done, Run

Values = dict[tuple[str, str], float]
"""(task, "METRIC,FILTER") -> value."""
TASKS = ["mc", "cloze", "roll", "gen", "votes", "family"]


@pytest.fixture(scope="module")
def output(task_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stock lm-eval wrote results and samples to, of a model that knows some answers."""
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    class Model(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return [(-1 - len(r.args[0] + r.args[1]) % 7, len(r.args[1]) % 2 == 0) for r in requests]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [-2.5 * len(r.args[0]) for r in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            words = [r.doc["word"] for r in requests]
            return [(word, word.upper(), f"{word} x", "no")[len(word) % 4] for word in words]

    tracker = EvaluationTracker(output_path=str(tmp_path_factory.mktemp("output")))
    tracker.general_config_tracker.log_experiment_args(
        model_source="hf",
        model_args="pretrained=lab/tiny",
        system_instruction="",
        chat_template="",
        fewshot_as_multiturn=False,
    )
    manager = TaskManager(include_path=str(task_folder), include_defaults=False)
    with contextlib.chdir(task_folder):  # lm-eval looks for data files from the current directory
        results = lm_eval.simple_evaluate(
            Model(), tasks=TASKS, task_manager=manager, bootstrap_iters=0, log_samples=True
        )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, records in samples.items():
        tracker.save_results_samples(task_name=task, samples=records)
    (folder,) = {path.parent for path in Path(str(tracker.output_path)).rglob("results_*.json")}
    return folder


def read_content(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(next(folder.glob("results_*.json")).read_text())
    return content


def list_values(content: dict[str, Any], *names: str) -> Values:
    return {
        (name, key): value
        for name in names
        for key, value in content["results"][name].items()
        if "," in key and "_stderr" not in key
    }


def list_stored(store: Store, groups: bool = False) -> Values:
    return {(r.task, f"{r.metric},{r.filter}"): r.value for r in store.results() if r.is_group == groups}


def run_import(evalsvc: Run, db: Path, *words: str | Path) -> Done:
    return evalsvc("import", "lm-eval", *words, "--suite", "s", "--role", "general", "--db", db, "--json")


def test_a_folder_of_stock_lm_eval_is_one_arm_with_its_numbers(evalsvc: Run, db: Path, output: Path) -> None:
    done = run_import(evalsvc, db, output.parent)
    assert done.code == 0, done.err
    (entry,) = done.json["imported"]
    content, store = read_content(output), Store(db)
    tasks = list(content["configs"])
    assert (entry["arm"], entry["tasks"], entry["notes"]) == ("tiny", len(tasks), [])
    assert list_stored(store) == pytest.approx(list_values(content, *tasks))
    assert list_stored(store, groups=True) == pytest.approx(list_values(content, "family"))
    assert {r.task: r.n for r in store.results()} == {
        **{name: content["n-samples"][name]["effective"] for name in tasks},
        "family": content["results"]["family"]["sample_len"],
    }
    assert not {r.metric for r in store.results() if r.higher_is_better} & {
        "perplexity",
        "bits_per_byte",
        "word_perplexity",
    }


def rewrite(output: Path, folder: Path, style: str) -> list[str | Path]:
    """Write a run's files as an older release, or another tool, wrote them; return the words of their import."""
    (results,) = output.glob("results_*.json")
    content = read_content(output)
    files = {
        task: output / f"samples_{task}_{results.stem.removeprefix('results_')}.jsonl" for task in content["configs"]
    }
    records = {task: [json.loads(line) for line in path.read_text().splitlines()] for task, path in files.items()}
    for rows in records.values():
        for row in rows:
            del row["filter"]  # the releases before 0.4.7 do not write it
    if style == "0.4.0":  # an array per task, no hashes, arguments as lists, no section that names directions
        for rows in records.values():
            for row in rows:
                del row["doc_hash"], row["prompt_hash"], row["target_hash"]
                row["arguments"] = [list(request.values()) for request in row["arguments"].values()]
        for section in ("higher_is_better", "n-samples", "group_subtasks"):
            del content[section]
        (folder / "results.json").write_text(json.dumps(content, indent=2))
        for task, rows in records.items():
            (folder / f"pretrained__lab__tiny_{task}.jsonl").write_text(json.dumps(rows, indent=2))
        return [folder, "--name", "tiny"]
    (folder / "results.json").write_text(json.dumps(content))
    words: list[str | Path] = [folder / "results.json", "--name", "tiny"]
    if style == "one object":
        (folder / "all.json").write_text(json.dumps(records))
        return [*words, "--samples", folder / "all.json"]
    for task, rows in records.items():
        ending = "json" if style == "lines in .json" else "jsonl"
        path = folder / f"samples_{task}_2024-08-25T21-59-12.123082.{ending}"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words += ["--samples", path]
    return words


@pytest.mark.parametrize("style", ["0.4.0", "0.4.3", "lines in .json", "one object"])
def test_files_of_every_release_pair_with_those_of_this_one(
    evalsvc: Run, db: Path, output: Path, tmp_path: Path, style: str
) -> None:
    assert run_import(evalsvc, db, output, "--name", "now").code == 0
    now = list_stored(Store(db))
    done = run_import(evalsvc, db, *rewrite(output, tmp_path, style), "--base", "now", "--method", "full")
    assert done.code == 0, done.err
    stored = {
        (r.task, f"{r.metric},{r.filter}"): r.value
        for r in Store(db).results()
        if r.arm.label == "tiny" and not r.is_group
    }
    assert stored == pytest.approx(now)
    compared = evalsvc("compare", "tiny", "--db", db, "--json").json["tasks"]
    assert {task["task"] for task in compared} == set(read_content(output)["configs"])
    assert all(task["coverage"] == 1 and task["difference"] == 0 for task in compared)


def test_named_filters_without_a_key_follow_the_order_of_the_results(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    right = {"strict-match": [1, 0, 0, 1, 0], "flexible-extract": [1, 1, 0, 1, 1]}
    row = {f"exact_match,{name}": sum(values) / 5 for name, values in right.items()}
    results, samples = tmp_path / "r.json", tmp_path / "samples_gsm8k_2024-08-25T21-59-12.123082.jsonl"
    results.write_text(json.dumps({"results": {"gsm8k": row}}))
    records = [
        {
            "doc_id": i,
            "doc": {"q": i},
            "arguments": [[f"q{i}", {}]],
            "filtered_resps": ["1"],
            "exact_match": float(value),
        }
        for values in right.values()
        for i, value in enumerate(values)
    ]
    samples.write_text("".join(json.dumps(record) + "\n" for record in records))
    words: list[str | Path] = [results, "--samples", samples]
    assert run_import(evalsvc, db, *words, "--metric", "exact_match,flexible-extract").code == 0
    assert list_stored(Store(db)) == {("gsm8k", key): value for key, value in row.items()}
    primary = [r.filter for r in Store(db).results() if r.primary]
    assert primary == ["flexible-extract"]
    (scores,) = Store(db).task_scores(1, [])[1]
    assert sorted(scores.values) == sorted(right["flexible-extract"])
    samples.write_text("".join(json.dumps(record) + "\n" for record in [*records[:5], *records[4:]]))
    done = run_import(evalsvc, db, *words)
    assert (done.code, "are not the same documents once for each filter" in done.err) == (5, True)


# ---------------------------------------------------------------------------------------------------------- directions


def write_results(path: Path, metric: str, value: float, **sections: Any) -> Path:
    path.write_text(json.dumps({"results": {"asr": {"alias": "asr", metric: value}}, **sections}))
    return path


CONFIG = {
    "configs": {"asr": {"metric_list": [{"metric": "strange", "aggregation": "mean", "higher_is_better": False}]}}
}


@pytest.mark.parametrize(
    ("metric", "sections", "options", "higher"),
    [
        ("strange,none", CONFIG, [], False),
        ("strange,none", {**CONFIG, "higher_is_better": {"asr": {"strange": True}}}, [], True),
        ("strange,none", {**CONFIG, "higher_is_better": {"asr": {"strange": None}}}, [], False),
        ("strange", {}, ["--lower-is-better", "strange"], False),
        ("strange", {}, ["--higher-is-better", "strange"], True),
        ("cer", {}, [], False),
        ("ter,none", {}, [], False),
        ("likelihood_difference", {}, [], False),
        ("pct_stereotype", {}, [], False),
        ("rougeL", {}, [], True),
    ],
)
def test_a_direction_is_the_files_else_lm_evals_else_the_users(
    evalsvc: Run, db: Path, tmp_path: Path, metric: str, sections: dict[str, Any], options: list[str], higher: bool
) -> None:
    done = run_import(evalsvc, db, write_results(tmp_path / "a.json", metric, 0.4, **sections), *options)
    assert done.code == 0, done.err
    assert [r.higher_is_better for r in Store(db).results()] == [higher]


def test_twice_the_errors_is_worse(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    config = {
        "configs": {"asr": {"metric_list": [{"metric": "cer", "aggregation": "mean", "higher_is_better": False}]}}
    }
    for name, rates in (("base", [0.1, 0.2, 0.3] * 4), ("lora", [0.2, 0.4, 0.6] * 4)):
        results = write_results(tmp_path / f"{name}.json", "cer,none", sum(rates) / 12, **config)
        samples = tmp_path / f"{name}.jsonl"
        records = [{"doc_id": i, "doc": {"q": i}, "arguments": [[f"a{i}", "b"]], "cer": r} for i, r in enumerate(rates)]
        samples.write_text("".join(json.dumps(record) + "\n" for record in records))
        samples = samples.rename(tmp_path / f"samples_asr_2024-01-0{1 + (name == 'lora')}T10-00-00.000000.jsonl")
        base = ["--base", "base", "--method", "lora"] if name == "lora" else []
        assert run_import(evalsvc, db, results, "--samples", samples, "--name", name, *base).code == 0
    compared = evalsvc("compare", "lora", "--db", db, "--json").json
    (task,), (role,) = compared["tasks"], compared["roles"]
    assert (task["base"], task["adapted"], task["difference"]) == pytest.approx((0.2, 0.4, 0.2))
    assert role["difference"] == pytest.approx(-0.2)


def test_an_unknown_direction_is_refused_or_left_out_by_name(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    done = run_import(evalsvc, db, write_results(tmp_path / "a.json", "strange", 0.4))
    assert (done.code, "--lower-is-better strange" in done.err) == (2, True)
    assert not db.exists()
    (tmp_path / "b.json").write_text(json.dumps({"results": {"asr": {"acc": 0.5, "strange": 0.4}}}))
    (entry,) = run_import(evalsvc, db, tmp_path / "b.json").json["imported"]
    assert [r.metric for r in Store(db).results()] == ["acc"]
    assert re.search("strange of 1 task is left out: .* --lower-is-better strange", entry["notes"][0])
    done = run_import(evalsvc, db, tmp_path / "b.json", *("--lower-is-better", "acc", "--higher-is-better", "acc"))
    assert (done.code, "declare one" in done.err) == (2, True)


def list_declared() -> Iterator[tuple[str, bool]]:
    """Yield metric and direction of every task file of the installed lm-eval."""
    import lm_eval.tasks

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    for path in Path(lm_eval.tasks.__file__).parent.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "higher_is_better" in text:
            content = yaml.load(text, Loader)
            for entry in (content or {}).get("metric_list") or []:
                if isinstance(entry.get("metric"), str) and isinstance(entry.get("higher_is_better"), bool):
                    yield entry["metric"], entry["higher_is_better"]


def test_the_directions_that_are_known_by_name_are_lm_evals() -> None:
    from lm_eval.api.registry import HIGHER_IS_BETTER_REGISTRY

    registry = dict(HIGHER_IS_BETTER_REGISTRY.items())
    assert {name: find_direction(name) for name in registry if name != "bypass"} == {
        name: higher for name, higher in registry.items() if name != "bypass"
    }


@pytest.mark.slow
def test_no_task_of_lm_eval_declares_a_known_metric_the_other_way() -> None:
    declared = set(list_declared())
    assert len(declared) > 100
    wrong = {(metric, higher) for metric, higher in declared if find_direction(metric) not in (None, higher)}
    assert not wrong


# ------------------------------------------------------------------------------------------------------ groups, samples


SUBJECTS = [f"mmlu_{name}" for name in ("law", "virology", "anatomy", "history")]
MMLU: dict[str, Any] = {
    "results": {
        "mmlu": {"acc,none": 0.55, "acc_stderr,none": 0.01, "alias": "mmlu"},
        "mmlu_stem": {"acc,none": 0.5, "acc_stderr,none": 0.01, "alias": " - stem"},
        "mmlu_rest": {" ": " ", "alias": " - rest"},
        **{name: {"acc,none": 0.4 + 0.1 * i, "alias": name} for i, name in enumerate(SUBJECTS)},
    },
    "groups": {"mmlu": {"acc,none": 0.55}, "mmlu_stem": {"acc,none": 0.5}},
    "group_subtasks": {"mmlu": ["mmlu_stem", "mmlu_rest"], "mmlu_stem": SUBJECTS[:2], "mmlu_rest": SUBJECTS[2:]},
    "configs": {name: {} for name in SUBJECTS},
    "n-samples": {name: {"original": 200, "effective": 100 + i} for i, name in enumerate(SUBJECTS)},
}


@pytest.mark.parametrize("kept", [("groups", "group_subtasks"), ("groups",), ("group_subtasks",), ("configs",)])
def test_group_rows_are_no_tasks(evalsvc: Run, db: Path, tmp_path: Path, kept: tuple[str, ...]) -> None:
    """Releases differ in the sections that tell groups from tasks."""
    content = {name: MMLU[name] for name in ("results", "n-samples", *kept)}
    content["results"] = {
        name: row for name, row in MMLU["results"].items() if name != "mmlu_rest" or kept != ("groups",)
    }
    (tmp_path / "r.json").write_text(json.dumps(content))
    (entry,) = run_import(evalsvc, db, tmp_path / "r.json").json["imported"]
    assert (entry["tasks"], entry["notes"]) == (4, [])
    results = Store(db).results()
    assert {r.task: r.n for r in results if not r.is_group} == {name: 100 + i for i, name in enumerate(SUBJECTS)}
    assert {r.task: r.value for r in results if r.is_group} == {"mmlu": 0.55, "mmlu_stem": 0.5}


def test_a_groups_name_selects_its_tasks(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(MMLU))
    assert run_import(evalsvc, db, tmp_path / "r.json", "--task", "mmlu_rest").json["imported"][0]["tasks"] == 2
    assert {r.task for r in Store(db).results()} == set(SUBJECTS[2:])


def test_samples_that_belong_to_no_task_are_refused(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    results = write_results(tmp_path / "r.json", "acc,none", 1.0)
    record = json.dumps({"doc_id": 0, "doc": {}, "arguments": [["a", "b"]], "acc": 1.0}) + "\n"
    other, same, twin, old = (
        tmp_path / f"samples_{name}.jsonl"
        for name in (
            "voice_2025-01-31T12-00-00.000000",
            "asr_2025-01-31T12-00-00.000000",
            "asr_2025-02-01T12-00-00",
            "asr",
        )
    )
    for path in (other, same, twin, old):
        path.write_text(record)
    done = run_import(evalsvc, db, results, "--samples", other)
    assert (done.code, "has samples of 'voice', which is no task of" in done.err) == (2, True)
    done = run_import(evalsvc, db, results, "--samples", same, "--samples", twin)
    assert (done.code, "give one of the two" in done.err) == (2, True)
    for path in (same, old):
        assert run_import(evalsvc, db, results, "--samples", path).json["imported"][0]["items"] == 1
    for text, message in (
        ("[1]", "has no samples"),
        ("", "has no sample of asr"),
        ("{}\n{", "line 2: is not valid JSON"),
    ):
        old.write_text(text)
        done = run_import(evalsvc, db, results, "--samples", old)
        assert message in done.err


def test_samples_of_tasks_that_are_not_imported_are_named(evalsvc: Run, db: Path, output: Path) -> None:
    (entry,) = run_import(evalsvc, db, output, "--task", "mc").json["imported"]
    assert entry["items"] == 24
    assert entry["notes"] == [
        "samples of cloze, gen, member_a, member_b, roll, votes are left out, as --task leaves these tasks out"
    ]


# ------------------------------------------------------------------------------------------------ an arm in two imports


def import_suite(evalsvc: Run, db: Path, file: Path, suite: str, *words: str) -> Done:
    return evalsvc("import", "lm-eval", file, "--suite", suite, "--role", "general", "--db", db, *words)


def test_two_suites_of_one_arm_in_two_imports_are_one_arm(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    files = {}
    for name, task, value in (("b1", "copa", 0.6), ("b2", "piqa", 0.7), ("l1", "copa", 0.5), ("l2", "piqa", 0.8)):
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(json.dumps({"results": {task: {"acc,none": value, "acc_stderr,none": 0.01}}}))
    lora = ["--name", "lora", "--base", "base", "--method", "lora"]
    for number, suite in ((1, "causes"), (2, "physics")):
        assert import_suite(evalsvc, db, files[f"b{number}"], suite, "--name", "base").code == 0
        words = lora if number == 1 else ["--name", "lora"]  # base and method are known
        assert import_suite(evalsvc, db, files[f"l{number}"], suite, *words).code == 0
    assert [(arm.label, arm.checkpoint.method) for arm in Store(db).arms()] == [("base", "base"), ("lora", "lora")]
    assert {(r.suite, r.value) for r in Store(db).results() if r.arm.label == "lora"} == {
        ("causes", 0.5),
        ("physics", 0.8),
    }
    assert import_suite(evalsvc, db, files["l2"], "physics", "--name", "lora").code == 0  # the same once more
    for words, message in (
        (["--name", "lora", "--method", "full"], "is in the store with method 'lora'"),
        (["--name", "lora"], r"copa, which is not in this import"),
        (["--name", "base"], r"copa, which is not in this import"),
    ):
        done = import_suite(evalsvc, db, files["l2"], "causes", *words)
        assert (done.code, message in done.err) == (2, True), done.err
    files["l1"].write_text(json.dumps({"results": {"copa": {"acc,none": 0.9}}}))
    done = import_suite(evalsvc, db, files["l1"], "causes", "--name", "lora")
    assert (done.code, "has results on suite causes already (copa acc 0.5, and now 0.9)" in done.err) == (2, True)


# ------------------------------------------------------------------------------------------------------- first metrics


def test_comparisons_use_the_metric_that_submit_would_use(
    evalsvc: Run, db: Path, output: Path, task_folder: Path
) -> None:
    suite = Suite.model_validate({"name": "s", "role": "general", "include": [task_folder], "tasks": TASKS})
    planned = plan(load(suite), Rendering()).plan
    assert run_import(evalsvc, db, output).code == 0
    primary = {r.task: (r.metric, r.filter) for r in Store(db).results() if r.primary}
    assert primary == {task.name: (task.metrics[0].name, task.metrics[0].filter) for task in planned.tasks}


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({"metric_list": [{"metric": "acc_norm"}, {"metric": "acc"}]}, "acc_norm,b"),
        (
            {"metric_list": [{"metric": "acc_norm"}], "filter_list": [{"name": "a"}, {"name": "b"}]},
            "acc_norm,a",
        ),
        ({"metric_list": [{"metric": "def my_acc(items): ..."}, {"metric": "acc_norm"}]}, "acc,b"),
        ({"metric_list": None}, "acc,b"),
        (None, "acc,b"),
    ],
)
def test_the_first_metric_is_the_configurations_else_the_rows(
    evalsvc: Run, db: Path, tmp_path: Path, config: dict[str, Any] | None, first: str
) -> None:
    content: dict[str, Any] = {"results": {"t": {"acc,b": 0.1, "acc_norm,b": 0.2, "acc,a": 0.3, "acc_norm,a": 0.4}}}
    content |= {} if config is None else {"configs": {"t": config}}
    (tmp_path / "r.json").write_text(json.dumps(content))
    assert run_import(evalsvc, db, tmp_path / "r.json").code == 0
    assert [f"{r.metric},{r.filter}" for r in Store(db).results() if r.primary] == [first]


def write_run(folder: Path, name: str, values: list[Any], **options: Any) -> list[str | Path]:
    """Write results and samples of a task with two metrics, and return the words of their import.

    Args:
        options: Further keys of all records; `order`: of the records; `published`: acc and acc_norm of the results.
    """
    folder.mkdir(exist_ok=True)
    order = options.pop("order", range(len(values)))
    acc, acc_norm = options.pop("published", None) or (sum(values) / len(values), 0.5)
    (folder / f"{name}.json").write_text(json.dumps({"results": {"t": {"acc,none": acc, "acc_norm,none": acc_norm}}}))
    records = [
        {
            "doc_id": i,
            "doc": {"q": f"question {i}"},
            "arguments": [[f"question {i}", "a"]],
            "acc": value,
            "acc_norm": float(i % 2),
            **options,
        }
        for i, value in enumerate(values)
    ]
    samples = folder / f"samples_t_2025-01-01T00-00-0{len(name)}.000000.jsonl"
    samples.write_text("".join(json.dumps(records[i]) + "\n" for i in order))
    return [folder / f"{name}.json", "--samples", samples, "--name", name]


def test_an_import_with_another_metric_than_its_bases_is_refused(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    base, lora = (write_run(tmp_path, name, [1.0, 0.0]) for name in ("base", "lo"))
    assert run_import(evalsvc, db, *base, "--metric", "acc_norm").code == 0  # what imports of 0.1.0 took
    assert run_import(evalsvc, db, *lora, "--base", "base", "--method", "lora").code == 0
    done = evalsvc("compare", "lo", "--db", db)
    assert done.code == 5
    assert "scored by acc_norm (none) and acc (none)" in done.err
    assert "import both again" in done.err
    assert run_import(evalsvc, db, *base).code == 0  # the advice
    (task,) = evalsvc("compare", "lo", "--db", db, "--json").json["tasks"]
    assert (task["metric"], task["n"], task["difference"]) == ("acc", 2, 0)


# ------------------------------------------------------------------------------------------------------ damaged samples


@pytest.mark.parametrize(
    ("values", "published", "message"),
    [
        ([1.0, float("nan"), 0.0, 0.0], (0.25, 0.5), "acc of document 1 is NaN, must be a number"),
        ([1.0, float("inf"), 0.0, 0.0], (0.25, 0.5), "acc of document 1 is Infinity, must be a number"),
        (["1.0", "0.0", "0.0", "0.0"], (0.25, 0.5), 'acc of document 0 is the text "1.0", must be a number'),
        ([1.0, 0.0, "0.0", 0.0], (0.25, 0.5), 'acc of document 2 is the text "0.0", must be a number'),
    ],
)
def test_samples_that_are_no_numbers_are_named(
    evalsvc: Run, db: Path, tmp_path: Path, values: list[Any], published: tuple[float, float], message: str
) -> None:
    done = run_import(evalsvc, db, *write_run(tmp_path, "base", values, published=published))
    assert done.code in (2, 5)
    assert message in done.err
    assert done.err.count("\n") == 1


def test_items_are_paired_by_content_whatever_their_ids_and_order(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    right = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    wrong = [0.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    lost, gained = 2, 1  # of these two lists, by eye
    base = write_run(tmp_path, "base", right, doc_id=0)  # one id for six documents
    lora = write_run(tmp_path, "lo", wrong, order=[5, 3, 1, 0, 2, 4])
    assert run_import(evalsvc, db, *base).json["imported"][0]["items"] == 6
    assert run_import(evalsvc, db, *lora, "--base", "base", "--method", "lora").code == 0
    (task,) = evalsvc("compare", "lo", "--db", db, "--json").json["tasks"]
    assert (task["n"], task["lost"], task["gained"], task["coverage"]) == (6, lost, gained, 1)


def test_equal_items_are_paired_by_their_ids(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    same = {"doc": {"q": "the same"}, "arguments": [["the same", "a"]]}
    base = write_run(tmp_path, "base", [1.0, 0.0], **same)
    lora = write_run(tmp_path, "lo", [1.0, 0.0], order=[1, 0], **same)
    assert run_import(evalsvc, db, *base).json["imported"][0]["items"] == 2
    assert run_import(evalsvc, db, *lora, "--base", "base", "--method", "lora").code == 0
    (task,) = evalsvc("compare", "lo", "--db", db, "--json").json["tasks"]
    assert (task["lost"], task["gained"]) == (0, 0)


def test_a_sample_that_is_there_twice_is_refused(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    done = run_import(evalsvc, db, *write_run(tmp_path, "base", [0.0, 0.0], order=[0, 1, 1]))
    assert (done.code, "has the sample of document 1 of t twice" in done.err) == (5, True), done.err


def test_chance_of_imported_samples_counts_every_gold(evalsvc: Run, db: Path, tmp_path: Path) -> None:
    targets: list[Any] = [[0, 2], 1, [3], [0, 1, 2]]
    words = write_run(tmp_path, "base", [1.0, 0.0, 1.0, 0.0], filtered_resps=[[-1.0, False]] * 4)
    lines = [json.loads(line) for line in Path(words[2]).read_text().splitlines()]
    Path(words[2]).write_text(
        "".join(json.dumps({**r, "target": t}) + "\n" for r, t in zip(lines, targets, strict=True))
    )
    assert run_import(evalsvc, db, *words).code == 0
    (scores,) = Store(db).task_scores(1, [])[1]
    assert scores.chance == pytest.approx((2 / 4 + 1 / 4 + 1 / 4 + 3 / 4) / 4)
