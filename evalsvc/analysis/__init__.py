"""Stored scores -> answers: comparisons, frontiers, trajectories, claims.

compare              paired scores of two arms -> Comparison
suite_gains          scores of many arms -> what each gained on every suite, resampled
frontier             gains -> Frontier
trajectory           comparisons of many steps -> Trajectory
claims               claims about adaptation -> decided Cards
diversity_and_drift  sampled texts and token drift of an arm against its base
stored               arms of a store, compared and placed
training_runs        training runs of a store, step by step
stored_claims        claims, decided on the arms of a store
stored_drift         diversity and drift of the arms of a store
"""
