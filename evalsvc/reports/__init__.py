"""Records in, text out: tables for people, JSON for machines, Markdown, JUnit XML, HTML. Decides nothing.

formatting           numbers, intervals and tables, wherever they are printed
runs                 runs and results
comparison           two arms compared
frontier             learning against forgetting
trajectories         training runs
continual            matrices of tasks learned one after the other
claims               claims
diversity_and_drift  diversity of sampled answers, token drift
decisions            decisions and power analyses
checkpoints          checkpoints, their changes and findings
suites               suites and their checks
environment          what works on this machine
html                 one self-contained HTML file
"""
