"""Reports of records: JSON, DataFrames, tables, HTML, Markdown, JUnit XML.

formatting           numbers, intervals and tables
report               base class of all reports
runs                 runs and their progress
results              scores of suites and tasks
comparison           comparison of two arms
frontier             learning and forgetting of all arms
trajectories         training runs by step
continual            matrices of tasks learned one after the other
claims               claims and their verdicts
diversity_and_drift  diversity of sampled answers, token drift
decisions            decisions, and their verification
ci                   decisions as Markdown and JUnit XML
power                power analysis of a policy
advice               the cheapest arm that passes
imports              imported scores and matrices
checkpoints          checkpoints, their weight changes and findings
suites               suites and their checks
environment          checks of this machine
html                 one self-contained HTML file
"""
