"""Records in, reports out: JSON, DataFrames, tables, HTML, Markdown, JUnit XML. Decides nothing.

formatting           numbers, intervals and tables, wherever they are printed
report               one answer in every form in which it is given
runs                 runs
results              scores of suites and tasks
comparison           two arms compared
frontier             learning against forgetting
trajectories         training runs
continual            matrices of tasks learned one after the other
claims               claims
diversity_and_drift  diversity of sampled answers, token drift
decisions            decisions, and whether they still hold
ci                   decisions as Markdown and JUnit XML
power                what a policy can resolve
advice               the cheapest arm that passes
imports              imported scores and matrices
checkpoints          checkpoints, their changes and findings
suites               suites and their checks
environment          what works on this machine
html                 one self-contained HTML file
"""
