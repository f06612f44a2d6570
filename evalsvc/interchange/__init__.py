"""Import of results that other tools produced.

arms      imported scores as arms with plans and results
lm_eval   lm-eval's results and samples
items     tables with one row per arm and item
matrices  score matrices of continual learning
"""
