"""lm-eval's tasks: the only package here that imports lm_eval.

tasks   a suite's tasks, found, checked and loaded
plan    tasks -> requests, built once for all checkpoints
grade   responses -> lm-eval's own scores
"""
