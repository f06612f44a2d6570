"""Tasks that use lm-eval's features, each the smallest that still shows whether the feature is obeyed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.tasks import CHOICE, MEAN, WORDS, make_choices, make_sentence, write_task

GENERATE: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{text}}",
    "doc_to_target": "{{word}}",
    "metric_list": [{"metric": "exact_match", **MEAN}],
    "generation_kwargs": {"until": ["\n", " the"], "max_gen_toks": 12},
}
BINARY = {**CHOICE, "doc_to_choice": ["no", "yes"], "doc_to_target": "{{gold % 2}}"}
EXAMPLES = [{"query": f"example {word}", "choices": ["a", "b", "c", "d"], "gold": 1} for word in WORDS[:5]]
CODE = """
def read_choices(doc):
    return [choice.upper() for choice in doc["choices"]]

def judge(doc, results):
    best = max(range(len(results)), key=lambda i: results[i][0])
    return {"share": (best == doc["gold"], len(doc["query"]))}

def weigh(items):
    return sum(hit * weight for hit, weight in items) / sum(weight for _, weight in items)
"""


def metrics(*names: str, **more: Any) -> dict[str, Any]:
    """Return a list of metrics with their default aggregation."""
    return {"metric_list": [{"metric": name, **more} for name in names]}


CHOICES: Mapping[str, dict[str, Any]] = {
    "choice_field": CHOICE,
    "choice_template": {**CHOICE, "doc_to_choice": "{{choices[:3]}}", "doc_to_target": "{{gold % 3}}"},
    "choice_list": BINARY,
    "choice_mapping": {**CHOICE, "doc_to_choice": {"a": "red", "b": "blue"}, "doc_to_target": "{{gold % 2}}"},
    "choice_function": {**CHOICE, "doc_to_choice": "!read_choices"},
    "gold_text": {**CHOICE, "doc_to_target": "{{choices[gold]}}"},
    "golds": {**CHOICE, "doc_to_target": "{{[gold, (gold + 1) % 4]}}"},
    "many_inputs": {
        **CHOICE,
        "doc_to_text": "{{gold % 2}}",
        "doc_to_choice": "{{[query, choices[0] ~ ' and ' ~ query]}}",
        "doc_to_target": "{{choices[1]}}",
    },
    "delimiter": {**CHOICE, "target_delimiter": ": "},
    "no_delimiter": {**CHOICE, "target_delimiter": ""},
    "all_metrics": {**CHOICE, **metrics("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", **MEAN)},
    "corpus_metrics": {**BINARY, **metrics("f1", "mcc", "brier_score")},
    "prefixed": {**CHOICE, "gen_prefix": "Answer:"},
    "prefixed_by_field": {**CHOICE, "gen_prefix": "{{choices[3]}}", "description": "About {{query}}.\n"},
    "shots_default": {**CHOICE, "num_fewshot": 3, "training_split": "train"},
    "shots_first": {**CHOICE, "num_fewshot": 2, "fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}},
    "shots_of_itself": {**CHOICE, "num_fewshot": 4, "fewshot_split": "test"},
    "shots_listed": {
        **CHOICE,
        "num_fewshot": 2,
        "fewshot_config": {"samples": EXAMPLES, "doc_to_text": "Q {{query}}", "target_delimiter": " = "},
    },
    "shots_apart": {**CHOICE, "num_fewshot": 1, "fewshot_split": "train", "fewshot_delimiter": "\n---\n"},
    "shots_prefixed": {**CHOICE, "num_fewshot": 2, "fewshot_split": "train", "gen_prefix": "It is"},
    "judged": {
        **CHOICE,
        "process_results": "!judge",
        "metric_list": [{"metric": "share", "aggregation": "!weigh", "higher_is_better": True}],
    },
    "prepared": {**CHOICE, "num_fewshot": 2, "fewshot_split": "train", "process_docs": "!prepare"},
}
TEXTS: Mapping[str, dict[str, Any]] = {
    "greedy": GENERATE,
    "defaults": {key: value for key, value in GENERATE.items() if key != "generation_kwargs"},
    "filters": {
        **GENERATE,
        "filter_list": [
            {
                "name": "word",
                "filter": [
                    {"function": "regex", "regex_pattern": "(\\w+)", "group_select": -1},
                    {"function": "take_first"},
                ],
            },
            {"name": "low", "filter": [{"function": "lowercase"}, {"function": "take_first"}]},
            {"name": "bare", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]},
        ],
    },
    "lenient": {**GENERATE, **metrics("exact_match", ignore_case=True, regexes_to_ignore=["[aeiou]"], **MEAN)},
    "corpus": {**GENERATE, **metrics("bleu", "chrf", "ter")},
    "many_golds": {**GENERATE, "doc_to_target": "{{[word, word ~ word]}}"},
    "text_shots": {**GENERATE, "num_fewshot": 3, "fewshot_split": "train", "gen_prefix": "Then"},
    "total_length": {**GENERATE, "generation_kwargs": {"until": ["\n"], "max_length": 60}},
    "empty_stop": {**GENERATE, "generation_kwargs": {"until": ["\n", ""], "max_gen_toks": 12}},
    "cloze": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text}}",
        "doc_to_target": " {{word}}",
        **metrics("acc", "perplexity"),
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}} {{word}} {{text}}",
        **metrics("word_perplexity", "byte_perplexity", "bits_per_byte"),
    },
}
ENTRIES = (*CHOICES, *TEXTS, "pair", "outer")
"""What a suite names: all tasks, a group and a group of groups."""


def write_features(folder: Path) -> None:
    """Write every task, its data, one module of functions, and two groups."""
    folder.mkdir()
    rng = random.Random(3)
    (folder / "code.py").write_text(
        CODE + "\ndef prepare(docs):\n    return docs.filter(lambda doc: doc['gold'] > 0)\n"
    )
    for name, config in {**CHOICES, **TEXTS}.items():
        if name in CHOICES:
            rows, examples = make_choices(rng, 9), make_choices(rng, 12)
        else:
            parts = [[{"text": make_sentence(rng), "word": rng.choice(WORDS)} for _ in range(n)] for n in (7, 12)]
            rows, examples = parts
        _write(folder, name, rows, examples, config)
    for name in ("first", "second", "third"):
        _write(folder, name, make_choices(rng, rng.randrange(3, 12)), [], CHOICE)
    pair = {"task": ["first", "second"], **_aggregate(True)}
    inner = {"group": "inner", "task": ["first_again"], **_aggregate(True)}
    _write(folder, "first_again", make_choices(rng, 5), [], CHOICE)
    for name, group in (("pair", pair), ("outer", {"task": ["third", inner], **_aggregate(False)})):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"group": name, "metadata": {"version": 1}, **group}))


def _aggregate(by_size: bool) -> dict[str, Any]:
    return {"aggregate_metric_list": [{"metric": "acc", "aggregation": "mean", "weight_by_size": by_size}]}


def _write(folder: Path, name: str, rows: list[Any], examples: list[Any], config: dict[str, Any]) -> None:
    path = write_task(folder, name, rows, **config)
    text = path.read_text()
    if examples:
        write_task(folder, f"{name}_train", examples).unlink()
        text = text.replace(f"test: data/{name}.jsonl", f"test: data/{name}.jsonl\n    train: data/{name}_train.jsonl")
    for function in ("read_choices", "judge", "weigh", "prepare"):
        text = text.replace(f"'!{function}'", f"!function code.{function}")
    path.write_text(text)
