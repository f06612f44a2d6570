"""lm-eval's tasks: the only package here that imports lm_eval.

suites           suite files -> Suite
task_files       a task's YAMLs and code, and the data beside it
faults           faults of a task's documents, in words
lm_eval_globals  what lm-eval keeps per process: templates, random generators, output
tasks            find, check and load the tasks of a suite
documents        the requests of a task's chosen documents
plan             tasks -> requests, built once for all checkpoints
other_prompts    the same documents with other prompts: few-shot examples, retrieved passages
suite_check      check a suite before it is scored
answers          the answer that a metric scores, its validity and its confidence
resample         levels on resampled documents, for metrics that are no mean of items
grade            responses -> lm-eval's own scores
"""
