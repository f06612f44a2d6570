"""Import of results that other tools produced.

arms             imported scores as arms with plans and results
lm_eval_results  lm-eval's results files
lm_eval_samples  the samples beside them
lm_eval          both together, and folders of them, as arms
items            tables with one row per arm and item
repeated_items   items that stand in several tasks, where only names are known
matrices         score matrices of continual learning
"""
