"""Results of others, in and out.

arms      imported scores as arms with plans and results
lm_eval   lm-eval's results and samples
items     tables with one row per arm and item
matrices  tasks learned one after the other
"""
