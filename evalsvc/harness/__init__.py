"""lm-eval's tasks: the only package here that imports lm_eval.

suites         suite files -> Suite
tasks          a suite's tasks, found, checked and loaded
plan           tasks -> requests, built once for all checkpoints
other_prompts  the same documents with other prompts: worked examples, retrieved passages
suite_check    a suite, checked before it is scored
answers        what was answered, as metrics judge it
grade          responses -> lm-eval's own scores
"""
