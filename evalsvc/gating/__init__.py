"""Gates: tests whether a checkpoint meets a policy, and stores the decision, which can be verified.

policy      reads policy files
rules       rules of a policy, with their evidence
measure     tests one rule: estimate, interval, items needed
waivers     which waivers apply
verdict     decides on complete evidence
sequential  decides at interim looks, while scores still come in
candidates  levels of several candidates on the same items
ledger      which candidate a checkpoint is, by the decisions in a store
evidence    reads the evidence that a policy needs from a store
recipe      evidence on a recipe: the mean over independent training runs
power       power analysis of a policy, given the sizes of its suites
power_plan  power analysis for a store or a submission, with the compute that scoring takes
evaluate    scores the suites of a policy until it is decided
what_if     tests the same evidence with another margin, alpha or number of items
decisions   decides on the evidence in a store, and stores the decision
verify      recomputes a stored decision
advisor     finds the cheapest arm that learns and does not forget
"""
