"""lm-eval's tasks: the only package here that imports lm_eval.

suites         suite files -> Suite
tasks          find, check and load the tasks of a suite
plan           tasks -> requests, built once for all checkpoints
other_prompts  the same documents with other prompts: few-shot examples, retrieved passages
suite_check    check a suite before it is scored
answers        the answer that a metric scores, its validity and its confidence
grade          responses -> lm-eval's own scores
"""
