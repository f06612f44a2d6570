"""Analysis of stored scores: comparisons, frontiers, trajectories, claims.

units                the unit of evidence: documents and clusters; comparisons -> independent differences
compare              compares two arms, task by task
levels               published levels without items -> comparisons
shared               which suites several arms are compared on
suite_gains          gains of many arms over their base, by suite, with bootstrap resamples
frontier             the frontier of learning and forgetting
trajectory           a training run, step by step
claims               tests of claims about adaptation
diversity_and_drift  diversity of sampled answers, and token drift, against the base
independent_runs     which training runs are independent of each other
stored               comparisons and frontiers of the arms in a store
training_runs        training runs in a store
stored_claims        claims, tested on the arms in a store
stored_drift         diversity and drift of the arms in a store
"""
