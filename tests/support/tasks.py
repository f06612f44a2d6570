"""lm-eval tasks of every kind, written to a folder: the smallest that still have what trips a harness up."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

WORDS = "the cat dog sat ran on over mat hill red hot cold house sun moon old man one two three".split()


def make_sentence(rng: random.Random, low: int = 3, high: int = 9) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def write_task(folder: Path, name: str, rows: Iterable[dict[str, Any]], **config: Any) -> Path:
    """Write a task YAML and its data beside it; returns the YAML's path."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "data" / f"{name}.jsonl").write_text(text)
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"data/{name}.jsonl"}},
        "test_split": "test",
        "metadata": {"version": 1.0},
        **config,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task))
    return path


def make_choices(rng: random.Random, n: int) -> list[dict[str, Any]]:
    return [
        {"query": make_sentence(rng), "choices": [make_sentence(rng, 1, 3) for _ in range(4)], "gold": rng.randrange(4)}
        for _ in range(n)
    ]


MEAN = {"aggregation": "mean", "higher_is_better": True}
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{query}}",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}],
}


def write_all(folder: Path) -> None:
    """Write mc, mc_shots (random few-shots from its own test split), mc_info, cloze, roll, gen, votes, pair, family."""
    rng = random.Random(7)
    write_task(folder, "mc", make_choices(rng, 24), **CHOICE, tag="multi")
    rendered = {**CHOICE, "doc_to_choice": "{{choices}}"}  # a text that lm-eval parses
    write_task(folder, "mc_shots", make_choices(rng, 20), **rendered, num_fewshot=2, fewshot_split="test", tag="multi")
    info = {**CHOICE, "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_mutual_info", **MEAN}]}
    write_task(folder, "mc_info", make_choices(rng, 10), **info)
    cloze = [{"text": make_sentence(rng), "word": rng.choice(WORDS)} for _ in range(20)]
    write_task(
        folder,
        "cloze",
        cloze,
        output_type="loglikelihood",
        doc_to_text="{{text}}",
        doc_to_target=" {{word}}",
        metric_list=[
            {"metric": "acc", **MEAN},
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        ],
    )
    write_task(
        folder,
        "roll",
        [{"text": make_sentence(rng, 20, 300)} for _ in range(6)],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[
            {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
            {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
        ],
    )
    write_generations(folder, rng)
    write_group(folder, rng)


SMALL = {"general": ["mc", "mc_shots", "gen", "votes", "family"], "domain": ["cloze", "roll", "mc_info"]}
"""Role to small tasks of every kind, as `write_all` writes them."""


def write_suites(folder: Path, tasks: Path, roles: Mapping[str, Sequence[Any]] = SMALL) -> tuple[str, ...]:
    """Write one suite per role, of the tasks in a folder; return the suites' paths."""
    for role, entries in roles.items():
        suite = {"name": role, "role": role, "include": str(tasks), "tasks": list(entries)}
        (folder / f"{role}.yaml").write_text(yaml.safe_dump(suite))
    return tuple(str(folder / f"{role}.yaml") for role in roles)


def write_generations(folder: Path, rng: random.Random) -> None:
    strict = {
        "name": "strict",
        "filter": [{"function": "regex", "regex_pattern": "(\\w+)"}, {"function": "take_first"}],
    }
    loose = {"name": "loose", "filter": [{"function": "lowercase"}, {"function": "take_first"}]}
    config: dict[str, Any] = {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{word}}",
        "metric_list": [{"metric": "exact_match", **MEAN}],
    }
    settings = {"until": ["\n", " the"], "max_gen_toks": 12, "do_sample": False}
    rows = [{"text": make_sentence(rng), "word": rng.choice(WORDS)} for _ in range(10)]
    write_task(folder, "gen", rows, **config, generation_kwargs=settings, filter_list=[strict, loose])
    vote = {"name": "vote", "filter": [{"function": "majority_vote"}, {"function": "take_first"}]}
    sampled = {"until": ["\n"], "max_gen_toks": 4, "do_sample": True, "temperature": 0.8}
    write_task(folder, "votes", rows[:4], **config, generation_kwargs=sampled, repeats=3, filter_list=[vote])


def write_group(folder: Path, rng: random.Random) -> None:
    for name, n in (("member_a", 10), ("member_b", 6)):
        write_task(folder, name, make_choices(rng, n), **CHOICE)
    group = {
        "group": "family",
        "task": ["member_a", "member_b"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
        "metadata": {"version": 1},
    }
    (folder / "family.yaml").write_text(yaml.safe_dump(group))
