"""The shipped tasks of the demo: lm-eval task files with items from `world`."""

from __future__ import annotations

import json

from evalsvc.demo.world import (
    ALL_FORMS,
    NOTE_FORMS,
    QUESTION_FORMS,
    SENSE_FORMS,
    clinic_facts,
    command_items,
    fact_items,
    grammar_items,
    sense_facts,
    story_items,
    tale_items,
    valley_facts,
)

_HEAD = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: data/{name}.jsonl
test_split: test
"""
_CHOICE_TASK = """\
output_type: multiple_choice
doc_to_text: "{{query}}"
doc_to_choice: choices
doc_to_target: gold
target_delimiter: " "
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
_COMMAND_TASK = """\
output_type: generate_until
doc_to_text: "{{query}}"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["\\n"]
  do_sample: false
  max_gen_toks: 12
filter_list:
  - name: words
    filter:
      - function: regex
        regex_pattern: "^\\\\s*([a-z ]*[a-z])"
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
_STORY_TASK = """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: bits_per_byte
    aggregation: bits_per_byte
    higher_is_better: false
"""
_TALE_TASK = """\
output_type: generate_until
repeats: 8
doc_to_text: "{{query}}"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["\\n"]
  do_sample: true
  temperature: 1.0
  max_gen_toks: 48
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
_TAIL = """\
num_fewshot: 0
metadata:
  version: 1.0
"""


def suite_files() -> dict[str, str]:
    """Return the shipped task files and their data: path relative to `suites/` -> content."""
    clinic = clinic_facts()
    choice_tasks = {
        "clinic_questions": fact_items(clinic, QUESTION_FORMS),
        "clinic_notes": fact_items([fact for fact in clinic if fact.number // 4 % 2], NOTE_FORMS),
        "valley_facts": fact_items(valley_facts(), ALL_FORMS),
        "valley_sense": fact_items(sense_facts(), SENSE_FORMS),
        "valley_grammar": grammar_items(120),
    }
    tasks = {name: (_CHOICE_TASK, items) for name, items in choice_tasks.items()}
    tasks["valley_commands"] = (_COMMAND_TASK, command_items(400))
    tasks["valley_stories"] = (_STORY_TASK, story_items(40))
    tasks["valley_tales"] = (_TALE_TASK, tale_items(24))
    files: dict[str, str] = {}
    for name, (form, items) in tasks.items():
        files[f"tasks/{name}.yaml"] = _HEAD.format(name=name) + form + _TAIL
        files[f"tasks/data/{name}.jsonl"] = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in items)
    return files
